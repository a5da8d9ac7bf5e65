import csv
import json
import pickle
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
from peft import PeftModel
from typer.testing import CliRunner

from lema.cli import app
from lema.errors import RunError
from lema.models.local_weights import load_network
from lema.models.tokenize import count_tokens, load_tokenizer
from lema.models.transformers import transformers
from lema.models.types import Model, Request, Sampling
from lema.pipeline import providers
from lema.pipeline.providers import adapted, base_model
from lema.recipe.params import Run
from lema.recipe.training_schema import AdapterSpec, ChooseSpec
from lema.rows import Message
from lema.train import packed
from lema.train.base import weights_digest
from lema.train.batching import IGNORED, LeftPadding, completion_loss, encode_example
from lema.train.lora import check_hardware, four_bit, hold_out, length_grouped_order, train_adapter

from .conftest import EXAMPLES, SPEC, example

JOB = """
import pickle, sys, time
from lema.train.lora import train_adapter

def log(done, total, note):
    print(done, flush=True)
    time.sleep(0.3)

train_adapter(*pickle.load(open(sys.argv[1], "rb")), log)
"""


TOO_LONG = example(99, words=200)


def run(base, folder: Path, examples=EXAMPLES, spec=SPEC, **more) -> dict:
    folder.mkdir()
    train_adapter(examples, base, spec, folder, folder.with_suffix(".scratch"), folder.with_suffix(".csv"), **more)
    return json.loads((folder / "training.json").read_text())


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lora") / "adapter"
    run(base, folder, [*EXAMPLES, TOO_LONG])
    return folder


@pytest.fixture(scope="session")
def tokenizer(base):
    return load_tokenizer(base.location)


def test_loss_is_on_the_completion_alone_or_on_everything_but_the_first_token(tokenizer):
    row = encode_example(EXAMPLES[3], tokenizer, chat=False)
    learnt = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != IGNORED]
    assert tokenizer.decode(learnt) == EXAMPLES[3].completion + tokenizer.eos_token
    assert tokenizer.decode(row["input_ids"]).startswith("What is 3 + 3?\n")
    whole = encode_example(EXAMPLES[3], tokenizer, chat=False, whole=True)
    assert whole == {"input_ids": row["input_ids"], "labels": [IGNORED, *row["input_ids"][1:]]}


def test_masked_characters_have_no_loss(tokenizer):
    text = "3 + 3 = 7.\nWait: 3 + 3 = 6."
    masked = replace(EXAMPLES[3], completion=text, masked=((0, 10), (17, 22)))
    row, whole = (encode_example(one, tokenizer, chat=False) for one in (masked, replace(masked, masked=())))
    assert row["input_ids"] == whole["input_ids"]
    learnt = [token for token in row["labels"] if token != IGNORED]
    assert tokenizer.decode(learnt).replace(" ", "") == "\nWait:=6." + tokenizer.eos_token
    assert whole["labels"][-len(learnt) :] != row["labels"][-len(learnt) :]


def test_an_arm_is_sized_by_the_tokens_that_are_trained(base, tokenizer):
    model = Model("base", "transformers", "x", chat=False, folder=base.location)
    rows = [encode_example(one, tokenizer, chat=False) for one in EXAMPLES]
    completions = [one.completion for one in EXAMPLES]
    learnt = [sum(label != IGNORED for label in row["labels"]) for row in rows]
    assert count_tokens(model, [], completions) == learnt
    whole = [len(row["input_ids"]) for row in rows]
    assert count_tokens(model, [one.prompt for one in EXAMPLES], completions) == whole
    assert count_tokens(model, [], []) == []


