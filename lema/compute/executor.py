"""Executors: one contract for work in this process and on Ray, so that nothing else knows where it runs.

The work of a `map` comes in blocks. A factory is called once in every worker and returns the function that answers
a block; results come back with the number of their block, as they finish. `lema.compute.ray_pool` has the other one.
"""

import itertools
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from lema.compute.event_loop import Waiting
from lema.errors import LemaError, RunError
from lema.recipe.params import Run

Item = TypeVar("Item")
Result = TypeVar("Result")
Work = Callable[[list[Item]], Result]

# Below this many items a `pmap` is done before a Ray would have started.
SMALL = 2000


class Executor(Protocol):
    """Where work runs. Starting costs nothing; what is needed is started with the first block."""

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
        """(number of the block, its result) as they finish, every block exactly once; a list holds those that are
        finished at the time.

        `workers` processes at most each call the picklable `factory` once. Work that computes (None: as many as there
        are processors) finds the `folders` that it reads where they are here, or copies of them. With `inflight` above
        1 the work is waiting for somebody else (`lema.compute.event_loop.Waiting`): a worker (None: one) holds up to so
        many blocks at once, reserves no processor and finds these environment `variables` as they are here, from its
        first block on; the first has an answer before others start. Blocks are taken from their iterable only when
        there is room, by one thread at a time. Blocks that a killed worker held are sent to another if `again`, called
        in any thread, says so; else they have no result.

        Raises:
            RunError: a block failed, with the cause in one line, after what else was waited for has come; or the
                workers cannot be had. What the iterable raises comes through, then too.
        """
        ...

    def close(self) -> None:
        """Stop the workers and whatever was started for them."""
        ...


def executor(run: Run) -> Executor:
    """The executor that params.yaml asks for."""
    if run.executor == "local":
        return LocalExecutor()
    from lema.compute.ray_pool import RayExecutor

    return RayExecutor()


def failure(error: BaseException) -> RunError:
    """An exception of a block as one line. Its text is the cause; the type says what kind when it is not ours."""
    first = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, LemaError):
        return RunError(str(error))
    return RunError(f"{type(error).__name__}: {first}" if first else type(error).__name__)


class LocalExecutor:
    """Everything in this process, by one worker."""

    def map(
        self,
        factory: Callable[[], Callable[[list[Item]], Result]],
        blocks: Iterable[list[Item]],
        *,
        workers: int | None = None,  # noqa: ARG002
        inflight: int = 1,
        folders: Sequence[str] = (),  # noqa: ARG002
        variables: Sequence[str] = (),  # noqa: ARG002
        again: Callable[[list[Item]], bool] | None = None,  # noqa: ARG002
    ) -> Iterator[list[tuple[int, Result]]]:
        numbered = enumerate(blocks)
        first = next(numbered, None)
        if first is None:
            return
        try:
            work = factory()
        except Exception as error:
            raise failure(error) from error
        rest = itertools.chain([first], numbered)
        yield from _inline(work, rest) if inflight == 1 else _at_once(Waiting(work, inflight), Source(rest))

    def close(self) -> None:
        """Nothing was started that outlives a `map`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _inline(work: Work[Item, Result], blocks: Iterable[tuple[int, list[Item]]]) -> Iterator[list[tuple[int, Result]]]:
    for number, block in blocks:
        try:
            result = work(block)
        except Exception as error:
            raise failure(error) from error
        yield [(number, result)]


class Source:
    """The numbered blocks that workers which wait take from, one at a time. After a first error nothing is taken: what
    is held is still handed out, and then the error raised."""

    def __init__(self, blocks: Iterator[tuple[int, list[Any]]]) -> None:
        self._blocks, self._lock = blocks, threading.Lock()
        self.error: Exception | None = None

    def take(self, count: int) -> list[tuple[int, list[Any]]]:
        """Up to so many; fewer when there are no more."""
        taken: list[tuple[int, list[Any]]] = []
        with self._lock:
            try:
                while self.error is None and len(taken) < count and (item := next(self._blocks, None)) is not None:
                    taken.append(item)
            except Exception as error:
                self.fail(error)
        return taken

    def fail(self, error: Exception) -> None:
        self.error = self.error or error


def _at_once(waiting: Waiting, source: Source) -> Iterator[list[tuple[int, Any]]]:
    while True:
        waiting.put(source.take(waiting.room() - waiting.held))
        if not waiting.held:
            break
        done = waiting.take()
        for *_, error in done:
            if error is not None:
                source.fail(failure(error))
        yield [(number, result) for number, result, error in done if error is None]
    if source.error is not None:
        raise source.error


def merge(streams: Sequence[Iterator[Item]], stop: threading.Event) -> Generator[Item, None, None]:
    """The items of several iterators as they come, all running at once, each in a thread of its own; the only one of
    a single stream runs in this one. A stream goes on when its last item was used: so nothing piles up, and what it
    does next may rely on that.

    When one fails, `stop` is set, which tells the others to come to an end; what they yield until then is yielded,
    then the first exception is raised.
    """
    if len(streams) == 1:
        yield from streams[0]
        return
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


def blocks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items; the last may be shorter."""
    rest = iter(items)
    while block := list(itertools.islice(rest, size)):
        yield block


def _each(fn: Callable[[Any], Any]) -> Callable[[list[Any]], list[Any]]:
    return lambda block: [fn(item) for item in block]


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
    for done in where.map(partial(_each, fn), blocks(itertools.chain(head, rest), block)):
        early.update(done)
        while wanted in early:
            yield from early.pop(wanted)
            wanted += 1
