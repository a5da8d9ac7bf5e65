"""The requests of a stage that go through the Batch API: which wait, which are in a batch, and what came of them."""

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import BinaryIO

from lema.completions.batch_client import MAX_BYTES, MAX_REQUESTS, parse_reply, request_line
from lema.completions.budget import BudgetTracker
from lema.models.types import Completion, Fault, Request
from lema.recipe.params import Endpoint

TRIES = 3  # batches that a request is put into before it has failed


class RequestPool:
    """Requests without a reply, by their keys: `waiting` are in no batch, `submitted` in one. The requests themselves
    are read from the disk when they are needed. `refused` is the first one when the budget allows none of them now."""

    def __init__(
        self, read: Callable[[], Iterable[list[Request]]], endpoint: Endpoint, budget: BudgetTracker | None
    ) -> None:
        self._read, self._endpoint, self._budget = read, endpoint, budget
        self._tries: Counter[str] = Counter()  # by request, batches that had no reply
        self.waiting = {request.key for block in read() for request in block}
        self.submitted = set[str]()
        self.refused: Request | None = None

    def __len__(self) -> int:
        return len(self.waiting) + len(self.submitted)

    def cover(self, names: Collection[str]) -> None:
        """These requests are in a batch."""
        self.submitted |= self.waiting.intersection(names)
        self.waiting.difference_update(names)

    def uncover(self, names: Iterable[str]) -> None:
        """Those of these requests that have no reply go into another batch."""
        again = self.submitted.intersection(names)
        self.submitted -= again
        self.waiting |= again
        if self._budget is not None:
            self._budget.release(again)

    def read(self, names: Collection[str]) -> Iterator[list[Request]]:
        """These requests, a few at a time."""
        for block in self._read():
            yield [request for request in block if request.key in names]

    def write(self, file: BinaryIO, most: int) -> list[str]:
        """Write waiting requests as lines of a batch, as many as fit and the budget allows, and return their keys."""
        names: list[str] = []
        size, self.refused = 0, None
        for request in itertools.chain.from_iterable(self.read(self.waiting)):
            line = request_line(request, self._endpoint)
            size += len(line)
            if len(names) == min(most, MAX_REQUESTS) or (names and size > MAX_BYTES):
                break
            if self._budget is not None and not self._budget.reserve([request]):
                self.refused = None if names else request
                break
            names.append(request.key)
            file.write(line)
        return names

    def wait_for_room(self, stop: threading.Event) -> bool:
        """Wait until what is in flight elsewhere has made room in the budget; False when nothing could."""
        return bool(self._budget and self.refused and self._budget.wait_for_room([self.refused], stop))

    def outcome(self, request: Request, line: bytes | None, status: str) -> Completion | Fault:
        """The reply to a request on a line of a batch with this status, or why it has none yet."""
        missing = Fault("retry", "no reply in the batch" if status == "completed" else f"the batch has {status}")
        found = parse_reply(line, request, self._endpoint) if line else missing
        if isinstance(found, Completion) or found.what == "stop":
            return found
        if found.what == "refused":
            return Completion("", "refused", found.reason)
        self._tries[request.key] += line is not None or status != "failed"
        if found.what == "row" or self._tries[request.key] >= TRIES:
            return Completion("", "failed", found.reason)
        return found
