"""What waits for the Batch API: requests, which are in a batch or go into the next one, batches and queues."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from lema.completions.batch_files import MOST_BYTES, MOST_REQUESTS, Batch, line
from lema.completions.batch_records import Record
from lema.models.types import Request, key
from lema.recipe.params import Endpoint

FIRST_FULL, LONGEST_FULL = 60.0, 600.0  # seconds before a full queue is tried again

# The requests to one model, in blocks, in the same order each time.
Group = Callable[[], Iterable[list[Request]]]


@dataclass(slots=True)
class Job:
    """A batch that this process drives, of the group with this number. `seen` is how it was when it was looked at, None
    before it was accepted; `over` the time at which it was first seen to be over, `ill` that since which it could not
    be seen."""

    record: Record
    group: int
    seen: Batch | None = None
    over: float | None = None
    ill: float | None = None


@dataclass(slots=True)
class Queue:
    """A model's queue at the endpoint: batches of at most `most` requests, none before the time `until`. `full` is
    since when there was no place, `pause` how long the last wait for one is, `unsure` how many creations in a row had
    no answer, `ill` since when nothing could be sent, `heard` whether anything was."""

    most: int = MOST_REQUESTS
    until: float = 0.0
    full: float | None = None
    pause: float = 0.0
    unsure: int = 0
    ill: float | None = None
    heard: bool = False

    def hold(self, size: int) -> None:
        """There was no place for a batch of this size: later, and a smaller one."""
        now = time.monotonic()
        self.most = max(1, min(size, self.most) // 2)
        self.pause = min(2 * self.pause, LONGEST_FULL) or FIRST_FULL
        self.until, self.full = now + self.pause, self.full or now

    def moved(self) -> None:
        """A batch has left it."""
        self.until, self.pause, self.most = 0.0, 0.0, min(2 * self.most, MOST_REQUESTS)


class Budget(Protocol):
    """What may be spent."""

    def reserve(self, block: Sequence[Request], /) -> bool:
        """Set aside what these requests can cost; False when that is too much."""
        ...

    def wait_for_room(self, block: Sequence[Request], stop: threading.Event, /) -> bool:
        """Wait until these requests, which were not admitted, may be; False when nothing is under way that could make
        room, or `stop` is set."""
        ...

    def release(self, keys: Iterable[str], /) -> None:
        """Give back what was set aside for requests that were not sent, or not answered."""
        ...


class Pending:
    """Requests without a reply, by their keys: `open` are in no batch, `sent` in one; each with the number of its
    group. The requests themselves are read again when they are needed. Of the groups in `refused` the budget allowed
    nothing when a file was last to be filled."""

    def __init__(self, groups: Sequence[Group], budget: Budget | None) -> None:
        self.groups, self._budget = groups, budget
        self.refused: set[int] = set()
        self.sent: dict[str, int] = {}
        self.open = {
            key(request): number for number, group in enumerate(groups) for block in group() for request in block
        }

    def __len__(self) -> int:
        return len(self.open) + len(self.sent)

    @property
    def stuck(self) -> bool:
        """Whether the budget has allowed nothing of what is in no batch."""
        return self.refused.issuperset(self.open.values())

    def cover(self, record: Record) -> None:
        """The requests of this record are in its batch."""
        self.sent.update((name, self.open.pop(name)) for name in record.asked if name in self.open)

    def uncover(self, names: Iterable[str]) -> None:
        """Those of these requests that still wait go into another batch."""
        again = {name: self.sent.pop(name) for name in names if name in self.sent}
        self.open.update(again)
        if self._budget is not None:
            self._budget.release(again)

    def answered(self, block: Sequence[Request]) -> None:
        """These requests wait no more."""
        for request in block:
            del self.sent[key(request)]

    def first(self) -> Request:
        """A request that is in no batch, of those that there are."""
        blocks = (block for group in self.groups for block in group())
        return next(one for block in blocks for one in block if key(one) in self.open)

    def fill(self, file: BinaryIO, number: int, most: int, endpoint: Endpoint) -> list[str]:
        """Write at most so many open requests of a group as lines of a batch, and return their keys."""
        names: list[str] = []
        size, full = 0, False
        for block in self.groups[number]():
            fitting: list[tuple[Request, bytes]] = []
            for one in block:
                if (name := key(one)) not in self.open:
                    continue
                content = line(name, one, endpoint)
                count, size = len(names) + len(fitting), size + len(content)
                full = count == min(most, MOST_REQUESTS) or (count > 0 and size > MOST_BYTES)
                if full:
                    break
                fitting.append((one, content))
            admitted = self._admitted([one for one, _ in fitting])
            names += map(key, admitted)
            file.writelines(content for _, content in fitting[: len(admitted)])
            if full or len(admitted) < len(fitting):
                break
        (self.refused.add if self.open and not names else self.refused.discard)(number)
        return names

    def _admitted(self, block: list[Request]) -> list[Request]:
        """The first of these requests, as many as the budget allows."""
        budget = self._budget
        if not block or budget is None or budget.reserve(block):
            return block
        return list(itertools.takewhile(lambda one: budget.reserve([one]), block))


def standing(jobs: Collection[Job], foreign: int, queues: Iterable[Queue]) -> str:
    """Where batches are, those of other processes too, in a few words."""
    counts = Counter("validating" if job.seen is None else job.seen.status for job in jobs)
    parts = [f"{count} {status}" for status, count in sorted(counts.items())]
    done = sum(job.seen.done for job in jobs if job.seen is not None)
    parts += [f"{done} requests done"] * bool(done)
    parts += [f"{foreign} of another process"] * bool(foreign)
    parts += ["the queue is full"] * any(queue.until > time.monotonic() for queue in queues)
    return f"batches: {', '.join(parts) or 'none'}"
