"""Requests through the Batch API of an endpoint: the other way to the same replies, for less money.

A batch goes from created to uploaded, submitted, finished and collected; each step is in a write-ahead record
(`lema.completions.batch_records`) before the next, so the process may end at any moment: its batches run on, and the
next process takes them over. Replies are handed out as those of an endpoint that is asked online, and every request is
checked off: what a batch leaves without a reply goes into the next one.
"""

import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lema.completions import batch_queue
from lema.completions.batch_client import FINISHED, BatchCallError, BatchClient, RemoteBatch
from lema.completions.batch_queue import BatchResults, ModelQueue, RequestPool, RequestReader, UnusableEndpoint
from lema.completions.batch_records import BatchRecord, create_record, find_records, records_folder, records_lock
from lema.completions.budget import BudgetTracker
from lema.completions.online import Answered
from lema.errors import RunError
from lema.models.types import Model
from lema.recipe.params import Endpoint

NOT_OFFERED = (404, 405, 501)  # the status of what an endpoint does not have


@dataclass(slots=True)
class Job:
    """A batch that this process drives, of the model with this number. `seen` is how it was when it was last looked at,
    None before it was accepted. Times are those of `time.monotonic`, in seconds."""

    record: BatchRecord
    number: int
    seen: RemoteBatch | None = None
    finished_since: float | None = None
    failing_since: float | None = None


