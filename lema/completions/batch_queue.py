"""What goes into a batch and what comes of it: the requests that wait, the queue of a model, the results of a batch."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from lema.completions.batch_client import (
    MAX_BYTES,
    MAX_REQUESTS,
    BatchCallError,
    BatchClient,
    RemoteBatch,
    is_reply,
    parse_reply,
    request_line,
)
from lema.completions.batch_records import BatchRecord
from lema.completions.budget import BudgetTracker
from lema.completions.packs import SERVED
from lema.models.types import Completion, Fault, Request
from lema.recipe.params import Endpoint

# In seconds.
FIRST_POLL, LONGEST_POLL = 5.0, 60.0  # between two looks, the longer the less happens
FIRST_FULL, LONGEST_FULL = 60.0, 600.0  # before a full queue is tried again
SETTLE = 60.0  # after which an endpoint surely shows what it was sent
OUTAGE_PATIENCE = 900.0  # with an endpoint that does not answer
GIVE_UP = 26 * 3600.0  # a queue that stays full: a batch that fills it is over by then

UNSURE = 3  # batches in a row whose creation had no answer
TRIES = 3  # batches that a request is put into before it has failed
MISSING = {"expired": "the batch expired", "failed": "the batch failed", "cancelled": "the batch was cancelled"}

# Reads the requests to one model, in blocks, in the same order each time.
RequestReader = Callable[[], Iterable[list[Request]]]


class UnusableEndpoint(Exception):
    """Why nothing more can be had from the endpoint."""


@dataclass(slots=True)
class ModelQueue:
    """The queue of one model at its endpoint: batches of at most `most` requests, none before `not_before`.

    `full_since` is when there was first no room, `pause` how long the last wait for some is, `unsure` how many
    creations in a row had no answer, `failing_since` when calls began to fail, `reached` whether any had success. Times
    are those of `time.monotonic`, in seconds.
    """

    client: BatchClient
    most: int = MAX_REQUESTS
    not_before: float = 0.0
    full_since: float | None = None
    pause: float = 0.0
    unsure: int = 0
    failing_since: float | None = None
    reached: bool = False

    def submit(self, record: BatchRecord, file: BinaryIO, stop: threading.Event) -> bool:
        """Upload a file of requests and have it answered; False when nobody knows whether that was done.

        Raises:
            BatchCallError: nothing was submitted.
            UnusableEndpoint: nobody knows, several times in a row.
        """
        record.note(file=self.client.upload(f"{record.token}.jsonl", file))
        begun, pause = time.monotonic(), FIRST_POLL / 5
        while True:
            try:
                record.note(batch=self.client.create(str(record.file), record.token).id)
                self.failing_since, self.unsure, self.reached = None, 0, True
                return True
            except BatchCallError as error:
                if error.not_ready and time.monotonic() - begun < SETTLE and not stop.wait(pause):
                    pause *= 2
                    continue
                if not error.maybe_done:
                    raise
                record.note()
                self.unsure += 1
                if self.unsure >= UNSURE:
                    raise UnusableEndpoint(f"{error.fault.reason}, when it was to make a batch") from error
                return False

    def back_off(self, size: int) -> bool:
        """There was no room for a batch of this size: half as much, after an exponential backoff. False when it has
        been so for too long."""
        now = time.monotonic()
        self.most = max(1, min(size, self.most) // 2)
        self.pause = min(2 * self.pause, LONGEST_FULL) or FIRST_FULL
        self.not_before, self.full_since = now + self.pause, self.full_since or now
        return now - self.full_since <= GIVE_UP

    def advanced(self) -> None:
        """A batch has left the queue."""
        self.not_before, self.pause, self.most = 0.0, 0.0, min(2 * self.most, MAX_REQUESTS)


class RequestPool:
    """Requests without a reply, by their keys: `waiting` are in no batch, `submitted` in one; each with the number of
    its model. The requests themselves are read again when they are needed."""

    def __init__(self, readers: Sequence[RequestReader], endpoint: Endpoint, budget: BudgetTracker | None) -> None:
        self._readers, self._endpoint, self._budget = readers, endpoint, budget
        # Of models of which the budget allowed nothing when it was last asked, the first request.
        self.refused: dict[int, Request] = {}
        self.submitted: dict[str, int] = {}
        self.waiting = {
            request.key: number for number, read in enumerate(readers) for block in read() for request in block
        }

    def __len__(self) -> int:
        return len(self.waiting) + len(self.submitted)

    @property
    def over_budget(self) -> bool:
        """Whether the budget has allowed nothing of what waits."""
        return {*self.waiting.values()} <= {*self.refused}

    def cover(self, record: BatchRecord) -> None:
        """The requests of this record are in its batch."""
        self.submitted.update((name, self.waiting.pop(name)) for name in record.covered if name in self.waiting)

    def uncover(self, names: Iterable[str]) -> None:
        """Those of these requests that have no reply go into another batch."""
        again = {name: self.submitted.pop(name) for name in names if name in self.submitted}
        self.waiting.update(again)
        if self._budget is not None:
            self._budget.release(again)

    def read_submitted(self, names: Collection[str]) -> Iterator[list[Request]]:
        """These requests, all of which are in batches, a few at a time."""
        left = len(names)
        for number in sorted({self.submitted[name] for name in names}):
            for block in self._readers[number]():
                found = [request for request in block if request.key in names]
                left -= len(found)
                if found:
                    yield found
                if not left:
                    return

    def fill(self, file: BinaryIO, number: int, most: int) -> list[str]:
        """Write at most so many waiting requests to a model as lines of a batch, as many as the budget allows, and
        return their keys."""
        names: list[str] = []
        size, budget = 0, self._budget
        self.refused.pop(number, None)
        for request in itertools.chain.from_iterable(self._readers[number]()):
            if request.key not in self.waiting:
                continue
            line = request_line(request, self._endpoint)
            size += len(line)
            if len(names) == min(most, MAX_REQUESTS) or (names and size > MAX_BYTES):
                break
            if budget is not None and not budget.reserve([request]):
                if not names:
                    self.refused[number] = request
                break
            names.append(request.key)
            file.write(line)
        return names


class BatchResults:
    """What became of the requests of a finished batch, by the lines of its `replies`. `tries` counts for each request
    the batches that had no reply for it.

    After `outcomes`, `unserved` are the keys without a reply that can be served, `again` requests go into another
    batch, `why` in words, and `fatal` is why all others would fail, too.
    """

    def __init__(
        self,
        batch: RemoteBatch,
        keys: Iterable[str],
        replies: Mapping[str, bytes],
        endpoint: Endpoint,
        tries: Counter[str],
    ) -> None:
        self._batch, self._replies, self._endpoint, self._tries = batch, replies, endpoint, tries
        self.unserved = {name for name in keys if name not in replies or not is_reply(replies[name])}
        self.again, self.why, self.fatal = 0, MISSING.get(batch.status, "no reply in the batch"), ""
        self._missing = Fault("retry", self.why)

    def outcomes(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Completion]]:
        """Requests of the batch with their replies, or the records of their failures, unless they go into another."""
        for request in requests:
            reply = self._outcome(request)
            if reply is None or reply.finish not in SERVED:
                self.unserved.add(request.key)
            if reply is not None:
                yield request, reply

    def _outcome(self, request: Request) -> Completion | None:
        name = request.key
        there = name in self._replies
        outcome = parse_reply(self._replies[name], request, self._endpoint) if there else self._missing
        if isinstance(outcome, Completion):
            return outcome
        if outcome.what == "refused":
            return Completion("", "refused", outcome.reason)
        if outcome.what == "stop":
            self.fatal = self.fatal or outcome.reason
        elif there or self._batch.status != "failed":
            self._tries[name] += 1
            if outcome.what == "row" or self._tries[name] >= TRIES:
                return Completion("", "failed", outcome.reason)
            self.again, self.why = self.again + 1, outcome.reason
        return None
