"""One job in several processes at once, which torch's collectives join: Ray Train, on one machine or on many.

Machines need share no disk. A broker beside the driver hands out the folders that a job may resume from, and takes
those that are worth keeping; they travel through Ray.
"""

import logging
import shutil
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lema.compute import archive
from lema.compute.executor import one_line_error
from lema.compute.files import atomic
from lema.compute.ray_pool import RayExecutor, on_driver_node, run_ray_train
from lema.compute.worker_pool import DEATHS
from lema.errors import RunError
from lema.train import Progress

logger = logging.getLogger(__name__)


class RankContext:
    """What a job knows of its process: its `rank`, of `world_size`."""

    def __init__(self, rank: int, world_size: int, ray: Any, broker: Any) -> None:
        self.rank, self.world_size = rank, world_size
        self._ray, self._broker = ray, broker

    def report(self, done: int, total: int, note: str) -> None:
        """The progress of the job; that of rank 0 is shown."""
        if self.rank == 0:
            self._broker.post.remote("progress", (done, total, note))

    def fetch(self, name: str, folder: Path) -> None:
        """Put the folders that were kept under `name` into a new folder of this machine."""
        folder.mkdir(parents=True)
        for kept, packed in self._ray.get(self._broker.folders.remote(name)):
            archive.unpack_folder(packed, folder / kept)

    def keep(self, folder: Path, name: str, siblings: Sequence[str] | None = None) -> None:
        """Keep a folder under `name`, which may have several parts; of those beside it, only `siblings` stay."""
        self._ray.get(self._broker.keep.remote(name, archive.pack_folder(folder), siblings))


class CheckpointBroker:
    """The actor beside the driver, whose `folder` holds what is kept; and a board of what the processes have posted."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._board: dict[Any, Any] = {}

    def post(self, name: Any, value: Any) -> None:
        self._board[name] = value

    def board(self) -> dict[Any, Any]:
        return self._board

    def clear(self) -> None:
        self._board.clear()

    def folders(self, name: str) -> list[tuple[str, bytes]]:
        folder = self._folder / name
        kept = sorted(folder.iterdir()) if folder.is_dir() else []
        return [(one.name, archive.pack_folder(one)) for one in kept if one.is_dir() and not one.name.startswith(".")]

    def keep(self, name: str, packed: bytes, siblings: Sequence[str] | None) -> None:
        place = self._folder / name
        with atomic(place) as folder:
            archive.unpack_folder(packed, folder)
        if siblings is not None:
            for other in [one for one in place.parent.iterdir() if one.name not in (place.name, *siblings)]:
                shutil.rmtree(other)


def run_distributed(
    where: RayExecutor,
    job: Callable[[RankContext], None],
    world_size: int,
    folder: Path,
    report: Progress,
    *,
    at_once: int,
    folders: Sequence[str] = (),
) -> None:
    """Run a picklable `job` in `world_size` processes that form a process group of torch; what it keeps comes into
    `folder`. It finds the `folders` that it reads where they are here, or copies of them. `report` is called every
    second; what it raises ends the job.

    With GPUs every process has one of its own; else the processors are divided among the processes of all jobs that may
    run `at_once`. When a process dies, all start again, from what was kept.

    Raises:
        RunError: the job failed, with the cause in one line; or Ray has not enough for one job.
    """
    ray = where.start()
    demand = reserved_resources(ray.nodes(), world_size, at_once)
    broker = on_driver_node(ray, CheckpointBroker).remote(str(folder.resolve()))
    given = broker, ray.put(ray.cloudpickle.dumps(job))
    fit = partial(run_ray_train, _run_rank, given, world_size, demand, folder / "ray", folders)
    try:
        for attempt in range(1, DEATHS + 2):
            ray.get(broker.clear.remote())
            if _attempt(fit, lambda: ray.get(broker.board.remote()), report):
                return
            logger.warning("a trainer died; all start again from the last checkpoint (%d of %d)", attempt, DEATHS)
    finally:
        ray.kill(broker)
    raise RunError(f"a trainer died {DEATHS + 1} times: killed for want of memory, or a library crashed")


def _attempt(fit: Callable[[], None], read_board: Callable[[], dict[Any, Any]], report: Progress) -> bool:
    """Whether the job ended well; False when a process died. Raises RunError when it failed."""
    failures: list[Exception] = []

    def run() -> None:
        try:
            fit()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(1)
        board = read_board()
        report(*board.pop("progress", (0, 0, "starting")))
    if not failures:
        return True
    # A RunError comes before what only says that another process is gone.
    errors = sorted((not ours, rank, text) for rank, (ours, text) in board.items())
    if not (errors and not errors[0][0]) and set(getattr(failures[0], "worker_failures", ())) - set(board):
        return False  # it was killed before it could post an error
    raise RunError(errors[0][2] if errors else str(one_line_error(failures[0])))


def _run_rank(ray: Any, rank: int, world_size: int, given: tuple[Any, Any]) -> None:
    """One process of the job. Errors are posted as one line of text: an exception may not survive the way."""
    broker, job = given
    try:
        ray.cloudpickle.loads(ray.get(job))(RankContext(rank, world_size, ray, broker))
    except Exception as error:
        ray.get(broker.post.remote(rank, (isinstance(error, RunError), str(one_line_error(error)))))
        raise


def reserved_resources(nodes: list[dict[str, Any]], world_size: int, at_once: int) -> dict[str, float]:
    """What each process reserves. Raises RunError for more than there is: Ray would wait for ever."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    cpus = [int(resources.get("CPU", 0)) for resources in alive]
    gpus = sum(int(resources.get("GPU", 0)) for resources in alive)
    have, what = (gpus, "GPUs") if gpus else (sum(cpus), "processors")
    if world_size > have:
        raise RunError(f"run.trainers is {world_size}, but Ray has {have} {what}")
    if gpus:
        return {"CPU": 1, "GPU": 1}
    sizes = [size for size in range(1, max(cpus) + 1) if sum(cpu // size for cpu in cpus) >= world_size * at_once]
    return {"CPU": max(sizes, default=1)}