class BatchDriver:
    """What one stage waits for at one endpoint, named `where`: for each of some models, its requests, which are read in
    blocks in the same order each time. `progress` is called with the state of all batches.

    A record that another process drives is waited for, too. Of a model, one batch at a time is validated.

    Raises:
        RunError: a model is not of the backend `openai`, whose requests this endpoint takes.
    """

    def __init__(
        self,
        models: Sequence[Model],
        readers: Sequence[RequestReader],
        where: str,
        endpoint: Endpoint,
        stop: threading.Event,
        progress: Callable[[str], None],
        budget: BudgetTracker | None = None,
    ) -> None:
        if other := next((model for model in models if model.backend != "openai"), None):
            raise RunError(
                f"model {other.label!r}: endpoint {where} is asked in batches, which the backend {other.backend} "
                "does not make"
            )
        self._models, self._readers, self._where, self._endpoint = models, readers, where, endpoint
        self._stop, self._progress, self._budget = stop, progress, budget
        self._tries: Counter[str] = Counter()  # of each request the batches that had no reply for it
        self._jobs: dict[Path, Job] = {}
        self._foreign: list[BatchRecord] = []

    def stream(self) -> Generator[Answered, None, None]:
        """Blocks of requests with their replies, as batches end, until every request has one, `stop` is set, or the
        budget allows none of the rest and nothing is in flight that could make room.

        Raises:
            RunError: nothing more can be had from the endpoint; its key is not in the environment; the disk is full or
                not writable.
        """
        pool = self._pool = RequestPool(self._readers, self._endpoint, self._budget)
        self._queues = [ModelQueue(BatchClient(model, self._endpoint)) for model in self._models]
        pause, before, last_try = batch_queue.FIRST_POLL, "", False
        try:
            while pool and not self._stop.is_set():
                yield from self._round()
                idle = pool.over_budget and not (self._jobs or self._foreign)
                if not pool or (idle and last_try):
                    return
                # What is in flight elsewhere may make room in the budget when it is answered.
                refused = [*pool.refused.values()][:1]
                last_try = idle and not (self._budget and self._budget.wait_for_room(refused, self._stop))
                state = self._state()
                self._progress(f"{self._where}: {state}")
                pause = min(pause * 1.5, batch_queue.LONGEST_POLL) if state == before else batch_queue.FIRST_POLL
                before = state
                if pool:
                    self._stop.wait(pause)
        except UnusableEndpoint as error:
            asked = ", ".join(model.label for model in self._models)
            raise RunError(f"{asked}: {error}; what was bought is kept") from None
        finally:
            for job in self._jobs.values():
                job.record.release()
            for queue in self._queues:
                queue.client.close()

    def _state(self) -> str:
        """Where batches are, those of other processes too, in a few words."""
        seen = [job.seen for job in self._jobs.values()]
        counts = Counter("validating" if batch is None else batch.status for batch in seen)
        parts = [f"{count} {status}" for status, count in sorted(counts.items())]
        if done := sum(batch.done for batch in seen if batch):
            parts.append(f"{done} requests done")
        if self._foreign:
            parts.append(f"{len(self._foreign)} of another process")
        if any(queue.not_before > time.monotonic() for queue in self._queues):
            parts.append("the queue is full")
        return f"batches: {', '.join(parts) or 'none'}"

    def _round(self) -> Iterator[Answered]:
        """Advance every batch by a step, and submit what waits."""
        if self._foreign or not self._jobs:
            with records_lock():
                self._adopt()
        for job in list(self._jobs.values()):
            try:
                yield from self._advance(job)
                job.failing_since = None
            except BatchCallError as error:
                self._wait_out(error, job)
        for number in sorted(set(self._pool.waiting.values())):
            validating = any(job.number == number and job.seen is None for job in self._jobs.values())
            if not validating and time.monotonic() >= self._queues[number].not_before and not self._stop.is_set():
                self._submit(number)

    def _adopt(self) -> None:
        """Take over what was submitted before, by processes that are gone. Called with the records' lock."""
        pool = self._pool
        for record in self._foreign:
            pool.uncover(record.covered)
        self._foreign = []
        for record in find_records(self._endpoint.url, pool.waiting):
            number = next(pool.waiting[name] for name in record.covered if name in pool.waiting)
            pool.cover(record)
            if record.log is None:
                self._foreign.append(record)
            else:
                self._jobs[record.path] = Job(record, number)
                self._notify(f"a batch that was submitted before, {len(record.keys)} requests, is fetched")

    def _submit(self, number: int) -> None:
        """Put what waits for a model into a batch: created, uploaded, submitted."""
        queue = self._queues[number]
        with tempfile.TemporaryFile(dir=records_folder()) as file:
            with records_lock():
                self._adopt()
                names = self._pool.fill(file, number, queue.most)
                if not names:
                    return
                record = create_record(self._endpoint.url, names)
            job = self._jobs[record.path] = Job(record, number)
            self._pool.cover(record)
            file.seek(0)
            try:
                submitted = queue.submit(record, file, self._stop)
            except BatchCallError as error:
                # Nothing was submitted.
                self._forget(job)
                if error.queue_full:
                    self._back_off(job)
                else:
                    self._wait_out(error, queue)
                return
        if submitted:
            self._notify(
                f"batch {record.batch} of {len(names)} requests is submitted; it runs on when this process ends, and "
                "the next run fetches its replies"
            )

    def _back_off(self, job: Job) -> None:
        size = len(job.record.keys)
        if not self._queues[job.number].back_off(size):
            raise UnusableEndpoint(f"endpoint {self._where} takes no batch: its queue is full")
        self._notify(f"its queue has no place for a batch of {size} requests; a smaller one follows later")

    def _forget(self, job: Job) -> None:
        """Nothing will come of a batch: its requests go into another one."""
        self._pool.uncover(job.record.covered)
        job.record.delete()
        del self._jobs[job.record.path]

    def _advance(self, job: Job) -> Iterator[Answered]:
        """Look what has become of a batch, and hand out its replies when it is finished."""
        record, queue = job.record, self._queues[job.number]
        if record.batch is None:
            try:
                found = queue.client.find(record.token, str(record.file), time.time() - record.age - 24 * 3600)
            except BatchCallError as error:
                if error.status not in NOT_OFFERED:
                    raise
                raise self._lost(record, f"lists no batches, so that of {record.file} cannot be found") from error
            if found is None:
                if record.age > batch_queue.SETTLE:
                    self._forget(job)
                return
            record.note(batch=found.id)
        try:
            batch = queue.client.look(str(record.batch))
        except BatchCallError as error:
            if error.status != 404:
                raise
            if record.unanswered is not None:
                self._forget(job)
            elif record.age > batch_queue.SETTLE:
                raise self._lost(record, f"knows no batch {record.batch}") from error
            return
        if batch.status == "validating":
            return
        job.seen = batch
        if batch.status not in FINISHED:
            queue.full_since = None
            return
        job.finished_since = job.finished_since or time.monotonic()
        patient = time.monotonic() - job.finished_since < batch_queue.SETTLE
        replies = queue.client.download(batch, patient=patient)
        if replies is not None:
            yield from self._collect(job, batch, replies)
        elif record.unanswered is not None:
            self._forget(job)
        elif not patient:
            raise self._lost(record, f"does not give the replies of batch {batch.id}")

    def _lost(self, record: BatchRecord, why: str) -> UnusableEndpoint:
        """A batch may have been paid for and cannot be fetched: only a person gives it up."""
        return UnusableEndpoint(
            f"endpoint {self._where} {why}; if it is lost, delete {record.path} to ask for its {len(record.keys)} "
            "requests again"
        )

    def _collect(self, job: Job, batch: RemoteBatch, replies: dict[str, bytes]) -> Iterator[Answered]:
        """Hand out the replies that somebody waits for, and check off every request of the batch."""
        record, pool = job.record, self._pool
        results = BatchResults(batch, record.keys, replies, self._endpoint, self._tries)
        wanted = {name for name in record.covered if name in pool.submitted}
        for block in pool.read_submitted(wanted):
            if found := list(results.outcomes(block)):
                for request, _ in found:
                    del pool.submitted[request.key]
                yield [request for request, _ in found], [reply for _, reply in found]
        record.note(unanswered=results.unserved)
        # Not by the record: others may be in later batches by now.
        pool.uncover(wanted)
        if record.covered:
            del self._jobs[record.path]
            record.release()
        else:
            self._forget(job)
        if results.fatal:
            raise UnusableEndpoint(results.fatal)
        if batch.status == "failed" and batch.queue_full:
            self._back_off(job)
        elif batch.status == "failed" and batch.problem is not None:
            raise UnusableEndpoint(f"endpoint {self._where} refuses a batch ({batch.problem})")
        else:
            self._queues[job.number].advanced()
        if results.again:
            self._notify(
                f"{results.again} of {len(record.keys)} replies are missing ({results.why}); they are asked for again"
            )

    def _wait_out(self, error: BatchCallError, what: Job | ModelQueue) -> None:
        """Wait for a fault that passes, as long as it has not been there for too long.

        Raises:
            UnusableEndpoint: it does not pass.
        """
        fault = error.fault
        if self._stop.is_set():
            return
        if error.status in NOT_OFFERED:
            raise UnusableEndpoint(f"endpoint {self._where} has no Batch API, or its url is wrong ({error.status})")
        if fault.what not in ("retry", "limit"):
            raise UnusableEndpoint(fault.reason)
        what.failing_since = what.failing_since or time.monotonic()
        unreached = fault.unsent and isinstance(what, ModelQueue) and not what.reached
        patience = batch_queue.FIRST_POLL if unreached else batch_queue.OUTAGE_PATIENCE
        if time.monotonic() - what.failing_since > patience:
            raise UnusableEndpoint(f"{fault.reason}; what was submitted runs on, and the next run fetches it")
        self._progress(f"{self._where}: {fault.reason}")
        self._stop.wait(batch_queue.FIRST_POLL if fault.wait is None else fault.wait)

    def _notify(self, text: str) -> None:
        print(f"endpoint {self._where}: {text}", file=sys.stderr, flush=True)  # noqa: T201
