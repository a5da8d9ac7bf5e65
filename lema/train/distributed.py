"""One job in several processes at once, which torch's collectives join: Ray Train, on one machine or on many.

Machines need share no disk. A keeper beside the driver hands out the folders that a job may go on from, and takes those
that are worth keeping; they travel through Ray.
"""

import logging
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lema.compute import archive
from lema.compute.executor import failure
from lema.compute.files import atomic
from lema.compute.ray_pool import RayExecutor, beside, joined
from lema.compute.worker_pool import DEATHS
from lema.errors import RunError

log = logging.getLogger(__name__)

# Called with what a job tells of itself: done, total, note.
Tell = Callable[[int, int, str], None]


class Seat:
    """What a job knows of its place in the gang: `rank` of `count`."""

    def __init__(self, rank: int, count: int, ray: Any, keeper: Any) -> None:
        self.rank, self.count = rank, count
        self._ray, self._keeper = ray, keeper

    def tell(self, done: int, total: int, note: str) -> None:
        """How far the job is; what the first process says is shown."""
        if self.rank == 0:
            self._keeper.hear.remote((done, total, note))

    def fetch(self, name: str, folder: Path) -> None:
        """Put the folders that were kept under `name` into a new folder of this machine."""
        folder.mkdir(parents=True)
        for kept, packed in self._ray.get(self._keeper.give.remote(name)):
            archive.unpack_folder(packed, folder / kept)

    def keep(self, folder: Path, name: str, beside: Sequence[str] | None = None) -> None:
        """Keep a folder under `name`, which may have several parts; of those beside it, only the given ones stay."""
        self._ray.get(self._keeper.take.remote(name, archive.pack_folder(folder), beside))


def gang(
    where: RayExecutor,
    job: Callable[[Seat], None],
    count: int,
    folder: Path,
    tell: Tell,
    *,
    at_once: int,
    folders: Sequence[str] = (),
) -> None:
    """Run a picklable `job` in `count` processes that form a process group of torch; what it keeps comes into `folder`.
    It finds the `folders` that it reads where they are here, or copies of them.

    With GPUs every process has one of its own; else the processors are shared among the processes of all gangs that may
    run `at_once`. When a process dies, all begin again, from what was kept.

    Raises:
        RunError: the job failed, with the cause in one line; or Ray has not enough for one gang.
    """
    ray = where.start()
    demand = _demand(ray.nodes(), count, at_once)
    keeper = beside(ray, _Keeper).remote(str(folder.resolve()), ray.cloudpickle.dumps(job))
    try:
        for attempt in range(DEATHS + 1):
            if _attempt(ray, keeper, demand, count, folder / "ray", folders, tell):
                return
            log.warning("a trainer died; all begin again from the last checkpoint (%d of %d)", attempt + 1, DEATHS)
    finally:
        ray.kill(keeper)
    raise RunError(f"a trainer died {DEATHS + 1} times: killed for want of memory, or a library crashed")


def _attempt(
    ray: Any, keeper: Any, demand: dict[str, float], count: int, folder: Path, folders: Sequence[str], tell: Tell
) -> bool:
    """Whether the job ended well; False when a process died. Raises RunError when it failed."""
    errors: list[Exception] = []
    ray.get(keeper.begin.remote())

    def fit() -> None:
        try:
            joined(_sit, keeper, count, demand, folder, folders)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(1)
        news = ray.get(keeper.news.remote())
        if news is not None:
            tell(*news)
    if not errors:
        return True
    complaints: dict[int, tuple[bool, str]] = ray.get(keeper.complaints.remote())
    # What was meant to be read comes before what only says that another process is gone.
    said = sorted(complaints.items(), key=lambda item: (not item[1][0], item[0]))
    if said and said[0][1][0]:
        raise RunError(said[0][1][1])
    if set(getattr(errors[0], "worker_failures", ())) - set(complaints):
        return False  # it had no time to complain
    raise RunError(said[0][1][1] if said else str(failure(errors[0])))


class _Keeper:
    """The actor beside the driver. Its folder is the driver's."""

    def __init__(self, folder: str, job: bytes) -> None:
        self._folder, self._job = Path(folder), job
        self._news: tuple[int, int, str] | None = None
        self._complaints: dict[int, tuple[bool, str]] = {}

    def begin(self) -> None:
        self._complaints.clear()

    def job(self) -> bytes:
        return self._job

    def hear(self, news: tuple[int, int, str]) -> None:
        self._news = news

    def news(self) -> tuple[int, int, str] | None:
        return self._news

    def complain(self, rank: int, ours: bool, text: str) -> None:
        self._complaints[rank] = ours, text

    def complaints(self) -> dict[int, tuple[bool, str]]:
        return self._complaints

    def give(self, name: str) -> list[tuple[str, bytes]]:
        folder = self._folder / name
        kept = sorted(folder.iterdir()) if folder.is_dir() else []
        return [(one.name, archive.pack_folder(one)) for one in kept if one.is_dir() and not one.name.startswith(".")]

    def take(self, name: str, packed: bytes, beside: Sequence[str] | None) -> None:
        place = self._folder / name
        with atomic(place) as folder:
            archive.unpack_folder(packed, folder)
        if beside is not None:
            for other in [one for one in place.parent.iterdir() if one.name not in (place.name, *beside)]:
                shutil.rmtree(other)


def _sit(ray: Any, rank: int, count: int, keeper: Any) -> None:
    """One process of the gang. Errors are told as one line of text: an exception may not survive the way."""
    try:
        ray.cloudpickle.loads(ray.get(keeper.job.remote()))(Seat(rank, count, ray, keeper))
    except Exception as error:
        ray.get(keeper.complain.remote(rank, isinstance(error, RunError), str(failure(error))))
        raise


def _demand(nodes: list[dict[str, Any]], count: int, at_once: int) -> dict[str, float]:
    """What each process reserves. Ray would wait for ever for more than there is, so that is an error."""
    here = [node["Resources"] for node in nodes if node["Alive"]]
    cpus = [int(resources.get("CPU", 0)) for resources in here]
    gpus = sum(int(resources.get("GPU", 0)) for resources in here)
    have, what = (gpus, "GPUs") if gpus else (sum(cpus), "processors")
    if count > have:
        raise RunError(f"run.trainers is {count}, but Ray has {have} {what}")
    if gpus:
        return {"CPU": 1, "GPU": 1}
    sizes = [size for size in range(1, max(cpus) + 1) if sum(cpu // size for cpu in cpus) >= count * at_once]
    return {"CPU": max(sizes, default=1)}