def test_a_tokenizer_that_cannot_encode_an_example_is_a_message(tokenizer):
    class Slow:
        is_fast, eos_token_id = False, tokenizer.eos_token_id

        def __call__(self, *given: object, **options: object) -> object:
            return tokenizer(*given, **options)

    class Refusing:
        def apply_chat_template(self, *_: object, **__: object) -> str:
            raise TypeError("no system role")

    with pytest.raises(RunError, match="example arm/000003: it masks characters, and the base has no fast tokenizer"):
        encode_example(replace(EXAMPLES[3], masked=((0, 2),)), Slow(), chat=False)
    with pytest.raises(RunError, match=r"adapter: example arm/000001: the chat template refuses .* \(TypeError\)"):
        encode_example(EXAMPLES[1], Refusing(), chat=True)


def test_the_loss_is_that_of_transformers_with_padding_on_the_other_side(base, tokenizer):
    import torch
    from torch.nn.utils.rnn import pad_sequence

    model = load_network(base.location)
    rows = [encode_example(one, tokenizer, chat=False) for one in EXAMPLES[:4]]
    batch = LeftPadding(tokenizer)(rows)
    assert batch["logits_to_keep"] == 1 + max(sum(label != IGNORED for label in row["labels"]) for row in rows)
    labels = batch.pop("labels")
    ours = completion_loss(model(**batch), labels)
    ours.backward()
    ours_gradient = model.get_input_embeddings().weight.grad.clone()
    model.zero_grad()
    right, wanted, mask = (
        pad_sequence([torch.tensor(one) for one in column], batch_first=True, padding_value=filler)
        for column, filler in (
            ([row["input_ids"] for row in rows], 0),
            ([row["labels"] for row in rows], IGNORED),
            ([[1] * len(row["labels"]) for row in rows], 0),
        )
    )
    theirs = model(right, labels=wanted, attention_mask=mask).loss
    theirs.backward()
    assert torch.allclose(ours, theirs, rtol=1e-5)
    assert torch.allclose(ours_gradient, model.get_input_embeddings().weight.grad, atol=1e-5)


def test_what_is_written(trained, base):
    assert sorted(files(trained)) == ["adapter_config.json", "adapter_model.safetensors", "training.json"]
    record = json.loads((trained / "training.json").read_text())
    assert (record["examples"], record["steps"], record["too_long"]) == (10, 10, [TOO_LONG.id])
    assert record["final_loss"] < record["first_loss"]
    assert json.loads((trained / "adapter_config.json").read_text())["base_model_name_or_path"] == base.identity
    lines = trained.with_suffix(".csv").read_text().splitlines()
    assert lines[0] == "step,loss,lr,grad_norm"
    assert [line.split(",")[0] for line in lines[1:]] == [str(step) for step in range(1, 11)]
    assert str(trained.parent) not in (trained / "training.json").read_text()


def test_same_input_same_bytes(trained, base, tmp_path):
    run(base, tmp_path / "again", [*EXAMPLES, TOO_LONG])
    assert files(tmp_path / "again") == files(trained)


def test_steps_instead_of_epochs_and_loss_on_the_prompt_too(base, tmp_path):
    spec = AdapterSpec(rank=2, alpha=4, steps=3, batch=2, accumulate=2, schedule="constant", loss="all")
    record = run(base, tmp_path / "adapter", spec=spec)
    assert record["steps"] == 3
    assert record["loss_tokens_an_epoch"] == record["tokens_an_epoch"] - len(EXAMPLES)


def test_batches_are_of_similar_length():
    lengths = [1, 9, 1, 9, 1, 9, 1, 9, 5]
    order = length_grouped_order(lengths, AdapterSpec(epochs=1, batch=2))
    assert sorted(order) == list(range(9))
    pairs = [{lengths[order[at]], lengths[order[at + 1]]} for at in range(0, 8, 2)]
    assert sum(len(pair) == 1 for pair in pairs) >= 3


def test_a_base_that_cannot_be_packed_is_padded_and_learns_alike(trained, base, tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "PACKABLE", frozenset())
    run(base, tmp_path / "padded")
    usual, padded = (
        [float(row["loss"]) for row in csv.DictReader(folder.with_suffix(".csv").open())]
        for folder in (trained, tmp_path / "padded")
    )
    assert padded == pytest.approx(usual, rel=1e-3)


