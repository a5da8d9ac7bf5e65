"""The executor on Ray. The only module that imports ray.

Ray starts with the first block: it joins RAY_ADDRESS if set, else it is local, quiet, on loopback and gone with this
process. Nothing here stops a Ray that it did not start.
"""

import itertools
import logging
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from lema.engine.executor import failure
from lema.engine.head import LOOPBACK, QUIET, STORE_BYTES
from lema.engine.waiting import Waiting
from lema.errors import RunError

Item = TypeVar("Item")
Result = TypeVar("Result")

REACH = 20.0  # seconds to wait for a head that is being started
DEATHS = 3  # of one worker, before its blocks are held to be the cause
DIED = f"a worker died {DEATHS + 1} times over the same work: killed for want of memory, or a library crashed"
DEPTH = 2  # blocks of a worker that computes: its next one is waiting


class RayExecutor:
    """Workers are actors, one a process; see `lema.engine.executor.Executor` for the contract."""

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
    ) -> Iterator[list[tuple[int, Result]]]:
        """See the contract. A worker that is killed is replaced and its blocks are sent again."""
        numbered = enumerate(blocks)
        item = next(numbered, None)
        if item is None:
            return
        ray = self.start()
        work = itertools.chain([item], numbered)
        yield from _compute(ray, factory, work, workers) if inflight == 1 else _wait(ray, factory, work, inflight)

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
    elif address != "auto":
        _reach(address)
    try:
        ray.init(**options)
    except Exception as error:
        raise RunError(f"Ray at {address} cannot be used: {failure(error)}") from error
    return ray, True


def _reach(address: str) -> None:
    """Wait until something listens at an address; Ray itself would hang without a word."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if not host or not port.isdigit():
        raise RunError(f"RAY_ADDRESS is {address!r}; it must be host:port, auto or local")
    deadline = time.monotonic() + REACH
    while True:
        with suppress(OSError), socket.create_connection((host, int(port)), timeout=2):
            return
        if time.monotonic() > deadline:
            raise RunError(f"no Ray answers at RAY_ADDRESS={address}; start it, or unset RAY_ADDRESS")
        time.sleep(0.2)


def _compute(
    ray: Any, factory: Callable[[], Any], work: Iterator[tuple[int, list[Any]]], workers: int | None
) -> Iterator[list[tuple[int, Any]]]:
    actors = _Actors(ray, factory, workers)
    pending: dict[Any, tuple[int, int]] = {}
    item = next(work, None)
    try:
        while item is not None or pending:
            while item is not None and (place := actors.place()) is not None:
                pending[actors.send(place, item[1])] = (item[0], place)
                item = next(work, None)
            (ready,), _ = ray.wait(list(pending), num_returns=1)
            number, place = pending.pop(ready)
            yield [(number, actors.receive(place, ready))]
    finally:
        actors.kill()


def _wait(
    ray: Any, factory: Callable[[], Any], work: Iterator[tuple[int, list[Any]]], inflight: int
) -> Iterator[list[tuple[int, Any]]]:
    """One actor holds the blocks; each call brings it new ones and takes away what has finished."""
    from ray import cloudpickle

    kind = ray.remote(_Waiter).options(num_cpus=0)
    arguments = (*_surroundings(), cloudpickle.dumps(factory), inflight)
    held: dict[int, list[Any]] = {}
    fresh: list[tuple[int, list[Any]]] = []
    actor, room, deaths = kind.remote(*arguments), 1, 0
    try:
        while True:
            fresh += itertools.islice(work, max(0, room - len(held)))
            held.update(fresh)
            if not held:
                return
            try:
                done, room, error = ray.get(actor.exchange.remote(fresh))
            except ray.exceptions.RayActorError:
                deaths += 1
                if deaths > DEATHS:
                    raise RunError(DIED) from None
                with suppress(Exception):
                    ray.kill(actor)
                actor, fresh = kind.remote(*arguments), list(held.items())
                continue
            except Exception as failed:
                raise failure(getattr(failed, "cause", None) or failed) from failed
            deaths, fresh = 0, []
            for number, _ in done:
                del held[number]
            yield done
            if error is not None:
                raise RunError(error)
    finally:
        with suppress(Exception):
            ray.kill(actor)


def _surroundings() -> tuple[str, list[str]]:
    """Folder and module path of this process."""
    return str(Path.cwd()), [entry or str(Path.cwd()) for entry in sys.path]


class _Worker:
    """The actor's class. Errors travel as one line of text: an exception may not survive the way."""

    def __init__(self, folder: str, path: list[str], factory: bytes) -> None:
        from ray import cloudpickle

        # As in the driver: relative paths of models, and the user's own parts.
        with suppress(OSError):
            os.chdir(folder)
        sys.path += [entry for entry in path if entry not in sys.path]
        self.error: str | None = None
        try:
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

    def __init__(self, folder: str, path: list[str], factory: bytes, inflight: int) -> None:
        worker = _Worker(folder, path, factory)
        self.error = worker.error
        if self.error is None:
            self.waiting = Waiting(worker.work, inflight)

    def exchange(self, blocks: list[tuple[int, list[Any]]]) -> tuple[list[tuple[int, Any]], int, str | None]:
        """Starts on blocks; returns what has finished, at least one, how many are worth holding, and an error."""
        if self.error is not None:
            return [], 0, self.error
        self.waiting.put(blocks)
        done, error = self.waiting.take()
        return done, self.waiting.room(), None if error is None else str(failure(error))


