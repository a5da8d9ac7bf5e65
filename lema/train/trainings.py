"""The trainings of an arm: here one after another, or on Ray, several at a time or shared by several processes."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from lema.compute import archive, files
from lema.compute.executor import Executor, merge
from lema.compute.progress import told, track
from lema.errors import RunError
from lema.models.local import cores
from lema.models.types import Model
from lema.recipe.params import Run
from lema.recipe.training_schema import AdapterSpec
from lema.rows import Example
from lema.train import Progress, distributed, silent


def train_adapters(
    run: Run,
    workers: Callable[[], Executor],
    base: Path,
    scratch: Path,
    examples: Sequence[Example],
    _: Model,
    jobs: Sequence[tuple[AdapterSpec, Path, Path]],
) -> None:
    """Train once a job: settings with one seed, the folder of the adapter, the place of its curve. On Ray if several
    processes share a training or several trainings run at a time, else here and one after another.

    What is finished stays in `scratch` until the stage is, so that a run that was killed neither loses the seeds before
    nor the steps of this one.
    """
    todo = [spec for spec, _, _ in jobs if not _finished(scratch, spec).exists()]
    if run.trainers > 1:
        _train_shared(run, workers(), base, scratch, examples, todo)
    elif run.trainings > 1:
        _train_apart(run, workers(), base, scratch, examples, todo)
    else:
        for spec in todo:
            with told("adapter") as log:
                _train(base, files.home(), scratch, examples, spec, log)
    for spec, folder, curve in jobs:
        shutil.copytree(_finished(scratch, spec) / "adapter", folder, dirs_exist_ok=True)
        with files.atomic(curve) as lines:
            shutil.copyfile(_finished(scratch, spec) / "curve.csv", lines)


def _finished(scratch: Path, spec: AdapterSpec) -> Path:
    return scratch / f"finished-{spec.seed}"


def _train(
    base: Path,
    home: Path,
    scratch: Path,
    examples: Sequence[Example],
    spec: AdapterSpec,
    log: Progress,
    threads: int | None = None,
) -> None:
    from lema.train.base import open_base
    from lema.train.lora import train

    with files.atomic(_finished(scratch, spec)) as made:
        (made / "adapter").mkdir(parents=True)
        steps, curve = scratch / str(spec.seed), made / "curve.csv"
        train(examples, open_base(base, home), spec, made / "adapter", steps, curve, log, threads)


def _train_apart(
    run: Run, where: Executor, base: Path, scratch: Path, examples: Sequence[Example], todo: Sequence[AdapterSpec]
) -> None:
    """Each training in a process of its own, as many at a time as `run.trainings` says."""
    factory = partial(_trainer, base, files.home(), scratch, examples)
    with track("adapter", len(todo)) as bar:
        for done in where.map(factory, ([spec] for spec in todo), workers=run.trainings, folders=[str(base)]):
            for number, packed in done:
                place = _finished(scratch, todo[number])
                if not place.exists():  # it was made on a machine that shares no disk with this one
                    with files.atomic(place) as made:
                        archive.unpack_folder(packed, made)
                bar.advance()


def _trainer(
    base: Path, home: Path, scratch: Path, examples: Sequence[Example]
) -> Callable[[Sequence[AdapterSpec]], bytes]:
    def work(block: Sequence[AdapterSpec]) -> bytes:
        (spec,) = block
        if not _finished(scratch, spec).exists():
            _train(base, home, scratch, examples, spec, silent, _threads())
        return archive.pack_folder(_finished(scratch, spec))

    return work


def _train_shared(
    run: Run, where: Executor, base: Path, scratch: Path, examples: Sequence[Example], todo: Sequence[AdapterSpec]
) -> None:
    """Each training in `run.trainers` processes, `run.trainings` of them at a time."""
    from lema.compute.ray_pool import RayExecutor
    from lema.train.share import parts

    if not isinstance(where, RayExecutor):
        raise RunError("run.trainers above 1 needs run.executor: ray")
    for spec in todo:
        parts(spec, run.trainers)
    waiting, news, stop = iter(todo), dict[int, tuple[int, int]](), threading.Event()

    def trainings(log: Progress) -> Iterator[None]:
        for spec in waiting:
            if stop.is_set():
                return

            def tell(done: int, total: int, note: str, seed: int = spec.seed) -> None:
                if stop.is_set():
                    raise RunError("another training failed")  # this one goes on from its checkpoints, another time
                news[seed] = done, total
                log(sum(one for one, _ in news.values()), sum(one for _, one in news.values()), note)

            job = partial(_train_share, base, files.home(), examples, spec)
            distributed.gang(where, job, run.trainers, scratch, tell, at_once=run.trainings, folders=[str(base)])
            yield

    with told("adapter") as log:
        for _ in merge([trainings(log) for _ in range(min(run.trainings, len(todo)))], stop):
            pass


def _train_share(
    base: Path, home: Path, examples: Sequence[Example], spec: AdapterSpec, seat: distributed.Seat
) -> None:
    """What one of the processes of a training does."""
    from lema.train.base import open_base
    from lema.train.lora import train
    from lema.train.share import Share

    def saved(checkpoint: Path, there: Sequence[str]) -> None:
        seat.keep(checkpoint, f"{spec.seed}/{checkpoint.name}", there)

    with TemporaryDirectory() as place:
        made, steps = Path(place) / "made", Path(place) / "steps"
        (made / "adapter").mkdir(parents=True)
        seat.fetch(str(spec.seed), steps)
        share = Share(seat.rank, seat.count, saved)
        curve = made / "curve.csv"
        train(examples, open_base(base, home), spec, made / "adapter", steps, curve, seat.tell, _threads(), share)
        if seat.rank == 0:
            seat.keep(made, f"finished-{spec.seed}")


def _threads() -> int:
    """Processors that Ray has reserved for this process; it says so to OpenMP."""
    return min(cores(), int(os.environ.get("OMP_NUM_THREADS") or cores()))
