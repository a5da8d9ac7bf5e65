"""The executor on Ray, and what else is asked of Ray. It is imported here only; other modules are given it.

Ray starts with the first block: it joins RAY_ADDRESS if set, else it is local, quiet, on loopback and gone with this
process. Nothing here stops a Ray that it did not start.
"""

import itertools
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from lema.compute import archive
from lema.compute.askers import ask
from lema.compute.event_loop import Waiting
from lema.compute.executor import Source, failure
from lema.compute.ray_head import LOOPBACK, QUIET, STORE_BYTES, reach
from lema.compute.worker_pool import compute
from lema.errors import RunError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Parts of Ray Train that are nothing to a gang. The first asks a dashboard, and where there is none it holds every
# gang for 12 s at its end; what it would free, Ray frees as soon as the driver leaves. The other hands out data.
UNUSED = ("PlacementGroupCleanerCallback", "DatasetsCallback")
# What is never code. (`/.*` would leave out the project itself, which Ray calls `.`.)
NOT_SENT = [
    ".git",
    ".env*",
    ".dvc",
    ".lema",
    ".venv*",
    ".*_cache",
    "/data",
    "/completions",
    "/node_modules",
    "*.safetensors",
]


class RayExecutor:
    """Workers are actors, one a process; see `lema.compute.executor.Executor` for the contract."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ray: Any = None
        self._ours = False

    def map(
        self,
        factory: Callable[[], Callable[[list[Item]], Result]],
        blocks: Iterable[list[Item]],
        *,
        workers: int | None = None,
        inflight: int = 1,
        folders: Sequence[str] = (),
        variables: Sequence[str] = (),
        again: Callable[[list[Item]], bool] | None = None,
    ) -> Iterator[list[tuple[int, Result]]]:
        """See the contract. A worker that is killed is replaced and its blocks are sent again."""
        numbered = enumerate(blocks)
        item = next(numbered, None)
        if item is None:
            return
        ray = self.start()
        work, packed = itertools.chain([item], numbered), ray.cloudpickle.dumps(factory)
        if inflight == 1:
            yield from compute(ray, _Worker, (*_surroundings(ray, folders), packed), work, workers)
            return
        kind, arguments = beside(ray, _Waiter), (*_surroundings(ray, ()), packed, inflight)
        # API keys go from memory to memory: what a call brings stands in no state and no log, and leaves no machine.
        known = {name: os.environ[name] for name in variables if name in os.environ}
        yield from ask(
            lambda: kind.remote(*arguments), ray, Source(work), known, workers or 1, again or (lambda _: True)
        )

    def close(self) -> None:
        """Leave Ray; a local one is gone with that."""
        with self._lock:
            if self._ray is not None and self._ours:
                self._ray.shutdown()
            self._ray = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> Any:
        """Ray, joined or started; stays so until `close`."""
        with self._lock:
            if self._ray is None:
                self._ray, self._ours = _connect()
            return self._ray


def _connect() -> tuple[Any, bool]:
    """Ray, connected, and whether it was us who connected it."""
    address = os.environ.get("RAY_ADDRESS") or "local"
    for name, value in {**QUIET, **(LOOPBACK if address == "local" else {})}.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        return ray, False
    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        options |= {"include_dashboard": False, "object_store_memory": STORE_BYTES}
    else:
        if address != "auto":
            reach(address)
        if not address.startswith("127.0.0.1:"):
            # Nodes elsewhere need the code; the user's own parts are in no package that could be installed there.
            options["runtime_env"] = {"working_dir": str(Path.cwd()), "excludes": NOT_SENT}
    try:
        ray.init(**options)
    except Exception as error:
        raise RunError(f"Ray at {address} cannot be used: {failure(error)}") from error
    return ray, True


def beside(ray: Any, kind: type) -> Any:
    """A class as that of actors on the node of this process, which reserve nothing."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(kind).options(num_cpus=0, scheduling_strategy=here)