class _Actors:
    """The workers of one `map`, started when there is a block for them, and how many blocks each has."""

    def __init__(self, ray: Any, factory: Callable[[], Any], workers: int | None) -> None:
        from ray import cloudpickle

        self._ray = ray
        self._most, demand = _demand(ray.nodes(), workers)
        self._class = ray.remote(_Worker).options(max_restarts=DEATHS, max_task_retries=DEATHS, **demand)
        self._arguments = (*_surroundings(), cloudpickle.dumps(factory))
        self._actors: list[Any] = []
        self._loads: list[int] = []

    def place(self) -> int | None:
        """The worker that takes the next block, None when all have enough."""
        least = min(self._loads, default=DEPTH)
        if least and len(self._actors) < self._most:
            self._actors.append(self._class.remote(*self._arguments))
            self._loads.append(0)
            return len(self._actors) - 1
        return self._loads.index(least) if least < DEPTH else None

    def send(self, place: int, block: list[Any]) -> Any:
        self._loads[place] += 1
        return self._actors[place].run.remote(block)

    def receive(self, place: int, reference: Any) -> Any:
        self._loads[place] -= 1
        try:
            result, error = self._ray.get(reference)
        except self._ray.exceptions.RayActorError:
            raise RunError(DIED) from None
        except Exception as failed:
            raise failure(getattr(failed, "cause", None) or failed) from failed
        if error is not None:
            raise RunError(error)
        return result

    def kill(self) -> None:
        for actor in self._actors:
            with suppress(Exception):
                self._ray.kill(actor)


def _demand(nodes: list[dict[str, Any]], workers: int | None) -> tuple[int, dict[str, float]]:
    """How many workers, and what each reserves. Ray would wait for ever for more than there is, so that is an error.

    Workers that compute share the processors, and the accelerators if there are any and the number of workers is given.
    """
    here = [node["Resources"] for node in nodes if node["Alive"]]
    cpus = [int(resources.get("CPU", 0)) for resources in here]
    gpus = sum(int(resources.get("GPU", 0)) for resources in here)
    if workers is None:
        return sum(cpus), {"num_cpus": 1}
    if workers > sum(cpus):
        raise RunError(f"run.workers or run.trainings is {workers}, but Ray has {sum(cpus)} processors")
    if gpus:
        return workers, {"num_cpus": 1, "num_gpus": 1 / math.ceil(workers / gpus)}
    share = max(size for size in range(1, max(cpus) + 1) if sum(count // size for count in cpus) >= workers)
    return workers, {"num_cpus": share}