def test_the_checkpoint_with_the_least_loss_on_held_out_questions_is_kept(base, tokenizer, tmp_path):
    # At this rate and with held-out texts that are like no other, the last checkpoint is not the best one.
    spec = SPEC.model_copy(update={"choose": ChooseSpec(every=5, share=0.3), "lr": 0.1})
    _, dev = hold_out(EXAMPLES, spec)
    dev = [replace(one, completion="@# @# @# @#") for one in dev]
    examples = [*dev, *(one for one in EXAMPLES if one.id not in {other.id for other in dev})]
    twins = [replace(one, id=f"{one.id}c", kind="correction") for one in examples]
    record = run(base, tmp_path / "adapter", [*examples, *twins], spec)
    curve = list(csv.DictReader((tmp_path / "adapter.csv").open()))
    measured = {int(row["step"]): float(row["held_out_loss"]) for row in curve if row["held_out_loss"]}
    assert list(measured) == [*range(5, record["steps"], 5), record["steps"]]
    best = min(measured, key=measured.__getitem__)
    assert (record["chosen_step"], best != record["steps"]) == (best, True)
    assert record["held_out_loss"] == pytest.approx(measured[best], rel=1e-4)
    # The corrections of held-out questions are not learnt either.
    assert record["examples"] == 2 * (len(EXAMPLES) - record["held_out_examples"]) > 0
    # What was kept is that checkpoint: its loss on the held-out examples is the one that was told.
    network = PeftModel.from_pretrained(load_network(base.location), tmp_path / "adapter")
    found = []
    for start in range(0, len(dev), spec.batch):
        rows = [encode_example(one, tokenizer, chat=False) for one in dev[start : start + spec.batch]]
        batch = LeftPadding(tokenizer)(rows)
        labels = batch.pop("labels")
        found.append(completion_loss(network(**batch), labels).item())
    assert fmean(found) == pytest.approx(record["held_out_loss"], rel=1e-4)


def test_trainings_that_differ_by_their_seed_hold_out_the_same_questions():
    drawn = [
        hold_out(EXAMPLES, SPEC.model_copy(update={"choose": ChooseSpec(every=5, share=0.3), "seed": seed}))
        for seed in (0, 1, 2)
    ]
    assert drawn[0] == drawn[1] == drawn[2]
    assert 0 < len(drawn[0][1]) < len(EXAMPLES)


def test_full_fine_tuning_writes_a_model(base_folder, base, tmp_path):
    spec = AdapterSpec(method="full", lr=1e-3, steps=3, batch=4, max_length=80)
    folder = tmp_path / "whole"
    record = run(base, folder, spec=spec)
    assert record["final_loss"] < record["first_loss"]
    whole, before = (load_network(str(place)).state_dict() for place in (folder, base_folder))
    assert whole.keys() == before.keys()
    assert not any((whole[name] == before[name]).all() for name in whole if "proj" in name)
    assert str(tmp_path) not in "".join(path.read_text() for path in folder.glob("*.json"))
    model = adapted(base_model(base_folder), "whole", folder)
    assert (model.label, model.folder, model.adapter, model.chat) == ("whole", str(folder), None, False)
    assert model.identity == f"transformers {weights_digest(folder)}" != base_model(base_folder).identity
    (reply,) = transformers(model, Run())(
        [Request(model, (Message("user", "What is 1 + 1?"),), Sampling(max_tokens=4))]
    )
    assert reply.finish in ("stop", "length")


@pytest.mark.parametrize(
    ("settings", "examples", "said"),
    [
        ({}, [example(1, words=300)], "none of 1 examples fits in max_length 80"),
        ({"choose": ChooseSpec(every=2, share=0.001)}, EXAMPLES, "`choose.share: 0.001` holds out no CoT example"),
    ],
)
def test_too_few_examples(base, tmp_path, settings, examples, said):
    with pytest.raises(RunError, match=said):
        run(base, tmp_path / "adapter", examples, SPEC.model_copy(update=settings))


