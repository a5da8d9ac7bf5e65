"""Several actors that ask one endpoint."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lema.completions.generate import Generate
from lema.completions.store import Store
from lema.compute.executor import Executor, LocalExecutor
from lema.compute.ray_pool import RayExecutor
from lema.errors import RunError
from lema.models.types import Model, Request, Sampling
from lema.recipe.params import Endpoint, Run
from lema.rows import Message
from tests.fake_server import FakeServer

Block = list[int]


def flat(stream: Iterator[list[tuple[int, Any]]]) -> list[tuple[int, Any]]:
    return [one for done in stream for one in done]


async def among(folder: Path, count: int) -> None:
    """Return when so many processes have come here."""
    (folder / str(os.getpid())).touch()
    async with asyncio.timeout(300):
        while len(list(folder.iterdir())) < count:
            await asyncio.sleep(0.02)


def process(folder: Path, count: int) -> Callable[[Block], Awaitable[int]]:
    async def work(block: Block) -> int:
        # The first has an answer before others start.
        if block != [0]:
            await among(folder, count)
        return os.getpid()

    return work


@pytest.fixture
def met(tmp_path: Path) -> Path:
    folder = tmp_path / "met"
    folder.mkdir()
    return folder


def test_several_processes_share_the_blocks(ray: RayExecutor, met: Path) -> None:
    results = dict(flat(ray.map(partial(process, met, 3), ([n] for n in range(60)), workers=3, inflight=4)))
    assert sorted(results) == list(range(60))
    assert len(set(results.values())) == 3
    assert os.getpid() not in results.values()


def first(folder: Path) -> Callable[[Block], Awaitable[Block]]:
    (folder / str(os.getpid())).touch()

    async def work(block: Block) -> Block:
        if block[0] < 2:  # all that the first holds
            await asyncio.sleep(3)  # an actor starts in less
            assert len(list(folder.iterdir())) == 1
        return block

    return work


def test_the_first_has_an_answer_before_others_start(ray: RayExecutor, met: Path) -> None:
    assert len(flat(ray.map(partial(first, met), ([n] for n in range(9)), workers=3, inflight=2))) == 9


def dying(folder: Path, note: Path) -> Callable[[Block], Awaitable[Block]]:
    async def work(block: Block) -> Block:
        if block != [0]:
            await among(folder, 2)
        if block == [11] and not note.exists():
            note.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return block

    return work


def test_blocks_of_one_that_is_killed_are_sent_again(ray: RayExecutor, met: Path, tmp_path: Path) -> None:
    work = partial(dying, met, tmp_path / "died")
    results = flat(ray.map(work, ([n] for n in range(40)), workers=2, inflight=3))
    assert sorted(results) == [(n, [n]) for n in range(40)]
    assert (tmp_path / "died").exists()


def test_blocks_that_may_not_be_sent_again_have_no_result(ray: RayExecutor, met: Path, tmp_path: Path) -> None:
    lost: list[Block] = []

    def again(block: Block) -> bool:
        lost.append(block)
        return block != [11]

    work = partial(dying, met, tmp_path / "died")
    results = flat(ray.map(work, ([n] for n in range(40)), workers=2, inflight=3, again=again))
    assert sorted(results) == [(n, [n]) for n in range(40) if n != 11]
    assert [11] in lost
    assert len(lost) <= 3


def failing(folder: Path) -> Callable[[Block], Awaitable[Block]]:
    async def work(block: Block) -> Block:
        if block != [0]:
            await among(folder, 2)
        if block == [9]:
            raise ValueError("it broke")
        if block[0] > 5:
            await asyncio.sleep(0.3)
        return block

    return work


def test_when_a_block_fails_what_all_of_them_hold_is_handed_out(ray: RayExecutor, met: Path) -> None:
    taken: list[int] = []

    def endless() -> Iterator[Block]:
        while True:
            taken.append(len(taken))
            yield [taken[-1]]

    got: list[tuple[int, Block]] = []
    with pytest.raises(RunError, match="ValueError: it broke"):
        got.extend(one for done in ray.map(partial(failing, met), endless(), workers=2, inflight=4) for one in done)
    assert sorted(got) == [(n, [n]) for n in taken if n != 9]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", ["local", "ray"])
def test_when_the_blocks_end_in_an_error_what_is_held_is_handed_out(
    kind: str, workers: int, request: pytest.FixtureRequest, met: Path
) -> None:
    where: Executor = LocalExecutor() if kind == "local" else request.getfixturevalue("ray")

    def broken() -> Iterator[Block]:
        yield from ([n] for n in range(10))
        raise OSError("no space left")

    work = partial(process, met, workers if kind == "ray" else 1)
    got: list[tuple[int, int]] = []
    with pytest.raises(OSError, match="no space left"):
        got.extend(one for done in where.map(work, broken(), workers=workers, inflight=4) for one in done)
    assert sorted(number for number, _ in got) == list(range(10))


class Told:
    """The process that answers block 1 is told of a pause; others answer when they have heard of it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._until, self._heard = folder, 0.0, asyncio.Event()

    async def __call__(self, block: Block) -> tuple[int, float]:
        if block != [0]:
            await among(self._folder, 3)
            if block == [1]:
                self.pause(123.0)
            await asyncio.wait_for(self._heard.wait(), 300)
        return os.getpid(), self._until

    def paused(self) -> float:
        return self._until

    def pause(self, until: float) -> None:
        self._until = max(self._until, until)
        if self._until:
            self._heard.set()


