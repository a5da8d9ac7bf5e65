"""Endpoints that are asked by one client or by several, in this process and on Ray."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from lema.completions.generate import Generate
from lema.completions.online import Source, ask_online
from lema.completions.store import Store
from lema.compute.executor import Executor, LocalExecutor
from lema.compute.ray_pool import RayExecutor
from lema.errors import RunError
from lema.models.types import Completion, Model, Request, Sampling, Worker
from lema.models.worker import LocalWorkers
from lema.recipe.params import Endpoint, Run
from lema.rows import Message
from tests.fake_server import FakeServer


def asking(backend: str, number: int, /, **options: Any) -> list[Request]:
    model = Model("a", f"tests.completions.test_online:{backend}", "a", endpoint="here", options=options)
    return [Request(model, (Message("user", str(n)),), Sampling()) for n in range(number)]


def number_of(request: Request) -> int:
    return int(request.messages[0].content)


def ask(
    where: Executor, requests: Iterable[Request], actors: int = 1, concurrency: int | None = None
) -> Iterator[tuple[int, str]]:
    """The number of each request and its reply, as they come; the concurrency is that of each actor."""
    endpoint = Endpoint(url="http://here", actors=actors, concurrency=concurrency and concurrency * actors)
    source = Source("here", Run(endpoints={"here": endpoint}), iter(requests), where, None, Event())
    for block, replies in ask_online([source]):
        yield from ((number_of(request), reply.text) for request, reply in zip(block, replies, strict=True))


async def among(folder: str, count: int) -> None:
    """Return when so many processes have come here."""
    (Path(folder) / str(os.getpid())).touch()
    async with asyncio.timeout(300):
        while len(list(Path(folder).iterdir())) < count:
            await asyncio.sleep(0.02)


def process(model: Model, run: Run, *, folder: str, count: int, fault: str = "", note: str = "") -> Worker:
    """A backend whose replies tell the process; it may die at request 11, or fail at 9."""

    async def work(requests: Sequence[Request]) -> list[Completion]:
        number = number_of(requests[0])
        # The first has an answer before others start.
        if number:
            await among(folder, count)
        if (fault, number) == ("die", 11) and not Path(note).exists():
            Path(note).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if (fault, number) == ("fail", 9):
            raise ValueError("it broke")
        if fault == "fail" and number > 5:
            await asyncio.sleep(0.3)
        return [Completion(str(os.getpid()), "stop")]

    return work


def alone(model: Model, run: Run, *, folder: str) -> Worker:
    (Path(folder) / str(os.getpid())).touch()

    async def work(requests: Sequence[Request]) -> list[Completion]:
        if not number_of(requests[0]):
            await asyncio.sleep(3)  # an actor starts in less
            assert len(list(Path(folder).iterdir())) == 1
        return [Completion("x", "stop")]

    return work


def blocking(model: Model, run: Run) -> Worker:
    """A plain function."""
    busy = threading.Lock()

    def work(requests: Sequence[Request]) -> list[Completion]:
        assert busy.acquire(blocking=False), "called by two threads at a time"
        time.sleep(0.001)
        busy.release()
        return [Completion(str(threading.get_ident()), "stop") for _ in requests]

    return work


def gathering(model: Model, run: Run, *, count: int) -> Worker:
    """Answers the first at once, others when so many are in flight: fewer would wait for ever."""
    enough, entered = asyncio.Event(), 0

    async def work(requests: Sequence[Request]) -> list[Completion]:
        nonlocal entered
        entered += 1
        if entered > count:
            enough.set()
        if number_of(requests[0]):
            await asyncio.wait_for(enough.wait(), 60)
        return [Completion("x", "stop") for _ in requests]

    return work


def lazy(model: Model, run: Run) -> Worker:
    async def work(requests: Sequence[Request]) -> list[Completion]:
        return []

    return work


@pytest.fixture
def met(tmp_path: Path) -> str:
    folder = tmp_path / "met"
    folder.mkdir()
    return str(folder)


def test_a_coroutine_function_is_awaited_for_many_requests_at_once() -> None:
    assert len(list(ask(LocalExecutor(), asking("gathering", 41, count=40), concurrency=40))) == 41


def test_a_plain_function_is_called_in_threads_one_at_a_time() -> None:
    threads = {thread for _, thread in ask(LocalExecutor(), asking("blocking", 12), concurrency=4)}
    assert str(threading.get_ident()) not in threads


def test_a_coroutine_function_may_compute_in_this_process_too() -> None:
    workers = LocalWorkers(Run())
    for number in range(2):
        (one,) = asking("gathering", 1, count=number)
        assert workers([one]) == [Completion("x", "stop")]


def test_a_lost_reply_is_noticed() -> None:
    with pytest.raises(RunError, match="lazy gave 0 completions for 1 requests"):
        list(ask(LocalExecutor(), asking("lazy", 1)))


def test_several_processes_share_the_requests(ray: RayExecutor, met: str) -> None:
    results = dict(ask(ray, asking("process", 60, folder=met, count=3), actors=3, concurrency=4))
    assert sorted(results) == list(range(60))
    assert len(set(results.values())) == 3
    assert str(os.getpid()) not in results.values()


def test_the_first_has_an_answer_before_others_start(ray: RayExecutor, met: str) -> None:
    assert len(list(ask(ray, asking("alone", 9, folder=met), actors=3, concurrency=2))) == 9


def test_requests_of_one_that_is_killed_are_sent_again(ray: RayExecutor, met: str, tmp_path: Path) -> None:
    note = tmp_path / "died"
    requests = asking("process", 40, folder=met, count=2, fault="die", note=str(note))
    assert sorted(number for number, _ in ask(ray, requests, actors=2, concurrency=3)) == list(range(40))
    assert note.exists()


@pytest.mark.parametrize("actors", [None, 2])
def test_when_a_backend_fails_what_is_in_flight_is_handed_out(
    actors: int | None, request: pytest.FixtureRequest, met: str
) -> None:
    where: Executor = request.getfixturevalue("ray") if actors else LocalExecutor()
    taken: list[int] = []

    def endless() -> Iterator[Request]:
        for one in asking("process", 10_000, folder=met, count=actors or 1, fault="fail"):
            taken.append(number_of(one))
            yield one

    got: list[int] = []
    with pytest.raises(RunError, match="ValueError: it broke"):
        got.extend(number for number, _ in ask(where, endless(), actors or 1, 4))
    assert sorted(got) == [n for n in taken if n != 9]


@pytest.mark.parametrize("actors", [None, 1, 2])
def test_when_the_requests_end_in_an_error_what_is_held_is_handed_out(
    actors: int | None, request: pytest.FixtureRequest, met: str
) -> None:
    where: Executor = request.getfixturevalue("ray") if actors else LocalExecutor()

    def broken() -> Iterator[Request]:
        yield from asking("process", 10, folder=met, count=actors or 1)
        raise OSError("no space left")

    got: list[int] = []
    with pytest.raises(OSError, match="no space left"):
        got.extend(number for number, _ in ask(where, broken(), actors or 1, 4))
    assert sorted(got) == list(range(10))


def test_a_pause_that_one_client_was_asked_for_all_are_told() -> None:
    told: list[tuple[int, float]] = []

    class Scripted(LocalExecutor):
        """The endpoint asks its first client to wait for half a minute."""

        def serve(self, factory: Any, number: int, variables: Sequence[str] = ()) -> Any:
            def exchange(requests: list[Request], pause: float, _: float | None) -> "Future[Any]":
                told.append((number, pause))
                answer: Future[Any] = Future()
                done = [(one.key, Completion("x", "stop")) for one in requests]
                answer.set_result((done, 2, 30.0 * (number == 0)))
                return answer

            return SimpleNamespace(exchange=exchange, close=lambda: None)

    assert len(list(ask(Scripted(), asking("lazy", 10), actors=2, concurrency=2))) == 10
    assert told[0] == (0, 0.0)
    second = [pause for number, pause in told if number == 1]
    assert second
    assert min(second) > 20


def test_a_stream_that_nobody_reads_leaves_no_thread(ray: RayExecutor, met: str) -> None:
    before = threading.active_count()
    stream = ask(ray, asking("process", 10_000, folder=met, count=3), actors=3, concurrency=4)
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
