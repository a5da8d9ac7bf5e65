"""Executors: one contract for work in this process and on Ray, so that nothing else knows where it runs.

`map` is for work that computes: blocks go in, results come out with the number of their block, as they finish. `serve`
is for work that waits: an object with a coroutine method `exchange`, which a caller holds for as long as it likes.
`lema.compute.ray_pool` has the other executor, `lema.compute.factory` chooses.
"""

import asyncio
import itertools
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from lema.errors import LemaError, RunError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Below this many items a `pmap` is done before a Ray would have started.
SMALL = 2000


class WorkerDiedError(Exception):
    """The process of a service is gone."""


class Exchanger(Protocol):
    """Work that waits for somebody else, on one event loop."""

    async def exchange(self, *arguments: Any) -> Any: ...

    def close(self) -> None:
        """Give up what is under way; called on the event loop."""
        ...


class Service(Protocol):
    """An exchanger that runs in this process or elsewhere."""

    def exchange(self, *arguments: Any) -> "Future[Any]":
        """The future result of the coroutine. Its exception is a WorkerDiedError when the process of the service is
        gone, with what it held."""
        ...

    def close(self) -> None:
        """Stop it."""
        ...


class Executor(ABC):
    """Where work runs. Starting costs nothing; what is needed is started with the first block, and stopped at the end
    of a `with` block."""

    @abstractmethod
    def map(
        self,
        factory: Callable[[], Callable[[list[Item]], Result]],
        blocks: Iterable[list[Item]],
        *,
        workers: int | None = None,
        folders: Sequence[str] = (),
    ) -> Iterator[list[tuple[int, Result]]]:
        """(number of the block, its result) as they finish, every block exactly once; a list holds those that are
        finished at the time.

        `workers` processes at most (None: as many as there are processors) each call the picklable `factory` once, and
        find the `folders` that they read where they are here, or copies of them. Blocks are taken from their iterable
        only when there is room.

        Raises:
            RunError: a block failed, with the cause in one line; or the workers cannot be had. What the iterable raises
                comes through.
        """

    @abstractmethod
    def serve(self, factory: Callable[[], Exchanger], number: int, variables: Sequence[str] = ()) -> Service:
        """Start one of several services, made by the picklable `factory`, which finds these environment `variables` as
        they are here. It reserves no processor. The first (0) is near this process; others are spread over the nodes.

        Raises:
            RunError: it cannot be made, in this process; elsewhere the first exchange fails.
        """

    def close(self) -> None:  # noqa: B027, some have nothing to stop
        """Stop the workers and whatever was started for them."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def one_line_error(error: BaseException) -> RunError:
    """An exception of a block as one line. Its text is the cause; the type says what kind when it is not ours."""
    first = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, LemaError):
        return RunError(str(error))
    return RunError(f"{type(error).__name__}: {first}" if first else type(error).__name__)


_loops: list[asyncio.AbstractEventLoop] = []
_starting = threading.Lock()


def event_loop() -> asyncio.AbstractEventLoop:
    """The event loop of this process, in a daemon thread: connections and what is known of an endpoint outlive one
    piece of work, and an interrupted program waits for no slow reply."""
    with _starting:  # several threads may ask for it first
        if not _loops:
            _loops.append(asyncio.new_event_loop())
            threading.Thread(target=_loops[0].run_forever, daemon=True).start()
    return _loops[0]


class LocalExecutor(Executor):
    """Everything in this process, by one worker."""

    def map(
        self,
        factory: Callable[[], Callable[[list[Item]], Result]],
        blocks: Iterable[list[Item]],
        *,
        workers: int | None = None,  # noqa: ARG002
        folders: Sequence[str] = (),  # noqa: ARG002
    ) -> Iterator[list[tuple[int, Result]]]:
        """See the contract."""
        work: Callable[[list[Item]], Result] | None = None
        for number, block in enumerate(blocks):
            try:
                work = work or factory()
                result = work(block)
            except Exception as error:
                raise one_line_error(error) from error
            yield [(number, result)]

    def serve(self, factory: Callable[[], Exchanger], number: int, variables: Sequence[str] = ()) -> "LocalService":  # noqa: ARG002
        """See the contract."""
        return LocalService(factory())


class LocalService:
    """An exchanger on the event loop of this process."""

    def __init__(self, exchanger: Exchanger) -> None:
        self._exchanger = exchanger

    def exchange(self, *arguments: Any) -> "Future[Any]":
        """See the contract."""
        return asyncio.run_coroutine_threadsafe(self._exchanger.exchange(*arguments), event_loop())

    def close(self) -> None:
        """See the contract."""
        event_loop().call_soon_threadsafe(self._exchanger.close)


def merge_streams(streams: Sequence[Iterator[Item]], stop: threading.Event) -> Generator[Item, None, None]:
    """The items of several iterators as they come, all running at once, each in a thread of its own. A stream goes on
    when its last item was used: so nothing piles up, and what it does next may rely on that.

    When one fails, `stop` is set, which tells the others to come to an end; what they yield until then is yielded,
    then the first exception is raised.
    """
    items: queue.SimpleQueue[tuple[Any, threading.Semaphore | None]] = queue.SimpleQueue()
    turns = [threading.Semaphore(0) for _ in streams]
    left = False

    def drain(stream: Iterator[Item], turn: threading.Semaphore) -> None:
        error: Exception | None = None
        try:
            for item in stream:
                items.put((item, turn))
                turn.acquire()
                if left:
                    return
        except Exception as failed:
            error = failed
        items.put((error, None))

    errors: list[Exception] = []
    try:
        for stream, turn in zip(streams, turns, strict=True):
            threading.Thread(target=drain, args=(stream, turn), daemon=True).start()
        running = len(streams)
        while running:
            item, used = items.get()
            if used is not None:
                yield item
                used.release()
                continue
            running -= 1
            if item is not None:
                errors.append(item)
                stop.set()
    finally:
        left = True
        for turn in turns:
            turn.release()
    if errors:
        raise errors[0]


def chunked(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items; the last may be shorter."""
    rest = iter(items)
    while block := list(itertools.islice(rest, size)):
        yield block


def _each(function: Callable[[Any], Any]) -> Callable[[list[Any]], list[Any]]:
    return lambda block: [function(item) for item in block]


def pmap(
    where: Executor, fn: Callable[[Item], Result], items: Iterable[Item], *, block: int = 1000, small: int = SMALL
) -> Iterator[Result]:
    """`map(fn, items)` on all processors, in order. Up to `small` items stay in this process. `fn` is picklable.

    Raises:
        RunError: `fn` raised, with the cause in one line.
    """
    rest = iter(items)
    head = list(itertools.islice(rest, small + 1))
    if len(head) <= small:
        where = LocalExecutor()
    early: dict[int, list[Result]] = {}
    wanted = 0
    for done in where.map(partial(_each, fn), chunked(itertools.chain(head, rest), block)):
        early.update(done)
        while wanted in early:
            yield from early.pop(wanted)
            wanted += 1
