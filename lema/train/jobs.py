"""The training jobs of an arm, one a seed: here one after another, or on Ray, several at a time or each in several
processes."""

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from lema.compute import archive, files
from lema.compute.executor import Executor
from lema.compute.progress import progress_callback, track
from lema.compute.ray_pool import RayExecutor
from lema.errors import RunError
from lema.models.local_weights import available_cores
from lema.models.types import Model
from lema.recipe.params import Run
from lema.recipe.training_schema import AdapterSpec
from lema.rows import Example
from lema.train import Progress, silent
from lema.train.base import open_base
from lema.train.batching import Shard, accumulation_steps
from lema.train.distributed import RankContext, run_distributed
from lema.train.lora import train_adapter

Given = tuple[Path, Path, Sequence[Example]]  # of every training: folder of the base, home, examples


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
    given = base, files.home(), examples
    todo = [spec for spec, _, _ in jobs if not _finished(scratch, spec).exists()]
    if run.trainers > 1:
        _train_distributed(run, workers(), given, scratch, todo)
    elif run.trainings > 1:
        blocks = ([spec] for spec in todo)
        trained = workers().map(
            lambda: partial(_train_packed, given, scratch), blocks, workers=run.trainings, folders=[str(base)]
        )
        with track("adapter", len(todo)) as bar:
            for number, packed in (one for done in trained for one in done):
                if not _finished(scratch, todo[number]).exists():  # made on a machine that does not share this disk
                    archive.unpack_folder(packed, _finished(scratch, todo[number]))
                bar.advance()
    else:
        for spec in todo:
            with progress_callback("adapter") as log:
                _train_here(given, scratch, spec, log)
    for spec, folder, curve in jobs:
        shutil.copytree(_finished(scratch, spec) / "adapter", folder, dirs_exist_ok=True)
        with files.atomic(curve) as lines:
            shutil.copyfile(_finished(scratch, spec) / "curve.csv", lines)


def _finished(scratch: Path, spec: AdapterSpec) -> Path:
    return scratch / f"finished-{spec.seed}"


def _train_here(given: Given, scratch: Path, spec: AdapterSpec, log: Progress, threads: int | None = None) -> None:
    with files.atomic(_finished(scratch, spec)) as made:
        _train(given, spec, made, scratch / str(spec.seed), log, threads)


def _train(
    given: Given,
    spec: AdapterSpec,
    made: Path,
    steps: Path,
    log: Progress,
    threads: int | None,
    shard: Shard | None = None,
) -> None:
    """Write `adapter` and `curve.csv` into a new folder; checkpoints go to `steps`."""
    base, home, examples = given
    (adapter := made / "adapter").mkdir(parents=True)
    train_adapter(examples, open_base(base, home), spec, adapter, steps, made / "curve.csv", log, threads, shard)


def _train_packed(given: Given, scratch: Path, block: Sequence[AdapterSpec]) -> bytes:
    """What a worker does that has a training of its own."""
    (spec,) = block
    if not _finished(scratch, spec).exists():
        _train_here(given, scratch, spec, silent, _reserved_cores())
    return archive.pack_folder(_finished(scratch, spec))


def _train_distributed(run: Run, where: Executor, given: Given, scratch: Path, todo: Sequence[AdapterSpec]) -> None:
    """Each training in `run.trainers` processes, `run.trainings` of them at a time."""
    assert isinstance(where, RayExecutor)
    for spec in todo:
        accumulation_steps(spec, run.trainers)
    where.start()  # in this thread: Ray's processes are killed when the thread that has started them ends
    steps, errors = dict[int, tuple[int, int]](), list[BaseException]()

    def train_one(spec: AdapterSpec) -> None:
        def report(done: int, total: int, note: str) -> None:
            if errors:
                raise RunError("another training failed")  # this one resumes from its checkpoints, another time
            steps[spec.seed] = done, total
            log(sum(one for one, _ in steps.values()), sum(one for _, one in steps.values()), note)

        job, folders = partial(_train_shard, given, spec), [str(given[0])]
        try:
            if not errors:
                run_distributed(where, job, run.trainers, scratch, report, at_once=run.trainings, folders=folders)
        except BaseException as error:
            errors.append(error)

    with progress_callback("adapter") as log, ThreadPoolExecutor(run.trainings) as pool:
        try:
            for _ in pool.map(train_one, todo):
                pass
        except BaseException as interrupt:
            errors.append(interrupt)  # the trainings stop at their next report
    if errors:
        raise errors[0]


def _train_shard(given: Given, spec: AdapterSpec, context: RankContext) -> None:
    """What one of the processes of a training does."""

    def saved(checkpoint: Path, kept: Sequence[str]) -> None:
        context.keep(checkpoint, f"{spec.seed}/{checkpoint.name}", kept)

    with TemporaryDirectory() as place:
        made, steps = Path(place) / "made", Path(place) / "steps"
        context.fetch(str(spec.seed), steps)
        shard = Shard(context.rank, context.world_size, saved)
        _train(given, spec, made, steps, context.report, _reserved_cores(), shard)
        if context.rank == 0:
            context.keep(made, f"finished-{spec.seed}")


def _reserved_cores() -> int:
    """Processors that Ray has reserved for this process; it says so to OpenMP."""
    return min(available_cores(), int(os.environ.get("OMP_NUM_THREADS") or available_cores()))
