"""Work that waits for somebody else: many blocks at once on one event loop, which a driver feeds and empties."""

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import cache
from typing import Any, TypeVar

Result = TypeVar("Result")
Done = tuple[int, Any, Exception | None]

# Results are taken together where that costs little time: each taking has its price (a message, a disk sync).
LINGER, ENOUGH = 0.02, 8  # seconds, and the share of the blocks held, as one in so many


class Waiting:
    """Blocks go in with their numbers, results come out as they finish. One thread may use it, the driver's.

    `work` is a coroutine function, or is called in a thread of its own for each block. It may have a `room()`: how many
    blocks are worth holding at the time; and a `paused()` and `pause(until)`: until when the other side asked for
    quiet, by `time.monotonic`, which is the same in all processes of a machine.
    """

    def __init__(self, work: Callable[[list[Any]], Any], inflight: int) -> None:
        self._work = work if asynchronous(work) else lambda block: in_thread(work, block)
        self._room = getattr(work, "room", lambda: inflight)
        self.paused: Callable[[], float] = getattr(work, "paused", lambda: 0.0)
        self._pause: Callable[[float], None] = getattr(work, "pause", lambda _: None)
        self._inflight = inflight
        self._done: list[Done] = []
        self._some = threading.Condition()
        self._enough = 1
        self.held = 0

    def room(self) -> int:
        """Blocks worth holding, at least one."""
        return max(1, min(self._inflight, self._room()))

    def pause(self, until: float) -> None:
        """Tell the work what another process was told."""
        loop().call_soon_threadsafe(self._pause, until)

    def put(self, blocks: list[tuple[int, list[Any]]]) -> None:
        """Start on blocks; returns at once."""
        self.held += len(blocks)
        loop().call_soon_threadsafe(self._start, blocks)

    def take(self, patience: float | None = None) -> list[Done]:
        """What has finished meanwhile, at least one block unless so many seconds pass: its number, and its result or
        its exception."""
        with self._some:
            self._enough = 1
            self._some.wait_for(self._ready, patience)
            self._enough = max(1, self.held // ENOUGH)
            self._some.wait_for(self._ready, LINGER)
            done, self._done = self._done, []
        self.held -= len(done)
        return done

    def _ready(self) -> bool:
        return len(self._done) >= self._enough

    def _start(self, blocks: list[tuple[int, list[Any]]]) -> None:
        for number, block in blocks:
            task = loop().create_task(self._run(number, block))
            _running.add(task)
            task.add_done_callback(_running.discard)

    async def _run(self, number: int, block: list[Any]) -> None:
        try:
            done: Done = (number, await self._work(block), None)
        except Exception as error:
            done = (number, None, error)
        with self._some:
            self._done.append(done)
            if self._ready():
                self._some.notify()


# An event loop holds its tasks weakly.
_running: set[asyncio.Task[None]] = set()


_starting = threading.Lock()


def loop() -> asyncio.AbstractEventLoop:
    """The event loop of this process, in a daemon thread: connections and what is known of an endpoint outlive one
    piece of work, and an interrupted program waits for no slow reply."""
    # Streams of several endpoints ask for it at the same time.
    with _starting:
        return _started()


@cache
def _started() -> asyncio.AbstractEventLoop:
    running = asyncio.new_event_loop()
    threading.Thread(target=running.run_forever, daemon=True).start()
    return running


def wait_for(work: Coroutine[Any, Any, Result]) -> Result:
    """The result of a coroutine that runs on the loop of this process."""
    return asyncio.run_coroutine_threadsafe(work, loop()).result()


def asynchronous(work: Callable[..., Any]) -> bool:
    """Whether a call gives a coroutine."""
    return inspect.iscoroutinefunction(work) or inspect.iscoroutinefunction(getattr(work, "__call__", None))  # noqa: B004


async def in_thread(work: Callable[..., Result], *arguments: Any) -> Result:
    """The result of a call in a daemon thread of its own."""
    future: Future[Result] = Future()

    def call() -> None:
        try:
            future.set_result(work(*arguments))
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return await asyncio.wrap_future(future)
