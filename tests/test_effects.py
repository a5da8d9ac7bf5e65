"""What the pipeline gives to stages: trainings that are not lost, and what the report shows of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from lema.effects import named_model, train_adapter, training
from lema.recipe import AdapterSpec, ModelSpec

pytest.importorskip("torch", reason="needs the extra `train`")


class Killed(Exception):
    """Stands for a kill in the middle of a training."""


def test_what_is_finished_survives_a_kill_and_what_is_not_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[int, list[str]]] = []

    def train(examples: Any, base: Any, spec: AdapterSpec, folder: Path, scratch: Path, curve: Path, log: Any) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        trained.append((spec.seed, sorted(path.name for path in scratch.iterdir())))
        (folder / "weights").write_text(f"{spec.seed}")
        if spec.seed == 1 and not (scratch / "checkpoint").exists():
            (scratch / "checkpoint").touch()
            raise Killed
        curve.write_text(f"step,loss\n1,{spec.seed}\n")

    monkeypatch.setattr("lema.train.lora.train", train)
    monkeypatch.setattr("lema.train.base.open_base", lambda *_: "base")
    spec = AdapterSpec(epochs=1, seeds=(0, 1))

    def stage(name: str) -> Path:
        for one in spec.trainings:
            folder = tmp_path / name / str(one.seed)
            folder.mkdir(parents=True)
            train_adapter(tmp_path, tmp_path / "scratch", [], None, one, folder, folder / "curve.csv")  # type: ignore[arg-type]
        return tmp_path / name

    with pytest.raises(Killed):
        stage("killed")
    made = stage("again")
    assert trained == [(0, []), (1, []), (1, ["checkpoint"])]
    assert [(made / seed / "weights").read_text() for seed in "01"] == ["0", "1"]
    assert (made / "1" / "curve.csv").read_text() == "step,loss\n1,1\n"


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
