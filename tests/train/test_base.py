import json
import shutil

import pytest

from lema.errors import RunError
from lema.recipe.training_schema import BaseSpec
from lema.train.base import open_base, weights_digest, write_base

from .conftest import TINY


def test_a_student_trained_here_lies_in_the_artifact(base_folder, base):
    facts = json.loads((base_folder / "base.json").read_text())
    assert facts["kind"] == "pretrain"
    assert facts["identity"] == base.identity
    assert base.location == str(base_folder)
    assert not base.chat
    # No path of a machine in what is shared.
    assert str(base_folder.parent) not in "".join(path.read_text() for path in base_folder.glob("*.json"))


def test_the_same_recipe_trains_the_same_weights_and_another_seed_others(base, tmp_path):
    identities, reported = [], []
    for seed in (TINY.seed, TINY.seed + 1):
        spec = BaseSpec(pretrain=TINY.model_copy(update={"seed": seed}), chat=False)
        (folder := tmp_path / str(seed)).mkdir()
        write_base(spec, folder, tmp_path, lambda done, total, note: reported.append((done, total)))
        identities.append(open_base(folder, tmp_path).identity)
    assert identities[0] == base.identity != identities[1]
    # The number of steps is known before the first.
    assert reported == [(done, TINY.steps) for done in range(TINY.steps + 1)] * 2


def test_a_folder_is_known_by_its_weights(base_folder, base, tmp_path):
    write_base(BaseSpec(folder=str(base_folder)), tmp_path, tmp_path)
    opened = open_base(tmp_path, tmp_path)
    assert opened.identity == base.identity
    assert opened.chat
    facts = json.loads((tmp_path / "base.json").read_text())
    facts["identity"] = "sha256:other"
    (tmp_path / "base.json").write_text(json.dumps(facts))
    with pytest.raises(RunError, match="not those it was made with"):
        open_base(tmp_path, tmp_path)
    with pytest.raises(RunError, match=r"no \.safetensors"):
        write_base(BaseSpec(folder=str(tmp_path)), tmp_path, tmp_path)


def test_a_commit_of_the_hub_needs_no_hub_and_a_branch_does(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    write_base(BaseSpec(hub="some/model", revision="a" * 40), tmp_path, tmp_path)
    opened = open_base(tmp_path, tmp_path)
    assert (opened.location, opened.revision, opened.identity) == ("some/model", "a" * 40, f"some/model@{'a' * 40}")
    with pytest.raises(RunError, match=r"does not tell the commit of some/model.*full commit"):
        write_base(BaseSpec(hub="some/model", revision="main"), tmp_path, tmp_path)


def test_digits_are_tokens_of_their_own_and_texts_survive(base):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base.location)
    text = "Mia has 12 + 345 = 357 apples.\nThe answer is 357."
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    pieces = [tokenizer.decode([token]) for token in tokenizer("12345")["input_ids"]]
    assert pieces == ["1", "2", "3", "4", "5"]


def test_saving_again_with_another_transformers_makes_no_other_model(base_folder, base, tmp_path):
    again = tmp_path / "model"
    shutil.copytree(base_folder, again)
    config = json.loads((again / "config.json").read_text())
    (again / "config.json").write_text(json.dumps({**config, "transformers_version": "99.0"}))
    assert weights_digest(again) == base.identity
    (again / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    assert weights_digest(again) != base.identity
