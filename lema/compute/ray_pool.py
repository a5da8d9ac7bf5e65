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
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from lema.compute import archive
from lema.compute.executor import Exchanger, Executor, Item, Result, WorkerDiedError, one_line_error
from lema.compute.ray_head import LOOPBACK, QUIET, STORE_BYTES, join_head, reach
from lema.compute.worker_pool import run_blocks
from lema.errors import RunError

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


class RayExecutor(Executor):
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
        folders: Sequence[str] = (),
    ) -> Iterator[list[tuple[int, Result]]]:
        """See the contract. Blocks of a worker that is killed are sent again."""
        numbered = enumerate(blocks)
        if (first := next(numbered, None)) is not None:
            ray = self.start()
            arguments = (*_project_state(ray, folders), ray.cloudpickle.dumps(factory))
            yield from run_blocks(ray, _Worker, arguments, itertools.chain([first], numbered), workers)

    def serve(self, factory: Callable[[], Exchanger], number: int, variables: Sequence[str] = ()) -> "RayService":
        """See the contract. Services are spread over the nodes in turn (round robin), from this process's on."""
        ray = self.start()
        here = ray.get_runtime_context().get_node_id()
        nodes = [here, *sorted(node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != here)]
        arguments = (*_project_state(ray, ()), ray.cloudpickle.dumps(factory))
        actor = on_node(ray, _AsyncActor, nodes[number % len(nodes)]).remote(*arguments)
        return RayService(ray, actor, {name: os.environ[name] for name in variables if name in os.environ})

    def close(self) -> None:
        """Leave Ray; a local one is gone with that."""
        with self._lock:
            if self._ray is not None and self._ours:
                self._ray.shutdown()
            self._ray = None

    def start(self) -> Any:
        """Ray, joined or started; stays so until `close`."""
        with self._lock:
            if self._ray is None:
                self._ray, self._ours = _call_in_lasting_thread(_connect)
            return self._ray


def _call_in_lasting_thread(call: Callable[[], Result]) -> Result:
    """Call in this thread if it is the main one, else in one that ends with the process: Ray's own processes are killed
    when the thread that has started them ends (PR_SET_PDEATHSIG), and then this process is, too."""
    if threading.current_thread() is threading.main_thread():
        return call()
    result: Future[Result] = Future()

    def run() -> None:
        try:
            result.set_result(call())
        except BaseException as error:
            result.set_exception(error)
        threading.Event().wait()

    threading.Thread(target=run, daemon=True).start()
    return result.result()


def _connect() -> tuple[Any, bool]:
    """Ray, connected, and whether it was us who connected it."""
    join_head()
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
        raise RunError(f"Ray at {address} cannot be used: {one_line_error(error)}") from error
    return ray, True


class RayService:
    """An exchanger in an asynchronous actor of its own."""

    def __init__(self, ray: Any, actor: Any, variables: dict[str, str]) -> None:
        self._ray, self._actor, self._variables = ray, actor, variables

    def exchange(self, *arguments: Any) -> "Future[Any]":
        """See the contract. API keys come with the first call, from memory to memory: unlike what an actor is made
        with, the arguments of a call stand in no state and no log."""
        variables, self._variables = self._variables, {}
        answer: Future[Any] = Future()

        def settle(call: "Future[tuple[Any, str | None]]") -> None:
            try:
                result, error = call.result()
            except (self._ray.exceptions.RayActorError, self._ray.exceptions.ActorUnschedulableError):
                answer.set_exception(WorkerDiedError())
            except Exception as failed:
                answer.set_exception(one_line_error(getattr(failed, "cause", None) or failed))
            else:
                answer.set_result(result) if error is None else answer.set_exception(RunError(error))

        self._actor.exchange.remote(variables, *arguments).future().add_done_callback(settle)
        return answer

    def close(self) -> None:
        """See the contract."""
        with suppress(Exception):
            self._ray.kill(self._actor)


def on_driver_node(ray: Any, kind: type) -> Any:
    """A class as that of actors on the node of this process, which reserve nothing."""
    return on_node(ray, kind, ray.get_runtime_context().get_node_id())


def on_node(ray: Any, kind: type, node: str) -> Any:
    """A class as that of actors on a node, by its id. They reserve nothing. (A soft affinity is no help: with it Ray
    may put the first actor for another node on the driver's.)"""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    strategy = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(kind).options(num_cpus=0, scheduling_strategy=strategy)


def run_ray_train(
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
        _train_process,
        train_loop_config={"surroundings": _project_state(ray, folders), "loop": loop, "given": given},
        scaling_config=ScalingConfig(num_workers=count, use_gpu="GPU" in demand, resources_per_worker=demand),
        run_config=RunConfig(storage_path=str(folder.resolve())),
    ).fit()


def _train_process(settings: dict[str, Any]) -> None:
    """What Ray Train calls in every process."""
    import ray
    import ray.train

    _enter_project(*settings["surroundings"])
    context = ray.train.get_context()
    settings["loop"](ray, context.get_world_rank(), context.get_world_size(), settings["given"])


Folders = list[tuple[str, Any]]


def _project_state(ray: Any, folders: Sequence[str]) -> tuple[str, list[str], Folders]:
    """Folder and module path of this process and, where other nodes may not see them, folders as Ray objects."""
    sent: Folders = []
    if sum(node["Alive"] for node in ray.nodes()) > 1:
        sent = [(name, ray.put(archive.pack_folder(Path(name)))) for name in sorted(set(folders))]
    return str(Path.cwd()), [entry or str(Path.cwd()) for entry in sys.path], sent


def _enter_project(folder: str, path: list[str], folders: Folders) -> None:
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
            _enter_project(folder, path, folders)
            self.work = cloudpickle.loads(factory)()
        except Exception as error:
            self.error = str(one_line_error(error))

    def run(self, block: list[Any]) -> tuple[Any, str | None]:
        if self.error is not None:
            return None, self.error
        try:
            return self.work(block), None
        except Exception as error:
            return None, str(one_line_error(error))


class _AsyncActor:
    """The actor's class for a service. All its methods run on one event loop."""

    def __init__(self, folder: str, path: list[str], folders: Folders, factory: bytes) -> None:
        self._made_of = folder, path, folders, factory
        self._exchanger: Exchanger | None = None

    async def exchange(self, variables: dict[str, str], *arguments: Any) -> tuple[Any, str | None]:
        """Call the exchanger, which is made at the first call, with these variables in the environment. Returns its
        result or its error as one line of text."""
        try:
            if self._exchanger is None:
                from ray import cloudpickle

                os.environ.update(variables)
                folder, path, folders, factory = self._made_of
                _enter_project(folder, path, folders)
                self._exchanger = cloudpickle.loads(factory)()
            return await self._exchanger.exchange(*arguments), None
        except Exception as error:
            return None, str(one_line_error(error))
