"""Workers that compute, against a Ray that does what it is told: which workers die is up to the test."""

from collections.abc import Callable, Iterator
from itertools import islice
from types import SimpleNamespace
from typing import Any

import pytest

from lema.compute.worker_pool import count_fitting, run_blocks
from lema.errors import RunError


class Gone(Exception):
    pass


class Lost(Exception):
    pass


class Cluster:
    """Two machines of so many processors, each with as many actors as it has a place for; `fault(actor, block)` is
    what becomes of a block, once it is its turn. A block of an actor without a place is never ready."""

    exceptions = SimpleNamespace(RayActorError=Gone, ObjectLostError=Lost)

    def __init__(self, fault: Callable[[int, Any], Exception | None], processors: int = 2) -> None:
        self.alive, self.processors, self.fault = [True, True], processors, fault
        self.known = self.alive
        self.started, self.placed, self.dead = 0, dict[int, int](), set[int]()

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": alive, "Resources": {"CPU": self.processors}} for alive in self.known]

    def remote(self, _: type) -> Any:
        def options(*, num_cpus: int) -> Any:
            self.share = num_cpus
            return SimpleNamespace(remote=self.start)

        return SimpleNamespace(options=options)

    def start(self) -> Any:
        self.started += 1
        name = self.started
        return SimpleNamespace(name=name, run=SimpleNamespace(remote=lambda block: (name, block[0])))

    def wait(self, pending: list[Any], *, num_returns: int, **_: Any) -> tuple[list[Any], list[Any]]:
        assert num_returns == 1
        for one in pending:
            actor = one[0]
            node = self.placed.get(actor, self._place())
            if actor in self.dead or node is not None:
                if node is not None and actor not in self.dead:
                    self.placed[actor] = node
                return [one], []
        if self.known != self.alive:
            self.known = [*self.alive]
            return [], []
        raise AssertionError("waits for ever")

    def _place(self) -> int | None:
        for node, alive in enumerate(self.alive):
            here = sum(where == node and actor not in self.dead for actor, where in self.placed.items())
            if alive and (here + 1) * self.share <= self.processors:
                return node
        return None

    def get(self, reference: Any) -> Any:
        actor, block = reference
        if actor in self.dead:
            raise Gone
        if (error := self.fault(actor, block)) is not None:
            if isinstance(error, Gone):
                self.dead.add(actor)
            raise error
        return block * 10, None

    def kill(self, actor: Any) -> None:
        self.dead.add(actor.name)


def blocks(count: int) -> Iterator[tuple[int, list[int]]]:
    return ((number, [number]) for number in range(count))


def results(cluster: Cluster, count: int, workers: int | None) -> list[tuple[int, int]]:
    done = run_blocks(cluster, object, (), blocks(count), workers)
    return sorted(one for some in islice(done, count) for one in some)


def test_a_lost_node_takes_its_place_along() -> None:
    """Each worker has all processors of its node: one that follows it would wait for a node of its own for ever."""

    def fault(actor: int, block: int) -> Exception | None:
        if actor == 2 and block > 2:
            cluster.alive[1] = False
            return Gone()
        return None

    cluster = Cluster(fault)
    assert results(cluster, 20, 2) == [(number, number * 10) for number in range(20)]
    assert not cluster.alive[1]


def test_a_node_whose_loss_is_known_later() -> None:
    """The worker that follows the lost one has no place, and its blocks go to the other."""

    def fault(actor: int, block: int) -> Exception | None:
        if actor == 2 and block > 2:
            cluster.alive = [True, False]
            return Gone()
        return None

    cluster = Cluster(fault)
    assert results(cluster, 20, 2) == [(number, number * 10) for number in range(20)]
    assert cluster.started == 3


def test_a_result_that_was_lost_with_its_node_is_made_again() -> None:
    faults: list[Exception] = [Lost()]
    cluster = Cluster(lambda _, block: faults.pop() if block == 3 and faults else None)
    assert results(cluster, 8, 2) == [(number, number * 10) for number in range(8)]


def test_a_block_that_kills_its_workers_is_given_up() -> None:
    """However well the others do."""
    cluster = Cluster(lambda _, block: Gone() if block == 5 else None)
    with pytest.raises(RunError, match="a worker died 4 times over the same work"):
        results(cluster, 1000, 4)
    assert cluster.started < 12


@pytest.mark.parametrize(
    ("nodes", "demand", "count"),
    [
        ([(8, 0), (8, 0)], {"num_cpus": 8}, 2),
        ([(8, 0), (4, 0)], {"num_cpus": 4}, 3),
        ([(8, 1), (8, 0)], {"num_cpus": 1, "num_gpus": 1}, 1),
        ([(8, 2)], {"num_cpus": 1, "num_gpus": 1 / 3}, 6),
        ([(2, 4)], {"num_cpus": 1, "num_gpus": 1}, 2),
    ],
)
def test_how_many_workers_fit(nodes: list[tuple[int, int]], demand: dict[str, float], count: int) -> None:
    cluster = [{"Alive": True, "Resources": {"CPU": cpu, "GPU": gpu}} for cpu, gpu in nodes]
    assert count_fitting([*cluster, {"Alive": False, "Resources": {"CPU": 64, "GPU": 8}}], **demand) == count
