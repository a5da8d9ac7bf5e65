"""A worker pool on Ray for work that computes: as many actors as the cluster has room for, each with a block and the
next one waiting."""

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from lema.compute.executor import one_line_error
from lema.errors import RunError

DEATHS = 3  # of workers in a row, before their blocks are held to be the cause
DIED = f"a worker died {DEATHS + 1} times over the same work: killed for want of memory, or a library crashed"
DEPTH = 2  # blocks of a worker: its next one is waiting
PATIENCE = 30.0  # seconds without a result, after which it is seen whether all workers have a place


def run_blocks(
    ray: Any, worker: type, arguments: tuple[Any, ...], work: Iterator[tuple[int, list[Any]]], workers: int | None
) -> Iterator[list[tuple[int, Any]]]:
    """The results of blocks, by actors of a class with `run(block) -> (result, error)`. Blocks of one that dies, with
    its node perhaps, go to the others."""
    pool = _WorkerPool(ray, worker, arguments, workers)
    gone = (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError)
    pending: dict[Any, tuple[int, int, list[Any]]] = {}
    lost: Counter[int] = Counter()
    again: list[tuple[int, list[Any]]] = []
    item = next(work, None)
    try:
        while item is not None or pending:
            while item is not None and (place := pool.place()) is not None:
                number, block = item
                pending[pool.send(place, block)] = (place, number, block)
                item = again.pop() if again else next(work, None)
            ready, _ = ray.wait(list(pending), num_returns=1, timeout=PATIENCE)
            if not ready:
                pool.thin()
                continue
            place, number, block = pending.pop(ready[0])
            try:
                result = pool.receive(place, ready[0])
            except gone:
                pool.lose(place)
                lost[number] += 1
                if lost[number] > DEATHS:
                    raise RunError(DIED) from None
                if item is not None:
                    again.append(item)
                item = (number, block)
                continue
            yield [(number, result)]
    finally:
        pool.kill()


class _WorkerPool:
    """The workers of one `map`, started when there is a block for them, and how many blocks each has."""

    def __init__(self, ray: Any, worker: type, arguments: tuple[Any, ...], workers: int | None) -> None:
        self._ray, self._arguments = ray, arguments
        self._most, self._demand = worker_resources(ray.nodes(), workers)
        self._class = ray.remote(worker).options(**self._demand)
        self._actors: dict[int, Any] = {}
        self._loads: dict[int, int] = {}
        self._proved: set[int] = set()  # have given a result
        self._deaths = self._started = 0

    def place(self) -> int | None:
        """The worker that takes the next block, None when all have enough."""
        least = min(self._loads.values(), default=DEPTH)
        if least and len(self._actors) < self._most:
            self._started += 1
            self._actors[self._started] = self._class.remote(*self._arguments)
            self._loads[self._started] = 0
            return self._started
        return next((place for place, load in self._loads.items() if load == least < DEPTH), None)

    def send(self, place: int, block: list[Any]) -> Any:
        self._loads[place] += 1
        return self._actors[place].run.remote(block)

    def receive(self, place: int, reference: Any) -> Any:
        """Raises RayActorError when the worker is gone, ObjectLostError when its node is, with the result, and RunError
        when the block is at fault."""
        try:
            result, error = self._ray.get(reference)
        except (self._ray.exceptions.RayActorError, self._ray.exceptions.ObjectLostError):
            raise
        except Exception as failed:
            raise one_line_error(getattr(failed, "cause", None) or failed) from failed
        if error is not None:
            raise RunError(error)
        self._loads[place] -= 1
        self._proved.add(place)
        self._deaths = 0
        return result

    def lose(self, place: int) -> None:
        """Do without a worker that died; another one takes its place if the cluster still has room for it.

        Raises RunError when workers do nothing but die, or no processor is left.
        """
        if (actor := self._actors.pop(place, None)) is None:
            return  # another block of the same worker
        del self._loads[place]
        with suppress(Exception):
            self._ray.kill(actor)
        self._deaths += 1
        if self._deaths > DEATHS:
            raise RunError(DIED)
        self._limit()

    def thin(self) -> None:
        """End workers that can have no place: a node was lost, and one was started before the cluster knew. Their
        blocks then fail with RayActorError.

        Raises RunError when no processor is left.
        """
        self._limit()
        latest = [place for place in reversed(self._actors) if place not in self._proved]
        for place in latest[: max(0, len(self._actors) - self._most)]:
            del self._loads[place]
            with suppress(Exception):
                self._ray.kill(self._actors.pop(place))

    def _limit(self) -> None:
        self._most = min(self._most, count_fitting(self._ray.nodes(), **self._demand))
        if not self._most:
            raise RunError("no node of the Ray cluster is left that could go on")

    def kill(self) -> None:
        for actor in self._actors.values():
            with suppress(Exception):
                self._ray.kill(actor)


def worker_resources(nodes: list[dict[str, Any]], workers: int | None) -> tuple[int, dict[str, float]]:
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


def count_fitting(nodes: list[dict[str, Any]], num_cpus: float, num_gpus: float = 0) -> int:
    """How many workers that reserve so much have a place on the nodes that are alive."""
    count = 0
    for node in nodes:
        cpus, gpus = (int(node["Resources"].get(name, 0)) if node["Alive"] else 0 for name in ("CPU", "GPU"))
        room = int(cpus // num_cpus)
        # A part of a GPU is a part of a single one.
        count += min(room, gpus * round(1 / num_gpus)) if num_gpus else room
    return count
