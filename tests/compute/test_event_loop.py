"""Work that waits: many blocks at once on one event loop."""

import asyncio
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from lema.completions import work
from lema.completions.work import Asking, Reply, answering, together
from lema.compute.event_loop import Waiting, asynchronous, in_thread, wait_for
from lema.compute.executor import LocalExecutor
from lema.errors import RunError
from lema.models.types import Completion, Model, Request, Sampling
from lema.recipe.params import Endpoint, Run
from lema.rows import Message

RUN = Run(endpoints={"here": Endpoint(url="http://here")})


def request(n: int, label: str = "a") -> Request:
    return Request(Model(label, "theirs", label, endpoint="here"), (Message("user", str(n)),), Sampling())


def replies(requests: Sequence[Request]) -> list[Completion]:
    return [Completion(f"reply {one.messages[0].content}", "stop") for one in requests]


class Together:
    """Answers the first at once, others when as many are under way as it is told: fewer would wait for ever."""

    def __init__(self, count: int) -> None:
        self.count, self.now, self.enough = count, -1, asyncio.Event()
        self.room = count

    async def __call__(self, requests: Sequence[Request]) -> list[Completion]:
        self.now += 1
        if self.now >= self.count:
            self.enough.set()
        if self.now:
            await self.enough.wait()
        return replies(requests)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Workers by the label of their model, in place of backends."""
    workers: dict[str, Any] = {}
    monkeypatch.setattr(work, "build", lambda model, run: workers[model.label])
    return workers


def asked(requests: list[Request], inflight: int) -> dict[int, Reply]:
    stream = LocalExecutor().map(partial(Asking, RUN), [[one] for one in requests], inflight=inflight)
    return {number: reply for done in stream for number, reply in done}


def test_a_coroutine_function_is_awaited_for_many_blocks_at_once(backend: dict[str, Any]) -> None:
    backend["a"] = Together(40)
    found = asked([request(n) for n in range(41)], 40)
    assert [found[n].completions[0].text for n in range(41)] == [f"reply {n}" for n in range(41)]


def test_no_more_blocks_are_held_than_the_worker_has_room_for(backend: dict[str, Any]) -> None:
    most = now = 0

    async def slow(requests: Sequence[Request]) -> list[Completion]:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.002)
        now -= 1
        return replies(requests)

    slow.room = 3  # type: ignore[attr-defined]
    backend["a"] = slow
    assert len(asked([request(n) for n in range(30)], 100)) == 30
    assert most == 3


@pytest.mark.parametrize("concurrent", [True, False])
def test_other_workers_are_called_in_threads(backend: dict[str, Any], concurrent: bool) -> None:
    entered, lock, most = 0, threading.Lock(), 0
    gate = threading.Barrier(4) if concurrent else None

    def blocking(requests: Sequence[Request]) -> list[Completion]:
        nonlocal entered, most
        with lock:
            entered += 1
            most = max(most, entered)
        if gate is not None:
            gate.wait(timeout=10)
        with lock:
            entered -= 1
        return replies(requests)

    blocking.concurrent = concurrent  # type: ignore[attr-defined]
    backend["a"] = blocking
    # The first is alone, and builds the worker; so the barrier has its four only when it is passed by threads.
    if gate is not None:
        backend["a"] = lambda requests: blocking(requests)
        backend["a"].concurrent = True
        waiting = Waiting(Asking(RUN), 4)
        waiting.put([(n, [request(n)]) for n in range(4)])
        done = 0
        while done < 4:
            finished = waiting.take()
            assert [error for *_, error in finished if error is not None] == []
            done += len(finished)
        assert most == 4
    else:
        assert len(asked([request(n) for n in range(12)], 4)) == 12
        assert most == 1


def test_what_was_finished_beside_a_failure_is_not_lost(backend: dict[str, Any]) -> None:
    async def failing(block: list[int]) -> int:
        if block == [2]:
            raise ValueError("broken")
        return block[0]

    stream = LocalExecutor().map(lambda: failing, [[n] for n in range(4)], inflight=4)
    found: list[int] = []

    def read() -> None:
        for done in stream:
            found.extend(number for number, _ in done)

    with pytest.raises(RunError, match="ValueError: broken"):
        read()
    assert sorted(found) == [0, 1, 3]


def test_a_worker_of_coroutines_may_compute_too(backend: dict[str, Any]) -> None:
    backend["a"] = Together(1)
    assert answering(RUN)([request(5)]).completions == [Completion("reply 5", "stop")]


def test_a_lost_reply_is_noticed(backend: dict[str, Any]) -> None:
    async def lazy(requests: Sequence[Request]) -> list[Completion]:
        return []

    backend["a"] = lazy
    with pytest.raises(RunError, match="theirs gave 0 completions for 1 requests"):
        asked([request(1)], 4)


def test_blocks_of_a_model_are_kept_together() -> None:
    answers = [([request(n, label)], Reply(replies([request(n)]), None)) for n in range(3) for label in "ab"]
    answers.append(([request(9, "b")], Reply(replies([request(9)]), "no credit")))
    (a, first), (b, second) = together(answers)
    assert [one.messages[0].content for one in a] == ["0", "1", "2"]
    assert [one.text for one in first.completions] == ["reply 0", "reply 1", "reply 2"]
    assert (first.fatal, second.fatal) == (None, "no credit")
    assert [one.text for one in second.completions][-1] == "reply 9"
    assert {one.model.label for one in b} == {"b"}


def test_what_is_a_coroutine_function() -> None:
    assert asynchronous(Together(1))
    assert not asynchronous(replies)
    assert not asynchronous(partial(replies, []))


def test_a_call_in_a_thread() -> None:
    assert wait_for(in_thread(threading.get_ident)) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        wait_for(in_thread(lambda: 1 // 0))