def joined(
    loop: Callable[[Any, int, int, Any], None],
    given: Any,
    count: int,
    demand: dict[str, float],
    folder: Path,
    folders: Sequence[str],
) -> None:
    """Ray Train: call `loop(ray, rank, count, given)` in `count` processes, each of which reserves what `demand` says,
    with a process group of torch; they find `folders` as workers that compute do. Nothing is reported to Ray Train, so
    it stores next to nothing in `folder`.

    Raises what Ray Train does; its `worker_failures` are by rank.
    """
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    # A process that waits to hear that a machine will be taken back: nothing here heeds it.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")

    class Trainer(TorchTrainer):  # type: ignore[misc]
        def _create_default_callbacks(self) -> list[Any]:
            return [one for one in super()._create_default_callbacks() if type(one).__name__ not in UNUSED]

    Trainer(
        _called,
        train_loop_config={"surroundings": _surroundings(ray, folders), "loop": loop, "given": given},
        scaling_config=ScalingConfig(num_workers=count, use_gpu="GPU" in demand, resources_per_worker=demand),
        run_config=RunConfig(storage_path=str(folder.resolve())),
    ).fit()


def _called(settings: dict[str, Any]) -> None:
    """What Ray Train calls in every process."""
    import ray
    import ray.train

    _settle(*settings["surroundings"])
    context = ray.train.get_context()
    settings["loop"](ray, context.get_world_rank(), context.get_world_size(), settings["given"])


Folders = list[tuple[str, Any]]


def _surroundings(ray: Any, folders: Sequence[str]) -> tuple[str, list[str], Folders]:
    """Folder and module path of this process and, where other nodes may not see them, folders as Ray objects."""
    sent: Folders = []
    if sum(node["Alive"] for node in ray.nodes()) > 1:
        sent = [(name, ray.put(archive.pack_folder(Path(name)))) for name in sorted(set(folders))]
    return str(Path.cwd()), [entry or str(Path.cwd()) for entry in sys.path], sent


def _settle(folder: str, path: list[str], folders: Folders) -> None:
    """Work as in the driver: relative paths of models, and the user's own parts. A node without the project's folder
    stays in the copy of its code that Ray has brought, and gets the folders there."""
    import ray

    with suppress(OSError):
        os.chdir(folder)
    sys.path += [entry for entry in path if entry not in sys.path]
    for name, reference in folders:
        if not Path(name).exists():
            archive.unpack_folder(ray.get(reference), Path(name))


class _Worker:
    """The actor's class. Errors travel as one line of text: an exception may not survive the way."""

    def __init__(self, folder: str, path: list[str], folders: Folders, factory: bytes) -> None:
        from ray import cloudpickle

        self.error: str | None = None
        try:
            _settle(folder, path, folders)
            self.work = cloudpickle.loads(factory)()
        except Exception as error:
            self.error = str(failure(error))

    def run(self, block: list[Any]) -> tuple[Any, str | None]:
        if self.error is not None:
            return None, self.error
        try:
            return self.work(block), None
        except Exception as error:
            return None, str(failure(error))


class _Waiter:
    """The actor's class for work that waits."""

    def __init__(self, folder: str, path: list[str], folders: Folders, factory: bytes, inflight: int) -> None:
        worker = _Worker(folder, path, folders, factory)
        self.error = worker.error
        if self.error is None:
            self.waiting = Waiting(worker.work, inflight)

    def exchange(
        self, blocks: list[tuple[int, list[Any]]], variables: dict[str, str], pause: float, patience: float | None
    ) -> tuple[list[tuple[int, Any, str | None]], int, str | None, float]:
        """Starts on blocks, with these variables in the environment; returns what has finished, each with its result or
        its error, at least one if any are held unless `patience` seconds pass; how many are worth holding, and why none
        can be. `pause`, until when the other side asked for quiet, is told and returned (`Waiting.pause`)."""
        if self.error is not None:
            return [], 0, self.error, 0.0
        os.environ.update(variables)
        if pause:
            self.waiting.pause(pause)
        self.waiting.put(blocks)
        done = [
            (number, result, None if error is None else str(failure(error)))
            for number, result, error in (self.waiting.take(patience) if self.waiting.held else ())
        ]
        return done, self.waiting.room(), None, self.waiting.paused()
