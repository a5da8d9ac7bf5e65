"""Requests through the Batch API of an endpoint: the other way to the same replies, for less money.

Each step of a batch is in a write-ahead log (`lema.completions.batch_records`) before the next, so the process may end
at any moment: its batches run on, and the next process takes them over. Replies are handed out as those of an endpoint
that is asked online, and every request is checked off: what a batch leaves without a reply goes into the next one.
"""

import itertools
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from lema.completions.batch_client import (
    FINISHED,
    MAX_BYTES,
    MAX_REQUESTS,
    BatchCallError,
    BatchClient,
    RemoteBatch,
    parse_reply,
    request_line,
)
from lema.completions.batch_records import BatchRecord, create_record, find_records, records_folder, records_lock
from lema.completions.budget import BudgetTracker
from lema.completions.online import Answered
from lema.completions.packs import SERVED
from lema.errors import RunError
from lema.models.types import Completion, Fault, Model, Request
from lema.recipe.params import Endpoint

# In seconds.
FIRST_POLL, LONGEST_POLL = 5.0, 60.0  # between two looks, the longer the less happens
FIRST_FULL, LONGEST_FULL = 60.0, 600.0  # before a full queue is tried again
SETTLE = 60.0  # after which an endpoint surely shows what it was sent
OUTAGE_PATIENCE = 900.0  # with an endpoint that does not answer
GIVE_UP = 26 * 3600.0  # a queue that stays full: a batch that fills it is over by then

UNSURE = 3  # batches in a row whose creation had no answer
TRIES = 3  # batches that a request is put into before it has failed
NOT_OFFERED = (404, 405, 501)  # the status of what an endpoint does not have
MISSING = {"expired": "the batch expired", "failed": "the batch failed", "cancelled": "the batch was cancelled"}