def test_what_one_process_is_told_all_hear(ray: RayExecutor, met: Path) -> None:
    results = dict(flat(ray.map(partial(Told, met), ([n] for n in range(30)), workers=3, inflight=2)))
    assert {results[n][1] for n in range(1, 30)} == {123.0}
    assert len({process for process, _ in results.values()}) == 3


def test_a_stream_that_nobody_reads_leaves_no_thread(ray: RayExecutor, met: Path) -> None:
    before = threading.active_count()
    stream = ray.map(partial(process, met, 3), ([n] for n in range(10_000)), workers=3, inflight=4)
    for _ in range(3):
        next(stream)
    stream.close()  # type: ignore[attr-defined]
    end = time.monotonic() + 20
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.05)
    assert threading.active_count() <= before


def requests(count: int) -> list[Request]:
    model = Model("strong", "openai", "openai/m", name="m", endpoint="here")
    return [Request(model, (Message("user", f"question {n}"),), Sampling(), 0) for n in range(count)]


def test_an_endpoint_is_asked_by_several_actors(
    ray: RayExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEMA_HOME", str(tmp_path))
    with FakeServer(latency=1.0) as server:
        endpoint = Endpoint(url=server.url, concurrency=7, actors=3)
        store = Store(tmp_path / "journal", tmp_path / "completions")
        generate = Generate(store, ray, Run(endpoints={"here": endpoint}))
        asked = requests(90)

        def hurry() -> None:
            while server.most <= 2 and len(server.requests) < 90:
                time.sleep(0.01)
            server.latency = 0.02

        threading.Thread(target=hurry, daemon=True).start()
        replies = list(generate(asked))
        assert [reply.text for reply in replies] == [f"reply to question {n} #0" for n in range(90)]
        assert len(server.requests) == 90
        # Two each: never above the limit, and more than one of them could have under way.
        assert 2 < server.most <= 6
        assert server.concurrent[:2] == [1, 1]
        assert list(generate(asked)) == replies
        assert len(server.requests) == 90


def test_a_wrong_key_costs_one_request(ray: RayExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEMA_HOME", str(tmp_path))
    with FakeServer() as server:
        server.always = "401"
        run = Run(endpoints={"here": Endpoint(url=server.url, concurrency=8, actors=2)})
        generate = Generate(Store(tmp_path / "journal", tmp_path / "completions"), ray, run)
        with pytest.raises(RunError, match="key"):
            list(generate(requests(20)))
        assert len(server.requests) == 1


def test_the_parts_of_an_endpoint_are_never_more_than_the_whole() -> None:
    limits = {"concurrency": 10, "requests_per_minute": 100, "output_tokens_per_minute": 1001}
    part = Endpoint(url="http://here", actors=3, **limits).part()
    assert part.model_dump(include={*limits, "input_tokens_per_minute"}) == {
        "concurrency": 3,
        "requests_per_minute": 33,
        "output_tokens_per_minute": 333,
        "input_tokens_per_minute": None,
    }
    whole = Endpoint(url="http://here", **limits)
    assert whole.part() == whole
