"""The trainings of an arm: none is lost, and on Ray they come to the same as here."""

import csv
import json
import os
import signal
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lema.compute.ray_pool import RayExecutor
from lema.errors import RunError
from lema.models.types import Model
from lema.recipe.params import Run
from lema.recipe.training_schema import AdapterSpec
from lema.train import jobs
from lema.train.distributed import RankContext, run_distributed
from lema.train.jobs import train_adapters

from .conftest import EXAMPLES, SPEC

pytest.importorskip("torch", reason="needs the extra `train`")

MODEL = Model("base", "transformers", "x")


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")  # how often Ray Train looks at its processes


class Killed(Exception):
    """Stands for a kill in the middle of a training."""


def trained(run: Run, where: Any, base: Path, root: Path, specs: Sequence[AdapterSpec]) -> list[Path]:
    folders = [root / "out" / str(spec.seed) for spec in specs]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    jobs = [(spec, folder, folder.with_suffix(".csv")) for spec, folder in zip(specs, folders, strict=True)]
    train_adapters(run, lambda: where, base, root / "scratch", EXAMPLES[:5], MODEL, jobs)
    return folders


def test_what_is_finished_survives_a_kill_and_what_is_not_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[int, list[str]]] = []

    def fake(_: Any, base: Any, spec: AdapterSpec, folder: Path, scratch: Path, curve: Path, *__: Any) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        called.append((spec.seed, sorted(path.name for path in scratch.iterdir())))
        (folder / "weights").write_text(f"{spec.seed}")
        if spec.seed == 1 and not (scratch / "checkpoint").exists():
            (scratch / "checkpoint").touch()
            raise Killed
        curve.write_text(f"step,loss\n1,{spec.seed}\n")

    monkeypatch.setattr("lema.train.jobs.train_adapter", fake)
    monkeypatch.setattr("lema.train.jobs.open_base", lambda *_: "base")
    specs = AdapterSpec(epochs=1, seeds=(0, 1)).trainings
    with pytest.raises(Killed):
        trained(Run(), None, tmp_path, tmp_path, specs)
    made = trained(Run(), None, tmp_path, tmp_path, specs)
    assert called == [(0, []), (1, []), (1, ["checkpoint"])]
    assert [(one / "weights").read_text() for one in made] == ["0", "1"]
    assert made[1].with_suffix(".csv").read_text() == "step,loss\n1,1\n"


def curve(folder: Path, name: str = "loss") -> list[float]:
    with folder.with_suffix(".csv").open(encoding="utf-8") as lines:
        return [float(row[name]) for row in csv.DictReader(lines)]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in [*folder.iterdir(), folder.with_suffix(".csv")]}


def dying_once(mark: Path, given: Any, spec: AdapterSpec, context: RankContext) -> None:
    """Trains, and the second process dies in the middle; it notes every step that it has seen."""
    report = context.report

    def tell(done: int, total: int, note: str) -> None:
        report(done, total, note)
        if context.rank == 1:
            steps = mark.read_text().split() if mark.exists() else []
            mark.write_text(" ".join([*steps, str(done)]))
            if done == 4 and "4" not in steps:
                os.kill(os.getpid(), signal.SIGKILL)

    context.report = tell  # type: ignore[method-assign]
    jobs._train_shard(given, spec, context)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # Ray Train starts many processes, which takes minutes on a busy machine
def test_two_processes_one_of_which_dies_train_as_one_does(
    base_folder: Path, ray: RayExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (alone,) = trained(Run(), None, base_folder, tmp_path / "alone", [SPEC])
    monkeypatch.setattr(jobs, "_train_shard", partial(dying_once, tmp_path / "steps"))
    news: list[tuple[int, int, str]] = []
    monkeypatch.setattr(jobs, "progress_callback", lambda _: nullcontext(lambda *said: news.append(said)))
    (shared,) = trained(Run(trainers=2), ray, base_folder, tmp_path / "shared", [SPEC])
    steps = [int(step) for step in (tmp_path / "steps").read_text().split()]
    again = steps[steps.index(4) + 1 :]
    assert again[0] > 0, "it began from nothing"
    assert again[-1] == 6
    assert news[-1][:2] == (6, 6)
    for name in ("loss", "lr", "grad_norm"):
        assert curve(shared, name) == pytest.approx(curve(alone, name), rel=1e-5)
    one, two = (json.loads((folder / "training.json").read_text()) for folder in (alone, shared))
    losses = ("first_loss", "final_loss")
    assert [two.pop(name) for name in losses] == pytest.approx([one.pop(name) for name in losses], rel=1e-5)
    assert one == two
    assert sorted(files(shared)) == ["0.csv", *sorted(set(files(alone)) - {"0.csv"})]


def failing(context: RankContext) -> None:
    from torch.distributed import barrier

    if context.rank:
        raise RunError("no such model")
    barrier()


@pytest.mark.slow
@pytest.mark.timeout(1800)  # Ray Train starts many processes, which takes minutes on a busy machine
def test_an_error_of_one_process_is_one_line_and_not_tried_again(ray: RayExecutor, tmp_path: Path) -> None:
    """On the Ray that the training above has started: it is still there."""
    with pytest.raises(RunError) as caught:
        run_distributed(ray, failing, 2, tmp_path, lambda *_: None, at_once=1)
    assert str(caught.value) == "no such model"


@pytest.mark.slow
@pytest.mark.timeout(1800)  # Ray Train starts many processes, which takes minutes on a busy machine
def test_trainings_at_the_same_time_come_to_the_same(
    base_folder: Path, ray: RayExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "available_cores", lambda: 1)
    specs = [SPEC.model_copy(update={"seed": seed}) for seed in (0, 1)]
    monkeypatch.setattr("lema.train.lora.available_cores", lambda: 1)
    alone = trained(Run(), None, base_folder, tmp_path / "alone", specs)
    together = trained(Run(trainings=2), ray, base_folder, tmp_path / "together", specs)
    assert [files(folder) for folder in together] == [files(folder) for folder in alone]
    assert files(alone[0]) != files(alone[1])


def test_what_cannot_be_shared_is_refused_before_ray_starts(base_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run.trainers is 3, and 2 examples an optimizer step"):
        trained(Run(trainers=3), RayExecutor(), base_folder, tmp_path, [SPEC])