class BatchDriver:
    """The requests to one model behind the endpoint named `where`, which `read` gives in blocks, in the same order each
    time. `progress` is called with the state of all batches. One batch at a time is validated; one that another process
    drives is waited for, too.

    Raises:
        RunError: the model is not of the backend `openai`, whose requests this endpoint takes.
    """

    def __init__(
        self,
        model: Model,
        read: Callable[[], Iterable[list[Request]]],
        where: str,
        endpoint: Endpoint,
        stop: threading.Event,
        progress: Callable[[str], None],
        budget: BudgetTracker | None = None,
    ) -> None:
        if model.backend != "openai":
            raise RunError(
                f"model {model.label!r}: endpoint {where} is asked in batches, which the backend {model.backend} "
                "does not make"
            )
        self._model, self._read, self._where, self._endpoint = model, read, where, endpoint
        self._stop, self._progress, self._budget = stop, progress, budget
        # Keys of requests without a reply, in no batch and in one; the first that the budget did not allow, if that was
        # so of all; of each the batches that had no reply for it.
        self._waiting, self._submitted = set[str](), set[str]()
        self._refused: Request | None = None
        self._tries: Counter[str] = Counter()
        # Batches that this process drives, and that others do.
        self._driven: dict[Path, BatchRecord] = {}
        self._foreign: list[BatchRecord] = []
        # The queue of the model: requests that fit into a batch, when the next may be tried, how long the last wait for
        # room was, and since when there is none. Times are those of `time.monotonic`, in seconds.
        self._most, self._not_before, self._pause = MAX_REQUESTS, 0.0, 0.0
        self._full_since: float | None = None
        # Calls: since when they fail, whether any had success, and how many creations in a row had no answer.
        self._failing_since: float | None = None
        self._reached, self._unsure = False, 0

    def stream(self) -> Generator[Answered, None, None]:
        """Blocks of requests with their replies, as batches end, until every request has one, `stop` is set, or the
        budget allows none of the rest and nothing is in flight that could make room.

        Raises:
            RunError: nothing more can be had from the endpoint; its key is not in the environment; the disk is full or
                not writable.
        """
        self._client = BatchClient(self._model, self._endpoint)
        self._waiting = {request.key for block in self._read() for request in block}
        pause, before, last_try = FIRST_POLL, "", False
        try:
            while (self._waiting or self._submitted) and not self._stop.is_set():
                yield from self._round()
                idle = self._refused is not None and not (self._driven or self._foreign)
                if idle and last_try:
                    return
                # What is in flight elsewhere may make room in the budget when it is answered.
                asked = [self._refused] if idle and self._refused else []
                last_try = idle and not (self._budget and self._budget.wait_for_room(asked, self._stop))
                state = self._state()
                self._progress(f"{self._where}: {state}")
                pause = min(pause * 1.5, LONGEST_POLL) if state == before else FIRST_POLL
                before = state
                if self._waiting or self._submitted:
                    self._stop.wait(pause)
        finally:
            for record in self._driven.values():
                record.release()
            self._client.close()

    def _state(self) -> str:
        """Where batches are, those of other processes too, in a few words."""
        seen = [record.seen for record in self._driven.values()]
        counts = Counter("validating" if batch is None else batch.status for batch in seen)
        parts = [f"{count} {status}" for status, count in sorted(counts.items())]
        if done := sum(batch.done for batch in seen if batch):
            parts.append(f"{done} requests done")
        if self._foreign:
            parts.append(f"{len(self._foreign)} of another process")
        if self._not_before > time.monotonic():
            parts.append("the queue is full")
        return f"batches: {', '.join(parts) or 'none'}"

    def _round(self) -> Iterator[Answered]:
        """Advance every batch by a step, and submit what waits."""
        if self._foreign or not self._driven:
            with records_lock():
                self._adopt()
        for record in [*self._driven.values(), None]:
            try:
                if record is not None:
                    yield from self._advance(record)
                    self._failing_since, self._reached = None, True
                elif all(one.seen for one in self._driven.values()) and time.monotonic() >= self._not_before:
                    self._submit()
            except BatchCallError as error:
                self._wait_out(error)

    def _adopt(self) -> None:
        """Take over what was submitted before, by processes that are gone. Called with the records' lock."""
        for record in self._foreign:
            self._uncover(record.covered)
        self._foreign = []
        for record in find_records(self._endpoint.url, self._waiting):
            self._cover(record)
            if record.ledger is None:
                self._foreign.append(record)
            else:
                self._driven[record.path] = record
                self._notify(f"a batch that was submitted before, {len(record.keys)} requests, is fetched")

    def _cover(self, record: BatchRecord) -> None:
        """The requests of this record are in its batch."""
        self._submitted |= self._waiting & record.covered
        self._waiting -= record.covered

    def _uncover(self, names: Iterable[str]) -> None:
        """Those of these requests that have no reply go into another batch."""
        again = self._submitted.intersection(names)
        self._submitted -= again
        self._waiting |= again
        if self._budget is not None:
            self._budget.release(again)

    def _forget(self, record: BatchRecord) -> None:
        """Nothing will come of a batch: its requests go into another one."""
        self._uncover(record.covered)
        record.delete()
        del self._driven[record.path]

    def _submit(self) -> None:
        """Put what waits into a batch: created, uploaded, submitted."""
        if not self._waiting or self._stop.is_set():
            return
        with tempfile.TemporaryFile(dir=records_folder()) as file:
            with records_lock():
                self._adopt()
                names = self._fill(file)
                if not names:
                    return
                record = create_record(self._endpoint.url, names)
            self._driven[record.path] = record
            self._cover(record)
            file.seek(0)
            try:
                record.note({"file": self._client.upload(f"{record.token}.jsonl", file)})
                self._create(record)
            except BatchCallError as error:
                # Nothing was submitted.
                self._forget(record)
                if not error.queue_full:
                    raise
                self._back_off(len(names))

    def _fill(self, file: BinaryIO) -> list[str]:
        """Write waiting requests as lines of a batch, as many as fit and the budget allows, and return their keys."""
        names: list[str] = []
        size, self._refused = 0, None
        for request in itertools.chain.from_iterable(self._read()):
            if request.key not in self._waiting:
                continue
            line = request_line(request, self._endpoint)
            size += len(line)
            if len(names) == min(self._most, MAX_REQUESTS) or (names and size > MAX_BYTES):
                break
            if self._budget is not None and not self._budget.reserve([request]):
                self._refused = None if names else request
                break
            names.append(request.key)
            file.write(line)
        return names

    def _create(self, record: BatchRecord) -> None:
        """Have an uploaded file answered. Where nobody knows whether that was done, the batch is looked for later."""
        begun, pause = time.monotonic(), FIRST_POLL / 5
        while True:
            try:
                record.note({"batch": self._client.create(str(record.file), record.token).id})
            except BatchCallError as error:
                if error.not_ready and time.monotonic() - begun < SETTLE and not self._stop.wait(pause):
                    pause *= 2
                    continue
                if not error.maybe_done:
                    raise
                record.note({})
                self._unsure += 1
                if self._unsure >= UNSURE:
                    raise self._unusable(f"{error.fault.reason}, when it was to make a batch") from error
                return
            break
        self._failing_since, self._reached, self._unsure = None, True, 0
        self._notify(
            f"batch {record.batch} of {len(record.keys)} requests is submitted; it runs on when this process ends, and "
            "the next run fetches its replies"
        )

    def _back_off(self, size: int) -> None:
        """There was no room for a batch of this size: half as much, after an exponential backoff."""
        now = time.monotonic()
        self._most = max(1, min(size, self._most) // 2)
        self._pause = min(2 * self._pause, LONGEST_FULL) or FIRST_FULL
        self._not_before, self._full_since = now + self._pause, self._full_since or now
        if now - self._full_since > GIVE_UP:
            raise self._unusable(f"endpoint {self._where} takes no batch: its queue is full")
        self._notify(f"its queue has no place for a batch of {size} requests; a smaller one follows later")

    def _advance(self, record: BatchRecord) -> Iterator[Answered]:
        """Look what has become of a batch, and hand out its replies when it is finished."""
        client, named = self._client, record.batch is not None
        try:
            since = time.time() - record.age - 24 * 3600
            batch = client.look(str(record.batch)) if named else client.find(record.token, str(record.file), since)
        except BatchCallError as error:
            if error.status not in NOT_OFFERED:
                raise
            if not named:
                raise self._lost(record, f"lists no batches, so that of {record.file} cannot be found") from error
            batch = None
        if batch is None:
            if record.unanswered is not None or (not named and record.age > SETTLE):
                self._forget(record)
            elif record.age > SETTLE:
                raise self._lost(record, f"knows no batch {record.batch}")
            return
        if not named:
            record.note({"batch": batch.id})
        if batch.status == "validating":
            return
        record.seen = batch
        if batch.status not in FINISHED:
            self._full_since = None
            return
        record.finished_since = record.finished_since or time.monotonic()
        patient = time.monotonic() - record.finished_since < SETTLE
        replies = client.download(batch, patient=patient)
        if replies is not None:
            yield from self._collect(record, batch, replies)
        elif record.unanswered is not None:
            self._forget(record)
        elif not patient:
            raise self._lost(record, f"does not give the replies of batch {batch.id}")

    def _collect(self, record: BatchRecord, batch: RemoteBatch, replies: dict[str, bytes]) -> Iterator[Answered]:
        """Hand out the replies that somebody waits for, and check off every request of the batch."""
        unserved = {*(record.unanswered or ()), *(record.keys - replies.keys())}
        wanted, again, fatal = record.covered & self._submitted, list[str](), ""
        for block in self._read():
            done = list[tuple[Request, Completion]]()
            for request in (one for one in block if one.key in wanted):
                outcome = self._outcome(request, replies.get(request.key), batch.status)
                if isinstance(outcome, Completion):
                    done.append((request, outcome))
                elif outcome.what == "stop":
                    fatal = outcome.reason
                else:
                    again.append(outcome.reason)
                if isinstance(outcome, Fault) or outcome.finish not in SERVED:
                    unserved.add(request.key)
            if done:
                self._submitted.difference_update([request.key for request, _ in done])
                yield [request for request, _ in done], [reply for _, reply in done]
        record.note({"left": sorted(unserved)})
        # Not by the record: others may be in later batches by now.
        self._uncover(wanted)
        del self._driven[record.path]
        record.release() if record.covered else record.delete()
        if fatal:
            raise self._unusable(fatal)
        if batch.status == "failed" and batch.queue_full:
            self._back_off(len(record.keys))
        elif batch.status == "failed" and batch.problem is not None:
            raise self._unusable(f"endpoint {self._where} refuses a batch ({batch.problem})")
        else:  # it has left the queue
            self._not_before, self._pause, self._most = 0.0, 0.0, min(2 * self._most, MAX_REQUESTS)
        if again and batch.status != "failed":
            missing = f"{len(again)} of {len(record.keys)} replies are missing ({again[-1]})"
            self._notify(f"{missing}; they are asked for again")

    def _outcome(self, request: Request, line: bytes | None, status: str) -> Completion | Fault:
        """The reply to a request of a batch with this status, or why it has none yet."""
        missing = Fault("retry", MISSING.get(status, "no reply in the batch"))
        outcome = parse_reply(line, request, self._endpoint) if line else missing
        if isinstance(outcome, Completion) or outcome.what == "stop":
            return outcome
        if outcome.what == "refused":
            return Completion("", "refused", outcome.reason)
        self._tries[request.key] += line is not None or status != "failed"
        if outcome.what == "row" or self._tries[request.key] >= TRIES:
            return Completion("", "failed", outcome.reason)
        return outcome

    def _wait_out(self, error: BatchCallError) -> None:
        """Wait for a fault that passes, as long as it has not been there for too long."""
        fault = error.fault
        if self._stop.is_set():
            return
        if error.status in NOT_OFFERED:
            raise self._unusable(f"endpoint {self._where} has no Batch API, or its url is wrong ({error.status})")
        if fault.what not in ("retry", "limit"):
            raise self._unusable(fault.reason)
        self._failing_since = self._failing_since or time.monotonic()
        patience = OUTAGE_PATIENCE if self._reached or not fault.unsent else FIRST_POLL
        if time.monotonic() - self._failing_since > patience:
            raise self._unusable(f"{fault.reason}; what was submitted runs on, and the next run fetches it")
        self._progress(f"{self._where}: {fault.reason}")
        self._stop.wait(FIRST_POLL if fault.wait is None else fault.wait)

    def _unusable(self, why: str) -> RunError:
        """Nothing more can be had from the endpoint."""
        return RunError(f"{self._model.label}: {why}; what was bought is kept")

    def _lost(self, record: BatchRecord, why: str) -> RunError:
        """A batch may have been paid for and cannot be fetched: only a person gives it up."""
        return self._unusable(
            f"endpoint {self._where} {why}; if it is lost, delete {record.path} to ask for its {len(record.keys)} "
            "requests again"
        )

    def _notify(self, text: str) -> None:
        print(f"endpoint {self._where}: {text}", file=sys.stderr, flush=True)  # noqa: T201