QLORA, PAGED = {"method": "qlora"}, {"optimizer": "paged_adamw_32bit"}


@pytest.mark.parametrize("settings", [QLORA, PAGED, QLORA | PAGED])
def test_what_needs_a_gpu_says_so(base, tmp_path, monkeypatch, settings):
    named = "adapter: " + " and ".join(f"`{name}: {value}`" for name, value in settings.items()) + " needs"
    spec = SPEC.model_copy(update=settings)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(RunError, match=f"{named} a GPU"):
        run(base, tmp_path / "adapter", spec=spec)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("lema.train.lora.find_spec", lambda _: None)
    with pytest.raises(RunError, match=rf"{named} bitsandbytes: pip install -e '.\[qlora\]'"):
        check_hardware(spec)


def test_the_weights_of_qlora():
    weights = four_bit()
    assert (weights.load_in_4bit, weights.bnb_4bit_quant_type, weights.bnb_4bit_use_double_quant) == (True, "nf4", True)


def test_a_merged_adapter_is_a_model_that_says_the_same(base_folder, base, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(base_folder, "data/tiny/base")
    shutil.copytree(trained, "data/tiny/adapters/one")
    done = CliRunner().invoke(app, ["merge", "tiny/one", "merged"])
    assert (done.exit_code, done.output) == (0, "tiny/one is in merged\n")
    tokenizer = load_tokenizer("merged")
    ids = tokenizer("What is 4 + 4?\n", return_tensors="pt")
    adapter = PeftModel.from_pretrained(load_network(base.location), trained)
    apart, merged = (model(**ids).logits for model in (adapter, load_network("merged")))
    assert apart.allclose(merged, atol=1e-4)
    assert not merged.allclose(load_network(base.location)(**ids).logits, atol=1e-2)
    assert str(tmp_path) not in "".join(path.read_text() for path in Path("merged").glob("*.json"))
    with pytest.raises(RunError, match="merged is there already"):
        providers.merge_student("tiny", "one", Path("merged"))
    shutil.rmtree("merged")
    shutil.rmtree("data/tiny/adapters")
    for arm, said in ((None, "needs an arm"), ("other", "no adapter of tiny/other yet")):
        with pytest.raises(RunError, match=said):
            providers.merge_student("tiny", arm, Path("merged"))
    for seed in ("2", "10"):
        shutil.copytree(trained, f"data/tiny/adapters/one/{seed}")
    for given in (None, 3):
        with pytest.raises(RunError, match="tiny/one was trained with several seeds: --seed 2 or 10"):
            providers.merge_student("tiny", "one", Path("merged"), given)
    providers.merge_student("tiny", "one", Path("merged"), 10)
    assert (tmp_path / "merged" / "model.safetensors").is_file()


@pytest.mark.slow
def test_kill_9_and_resume(trained, base, tmp_path):
    folder = tmp_path / "killed"
    folder.mkdir()
    job = ([*EXAMPLES, TOO_LONG], base, SPEC, folder, folder.with_suffix(".scratch"), folder.with_suffix(".csv"))
    (tmp_path / "job").write_bytes(pickle.dumps(job))
    command = [sys.executable, "-c", JOB, str(tmp_path / "job")]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as first:
        assert any(line.strip() == "5" for line in first.stdout)
        first.send_signal(signal.SIGKILL)
    folder.rmdir()
    steps = []
    run(base, folder, [*EXAMPLES, TOO_LONG], log=lambda done, *_: steps.append(done))
    assert steps[0] > 1, "it began again from nothing"
    assert steps[-1] == 10
    assert files(folder) == files(trained)
    assert folder.with_suffix(".csv").read_bytes() == trained.with_suffix(".csv").read_bytes()
