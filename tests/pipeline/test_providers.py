"""What the pipeline gives to stages: models by name, and what the report shows of trainings."""

import json
from pathlib import Path

import pytest

from lema.models.types import Model
from lema.pipeline import providers
from lema.pipeline.providers import named_model, training
from lema.recipe.schema import ModelSpec

pytest.importorskip("torch", reason="needs the extra `train`")


def test_a_local_model_is_known_by_its_weights_wherever_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, weights in (("here", b"1"), ("there", b"1"), ("other", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(weights)
    here, there, other = (
        named_model("m", ModelSpec(backend="transformers", name=name)) for name in ("here", "there", "other")
    )
    assert here.identity == there.identity != other.identity
    assert "here" not in here.identity
    assert here.folder == "here"
    assert named_model("m", ModelSpec(backend="transformers", name="org/hub")).identity == "transformers org/hub"
    theirs = named_model("m", ModelSpec(backend="vllm", name="here")).identity
    assert theirs == here.identity.replace("transformers", "vllm")


def test_an_adapter_of_another_recipe_is_another_model_for_every_backend_and_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "base_model", lambda _, backend: Model("base", backend, f"{backend} base"))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"1")
    specs = [
        ModelSpec(backend="transformers", adapter="one/lema"),
        ModelSpec(backend="vllm", adapter="one/lema"),
        ModelSpec(backend="vllm", adapter="one/lema", options={"omit": ["seed"]}),
    ]
    models = [providers.adapter_model("m", spec, tmp_path, tmp_path) for spec in specs]
    assert [model.backend for model in models] == ["transformers", "vllm", "vllm"]
    assert models[2].options == {"omit": ["seed"]}
    assert len({model.identity for model in models}) == 3
    assert all(model.adapter == str(tmp_path) for model in models)


def test_the_report_sees_the_first_training_and_mean_losses(tmp_path: Path) -> None:
    curve = tmp_path / "curve.csv"
    curve.write_text("step,loss,dev\n1,2.5,\n2,1.5,3\n")
    folders = [tmp_path / "0", tmp_path / "7"]
    for at, folder in enumerate(folders):
        folder.mkdir()
        record = {"steps": 2, "first_loss": 2.0 + at, "final_loss": None if at else 1.0, "examples": 5}
        (folder / "training.json").write_text(json.dumps(record))
    points = [{"step": 1.0, "loss": 2.5}, {"step": 2.0, "loss": 1.5, "dev": 3.0}]
    assert training(folders, curve) == {
        "steps": 2, "first_loss": 2.5, "final_loss": 1.0, "examples": 5, "seeds": "0, 7", "curve": points
    }  # fmt: skip
    assert training(folders[:1], curve) == {
        "steps": 2, "first_loss": 2.0, "final_loss": 1.0, "examples": 5, "curve": points
    }  # fmt: skip
