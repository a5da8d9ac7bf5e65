"""Requests through the Batch API of an endpoint: the other way to the same replies, for less money.

Each step of a batch is in a write-ahead log (`lema.completions.batch_records`) before the next, so the process may end
at any moment: its batches run on, and the next process takes them over. Replies are handed out as those of an endpoint
that is asked online, and every request is checked off: what a batch leaves without a reply goes into the next one.
"""

import math
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path

from lema.completions.batch_client import FINISHED, MAX_REQUESTS, BatchCallError, BatchClient, RemoteBatch
from lema.completions.batch_records import BatchRecord, create_record, find_records, records_folder, records_lock
from lema.completions.batch_requests import RequestPool
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
GIVE_UP = 26 * 3600.0  # a queue that stays full: a batch that fills it is over by then
DAY = 24 * 3600.0

UNSURE = 3  # batches in a row whose creation had no answer


class BatchDriver:
    """The requests to one model, which `read` gives in blocks, in the same order each time. `progress` is called with
    the state of all batches. One at a time is validated; those of other processes are waited for, too.

    Raises:
        RunError: the model is not of the backend `openai`, whose requests this endpoint takes.
    """

    def __init__(
        self,
        model: Model,
        read: Callable[[], Iterable[list[Request]]],
        endpoint: Endpoint,
        stop: threading.Event,
        progress: Callable[[str], None],
        budget: BudgetTracker | None = None,
    ) -> None:
        self._model, self._where, self._endpoint = model, f"endpoint {model.endpoint}", endpoint
        self._read, self._stop, self._progress, self._budget = read, stop, progress, budget
        self._driven: dict[Path, BatchRecord] = {}
        self._foreign: list[BatchRecord] = []  # driven by other processes
        # The queue: what fits into a batch, when the next one may be tried, the last wait, and since when it is full.
        self._most, self._not_before, self._pause, self._full_since = MAX_REQUESTS, 0.0, 0.0, math.inf
        self._unsure = 0  # creations in a row that had no answer
        if model.backend != "openai":
            made = f"in batches, which the backend {model.backend} does not make"
            raise RunError(f"model {model.label!r}: {self._where} is asked {made}")

    def stream(self) -> Generator[Answered, None, None]:
        """Blocks of requests with their replies, as batches end, until every request has one, `stop` is set, or the
        budget allows none of the rest and nothing is in flight that could make room.

        Raises:
            RunError: nothing more can be had from the endpoint; its key is not in the environment; the disk is full or
                not writable.
        """
        self._client = BatchClient(self._model, self._endpoint)
        pool = self._pool = RequestPool(self._read, self._endpoint, self._budget)
        pause, before = FIRST_POLL, ""
        try:
            while pool and not self._stop.is_set():
                yield from self._round()
                # What is in flight makes room in the budget when it is answered, here or elsewhere.
                if pool.refused and not (self._driven or self._foreign) and not pool.wait_for_room(self._stop):
                    return
                state = self._state()
                self._progress(state)
                pause = min(pause * 1.5, LONGEST_POLL) if state == before else FIRST_POLL
                before = state
                if pool:
                    self._stop.wait(pause)
        finally:
            for record in self._driven.values():
                record.release()
            self._client.close()

    def _state(self) -> str:
        """Where batches are, those of other processes too, in a few words."""
        counts = Counter(one.seen.status if one.seen else "validating" for one in self._driven.values())
        counts["of another process"] = len(self._foreign)
        counts["requests done"] = sum(one.seen.done for one in self._driven.values() if one.seen)
        parts = [f"{count} {what}" for what, count in counts.items() if count]
        parts += ["the queue is full"] * (self._not_before > time.monotonic())
        return f"{self._where}: batches: {', '.join(parts) or 'none'}"

    def _round(self) -> Iterator[Answered]:
        """Advance every batch by a step, and submit what waits."""
        if self._foreign or not self._driven:
            with records_lock():
                self._adopt()
        for record in [*self._driven.values(), None]:
            try:
                if record is not None:
                    yield from self._advance(record)
                elif all(one.seen for one in self._driven.values()) and time.monotonic() >= self._not_before:
                    self._submit()
            except BatchCallError as error:
                if self._stop.is_set():
                    return
                if self._client.hopeless(error):
                    runs_on = "; what was submitted runs on, and the next run fetches it" * bool(self._driven)
                    raise self._unusable(f"{error}{runs_on}") from error
                self._progress(f"{self._where}: {error}")
                self._stop.wait(FIRST_POLL if error.fault.wait is None else error.fault.wait)

    def _adopt(self) -> None:
        """Take over what was submitted before, by processes that are gone. Called with the records' lock."""
        for record in self._foreign:
            self._pool.uncover(record.covered)
        self._foreign = []
        for record in find_records(self._endpoint.url, self._pool.waiting):
            self._pool.cover(record.covered)
            if record.ledger is None:
                self._foreign.append(record)
            else:
                self._driven[record.path] = record
                self._notify(f"a batch that was submitted before, {len(record.keys)} requests, is fetched")

    def _forget(self, record: BatchRecord) -> None:
        """Nothing will come of a batch: its requests go into another one."""
        self._pool.uncover(record.covered)
        record.delete()
        del self._driven[record.path]

    def _submit(self) -> None:
        """Put what waits into a batch: created, uploaded, submitted."""
        if not self._pool.waiting or self._stop.is_set():
            return
        with tempfile.TemporaryFile(dir=records_folder()) as file:
            with records_lock():
                self._adopt()
                names = self._pool.write(file, self._most)
                if not names:
                    return
                record = create_record(self._endpoint.url, names)
            self._driven[record.path] = record
            self._pool.cover(record.covered)
            file.seek(0)
            try:
                record.note({"file": self._client.upload(record.path.name, file)})
                record.note({"batch": self._create(record).id})
            except BatchCallError as error:
                if record.file and error.maybe_done:
                    # Nobody knows whether there is a batch: it is looked for.
                    self._unsure += 1
                    if self._unsure < UNSURE:
                        return
                    raise self._unusable(f"{error.fault.reason}, when it was to make a batch") from error
                self._forget(record)
                if not error.queue_full:
                    raise
                self._back_off(len(names))
                return
        self._unsure = 0
        self._notify(
            f"batch {record.batch} of {len(names)} requests is submitted; it runs on when this process ends, and the "
            "next run fetches its replies"
        )

    def _create(self, record: BatchRecord) -> RemoteBatch:
        """A batch of an uploaded file, which may not be known everywhere at once."""
        deadline, pause = time.monotonic() + SETTLE, FIRST_POLL / 5
        while True:
            try:
                return self._client.create(str(record.file))
            except BatchCallError as error:
                if not error.not_ready or time.monotonic() > deadline or self._stop.wait(pause):
                    raise
            pause *= 2

    def _back_off(self, size: int) -> None:
        """There was no room for a batch of this size: half as much, after an exponential backoff."""
        now = time.monotonic()
        self._most = max(1, min(size, self._most) // 2)
        self._pause = min(2 * self._pause, LONGEST_FULL) or FIRST_FULL
        self._not_before, self._full_since = now + self._pause, min(self._full_since, now)
        if now - self._full_since > GIVE_UP:
            raise self._unusable(f"{self._where} takes no batch: its queue is full")
        self._notify(f"its queue has no place for a batch of {size} requests; a smaller one follows later")

    def _advance(self, record: BatchRecord) -> Iterator[Answered]:
        """Look what has become of a batch, and hand out its replies when it is finished."""
        client, named = self._client, record.batch
        batch, listed = None, True
        try:
            batch = client.look(named) if named else client.find(record.file, record.touched - DAY)
        except BatchCallError as error:
            if not error.not_offered:
                raise
            listed = False
        if batch is not None and not named:
            record.note({"batch": batch.id})
        if batch is not None and batch.status not in FINISHED:
            if batch.status != "validating":
                record.seen, self._full_since = batch, math.inf
            return
        record.due_since = min(record.due_since, time.monotonic())
        patient = time.monotonic() - record.due_since < SETTLE
        if batch is not None and (replies := client.download(batch, patient=patient)) is not None:
            yield from self._collect(record, batch, replies)
        elif record.unanswered is not None or not (named or patient or not listed):
            self._forget(record)
        elif not patient:
            # It may have been paid for: only a person gives it up.
            raise self._unusable(
                f"{self._where} does not give batch {record.batch or f'of {record.file}'}; if it is lost, "
                f"delete {record.path} to ask for its {len(record.keys)} requests again"
            )

    def _collect(self, record: BatchRecord, batch: RemoteBatch, replies: dict[str, bytes]) -> Iterator[Answered]:
        """Hand out the replies that somebody waits for, and check off every request of the batch."""
        wanted, unserved = record.covered & self._pool.submitted, {*(record.unanswered or ())}
        again, fatal = list[str](), ""
        for block in self._pool.read(wanted):
            done = list[tuple[Request, Completion]]()
            for request in block:
                outcome = self._pool.outcome(request, replies.get(request.key), batch.status)
                if isinstance(outcome, Completion):
                    done.append((request, outcome))
                elif outcome.what == "stop":
                    fatal = outcome.reason
                else:
                    again.append(outcome.reason)
                if isinstance(outcome, Fault) or outcome.finish not in SERVED:
                    unserved.add(request.key)
            if done:
                self._pool.submitted.difference_update([request.key for request, _ in done])
                yield [request for request, _ in done], [reply for _, reply in done]
        unserved |= record.keys - replies.keys()
        record.note({"left": sorted(unserved)})
        # Not by the record: others may be in later batches by now.
        self._pool.uncover(wanted)
        del self._driven[record.path]
        record.release() if record.covered else record.delete()
        if fatal:
            raise self._unusable(fatal)
        if batch.status == "failed" and batch.queue_full:
            self._back_off(len(record.keys))
        elif batch.status == "failed" and batch.problem is not None:
            raise self._unusable(f"{self._where} refuses a batch ({batch.problem})")
        else:  # it has left the queue
            self._not_before, self._pause, self._most = 0.0, 0.0, min(2 * self._most, MAX_REQUESTS)
        if again and batch.status != "failed":
            missing = f"{len(again)} of {len(record.keys)} replies are missing ({again[-1]})"
            self._notify(f"{missing}; they are asked for again")

    def _unusable(self, why: str) -> RunError:
        """Nothing more can be had from the endpoint."""
        return RunError(f"{self._model.label}: {why}; what was bought is kept")

    def _notify(self, text: str) -> None:
        print(f"{self._where}: {text}", file=sys.stderr, flush=True)  # noqa: T201
