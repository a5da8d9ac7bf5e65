"""Requests through the Batch API of an endpoint: the other way to the same replies, for less money.

What is on the way stands in records (`lema.engine.submitted`) before it is sent, so the process may end at any
moment: its batches run on, and the next one takes them over. Replies are handed out as those of an endpoint that is
asked online, and every request is checked off: what a batch leaves without a reply goes into the next one.
"""

import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lema.engine import files, submitted
from lema.engine.store import SERVED
from lema.engine.submitted import Record
from lema.engine.work import Reply, encodable
from lema.errors import RunError
from lema.models import Completion, Model, Request, key
from lema.models._batch import (
    MOST_BYTES,
    MOST_REQUESTS,
    OVER,
    Batch,
    Batches,
    Trouble,
    answered,
    custom_id,
    line,
    path_of,
    result,
)
from lema.models.openai import Fault
from lema.params import Endpoint

# All in seconds.
FIRST_POLL, LONGEST_POLL = 5.0, 60.0  # between two looks, the longer the less happens
SETTLE = 60.0  # after which an endpoint surely shows what it was sent
FIRST_FULL, LONGEST_FULL = 60.0, 600.0  # before a full queue is tried again
PATIENCE = 900.0  # with an endpoint that does not answer
GIVE_UP = 26 * 3600.0  # a queue that stays full

TRIES = 3  # batches that a request is put into before it has failed
WHY = {"expired": "the batch expired", "failed": "the batch failed", "cancelled": "the batch was cancelled"}

# The requests to one model, in the same order each time.
Group = Callable[[], Iterable[list[Request]]]


class Over(Exception):
    """Why nothing more can be had from the endpoint."""


@dataclass(slots=True)
class Job:
    """A batch that this process drives, of the group with this number. `over` is when it was first seen to be over."""

    record: Record
    group: int
    seen: Batch | None = None
    over: float | None = None


@dataclass(slots=True)
class Queue:
    """The place for a model's requests at the endpoint: batches of at most so many, none before `until`. `full_since`
    is when the last one found no place, `pause` how long the next such waits, `unsure` how many creations in a row had
    no answer."""

    most: int = MOST_REQUESTS
    until: float = 0.0
    full_since: float | None = None
    pause: float = FIRST_FULL
    unsure: int = 0


class Driver:
    """What one stage waits for at one endpoint. `stream` yields blocks of requests with their replies."""

    def __init__(
        self,
        groups: Sequence[Group],
        where: str,
        endpoint: Endpoint,
        stop: threading.Event,
        say: Callable[[str], None],
    ) -> None:
        self._groups, self._where, self._endpoint, self._stop, self._say = groups, where, endpoint, stop, say
        self._place = submitted.place(endpoint.url)
        self._models: list[Model] = []
        self._apis: list[Batches] = []
        self._queues = [Queue() for _ in groups]
        # Keys without a reply, with the number of their group: in no batch yet, and in one.
        self._open: dict[str, int] = {}
        self._sent: dict[str, int] = {}
        self._tries: Counter[str] = Counter()
        self._jobs: dict[Path, Job] = {}
        self._foreign: list[Record] = []
        self._well = time.monotonic()

    def stream(self) -> Iterator[tuple[list[Request], Reply]]:
        """Blocks with their replies, as batches end, until every request has one or `stop` is set."""
        for number, group in enumerate(self._groups):
            for block in group():
                if len(self._models) == number:
                    self._models.append(block[0].model)
                    self._apis.append(Batches(block[0].model, self._endpoint))
                self._open.update((key(request), number) for request in block)
        pause, before = FIRST_POLL, ""
        try:
            while not self._stop.is_set():
                yield from self._round()
                if not (self._open or self._sent):
                    return
                state = self._state()
                self._say(state)
                pause = min(pause * 1.5, LONGEST_POLL) if state == before else FIRST_POLL
                before = state
                self._stop.wait(pause)
        except Over as over:
            yield [self._first()], Reply([Completion("", "failed", str(over))], str(over))
        finally:
            for job in self._jobs.values():
                job.record.release()

    def _round(self) -> Iterator[tuple[list[Request], Reply]]:
        if self._foreign or not self._jobs:
            with submitted.alone():
                self._adopt()
        for job in list(self._jobs.values()):
            try:
                yield from self._step(job)
            except Trouble as trouble:
                self._wait(trouble)
        waiting = set(self._open.values())
        for number in sorted(waiting):
            busy = any(job.group == number and job.seen is None for job in self._jobs.values())
            if not busy and time.monotonic() >= self._queues[number].until and not self._stop.is_set():
                self._send(number)

    # What is on the way.

    def _adopt(self) -> None:
        """Take over what was sent before, by processes that are gone. What others drive is waited for."""
        for record in self._foreign:
            self._uncover(record)
        self._foreign = []
        for record in submitted.on_the_way(self._place, self._open):
            group = next(self._open[name] for name in record.asked if name in self._open)
            self._cover(record)
            if record.handle is None:
                self._foreign.append(record)
            else:
                self._jobs[record.path] = Job(record, group)
                self._tell(f"a batch of an earlier run, {len(record.keys)} requests, is fetched")

    def _cover(self, record: Record) -> None:
        self._sent.update((name, self._open.pop(name)) for name in record.asked if name in self._open)

    def _uncover(self, record: Record) -> None:
        self._open.update((name, self._sent.pop(name)) for name in record.keys if name in self._sent)

    def _forget(self, job: Job) -> None:
        """Nothing will come of a batch: its requests go into another one."""
        self._uncover(job.record)
        job.record.delete()
        del self._jobs[job.record.path]

    # Sending.

    def _send(self, number: int) -> None:
        """Submit one batch of what is in none yet."""
        with tempfile.TemporaryFile() as file:
            with submitted.alone():
                self._adopt()
                names = self._write(number, file)
                if not names:
                    return
                record = submitted.begin(self._place, names)
            job = self._jobs[record.path] = Job(record, number)
            self._cover(record)
            file.seek(0)
            try:
                record.note("file", self._apis[number].upload(f"{record.token}.jsonl", file))
            except Trouble as trouble:
                self._forget(job)
                if not trouble.full:
                    self._wait(trouble)
                self._hold(number, len(names))
                return
        self._create(job)

    def _write(self, number: int, file: BinaryIO) -> list[str]:
        """Fill a file with requests of a group that are in no batch, and return their keys."""
        names: list[str] = []
        size = 0
        for block in self._groups[number]():
            for request in block:
                name = key(request)
                if name not in self._open:
                    continue
                content = line(name, request, self._endpoint)
                size += len(content)
                if names and (len(names) == self._queues[number].most or size > MOST_BYTES):
                    return names
                names.append(name)
                file.write(content)
        return names

    def _create(self, job: Job) -> None:
        record, queue, api = job.record, self._queues[job.group], self._apis[job.group]
        assert record.file is not None
        begun, pause = time.monotonic(), FIRST_POLL / 5
        while True:
            try:
                batch = api.create(record.file, path_of(self._models[job.group]), record.token)
            except Trouble as trouble:
                if trouble.not_yet and time.monotonic() - begun < SETTLE and not self._stop.wait(pause):
                    pause *= 2
                    continue
                if trouble.unsure:
                    # It may be there all the same: `_step` looks for it.
                    record.touch()
                    queue.unsure += 1
                    if queue.unsure >= TRIES:
                        raise Over(f"{trouble.fault.reason}, when it was to make a batch") from trouble
                    return
                self._forget(job)
                if not trouble.full:
                    self._wait(trouble)
                self._hold(job.group, len(record.keys))
                return
            break
        queue.unsure = 0
        record.note("batch", batch.id)
        self._tell(
            f"batch {batch.id}, {len(record.keys)} requests, is submitted; it runs on when this process ends, "
            "and the next run fetches its replies"
        )

    def _hold(self, number: int, size: int) -> None:
        """There was no place for a batch of this size: later, and a smaller one."""
        queue, now = self._queues[number], time.monotonic()
        queue.most = max(1, min(size, queue.most) // 2)
        queue.until, queue.pause = now + queue.pause, min(queue.pause * 2, LONGEST_FULL)
        queue.full_since = queue.full_since or now
        if now - queue.full_since > GIVE_UP:
            raise Over(f"endpoint {self._where} takes no batch: its queue is full")

    # Fetching.

    def _step(self, job: Job) -> Iterator[tuple[list[Request], Reply]]:
        """Look what has become of a batch, and hand out its replies when it is over."""
        record, api = job.record, self._apis[job.group]
        if record.batch is None:
            assert record.file is not None
            found = api.find(record.token, record.file, time.time() - record.age - 24 * 3600)
            if found is None:
                if record.age > SETTLE:
                    self._forget(job)
                return
            record.note("batch", found.id)
        assert record.batch is not None
        try:
            batch = api.look(record.batch)
        except Trouble as trouble:
            if trouble.status != 404:
                raise
            self._lost(job)
            return
        self._well = time.monotonic()
        if batch.status == "validating":
            return
        job.seen = batch
        if batch.status not in OVER:
            self._queues[job.group].full_since = None
            return
        job.over = job.over or time.monotonic()
        lines = self._lines(job, batch)
        if lines is not None:
            yield from self._collect(job, batch, lines)

    def _lost(self, job: Job) -> None:
        """The endpoint does not know a batch that it made: it was paid for, so nobody but a person gives it up."""
        record = job.record
        if record.left is not None:
            self._forget(job)
        elif record.age > SETTLE:
            raise Over(
                f"endpoint {self._where} knows no batch {record.batch}; if it is lost, delete {record.path} to ask for "
                f"its {len(record.keys)} requests again"
            )

    def _lines(self, job: Job, batch: Batch) -> dict[str, bytes] | None:
        """The lines of its replies and failures by their keys, the first of several; None when the files are not
        there yet."""
        assert job.over is not None
        patient = job.record.left is None and time.monotonic() - job.over < SETTLE
        if patient and batch.done and batch.output is None:
            return None
        lines: dict[str, bytes] = {}
        for file in filter(None, (batch.output, batch.errors)):
            try:
                content = self._apis[job.group].lines(file)
            except Trouble as trouble:
                if trouble.status != 404:
                    raise
                if patient:
                    return None
                continue
            for one in content:
                name = custom_id(one)
                if name in job.record.keys:
                    lines.setdefault(name, one)
        return lines

    def _collect(self, job: Job, batch: Batch, lines: dict[str, bytes]) -> Iterator[tuple[list[Request], Reply]]:
        """Hand out the replies that somebody waits for, and check off every request of the batch."""
        record, queue = job.record, self._queues[job.group]
        wanted = {name for name in record.asked if name in self._sent}
        # Others may want the rest one day.
        left = {name for name in record.keys - wanted if name not in lines or not answered(lines[name])}
        refused = batch.status == "failed" and (batch.full or batch.problem is not None)
        fatal: str | None = None
        again = 0
        for number in sorted({self._sent[name] for name in wanted}):
            for block in self._groups[number]():
                pairs: list[tuple[Request, Completion]] = []
                for request in block:
                    name = key(request)
                    if name not in wanted:
                        continue
                    wanted.remove(name)
                    outcome: Completion | Fault = Fault("retry", WHY.get(batch.status, "no reply in the batch"))
                    if name in lines:
                        outcome = result(lines[name], request, self._endpoint)
                    if isinstance(outcome, Completion) and outcome.finish in SERVED:
                        pairs.append((request, encodable(outcome)))
                        continue
                    left.add(name)
                    if isinstance(outcome, Fault):
                        fatal = fatal or (outcome.reason if outcome.what == "stop" else None)
                        self._tries[name] += not refused
                        failed = self._failed(name, outcome)
                        again += failed is None
                        outcome = failed if failed is not None else outcome
                    if isinstance(outcome, Completion):
                        pairs.append((request, outcome))
                if pairs:
                    for request, _ in pairs:
                        del self._sent[key(request)]
                    yield [request for request, _ in pairs], Reply([reply for _, reply in pairs], None)
                if not wanted:
                    break
        self._end(job, left)
        if fatal is not None:
            raise Over(fatal)
        if batch.full and refused:
            self._hold(job.group, len(record.keys))
            return
        if refused:
            raise Over(f"endpoint {self._where} refuses a batch ({batch.problem})")
        queue.until, queue.pause, queue.most = 0.0, FIRST_FULL, min(2 * queue.most, MOST_REQUESTS)
        if again:
            why = WHY.get(batch.status, "is over")
            self._tell(f"{again} of {len(record.keys)} replies are missing ({why}); they are asked for again")

    def _failed(self, name: str, fault: Fault) -> Completion | None:
        """The record of a failure, None for a request that goes into another batch."""
        if fault.what == "refused":
            return Completion("", "refused", fault.reason)
        if fault.what == "row" or (fault.what != "stop" and self._tries[name] >= TRIES):
            return Completion("", "failed", fault.reason)
        return None

    def _end(self, job: Job, left: set[str]) -> None:
        job.record.note("left", left)
        self._uncover(job.record)
        del self._jobs[job.record.path]
        if job.record.asked:
            job.record.release()
        else:
            job.record.delete()

    # What goes wrong, and what is shown.

    def _wait(self, trouble: Trouble) -> None:
        """Wait for what passes.

        Raises:
            Over: it does not pass.
        """
        fault = trouble.fault
        if trouble.status in (404, 405, 501):
            raise Over(f"endpoint {self._where} has no Batch API, or its url is wrong ({trouble.status})")
        if fault.what not in ("retry", "limit"):
            raise Over(fault.reason)
        if time.monotonic() - self._well > PATIENCE:
            raise Over(f"{fault.reason}; its batches run on, and the next run fetches their replies")
        self._say(f"{self._where}: {fault.reason}")
        self._stop.wait(FIRST_POLL if fault.wait is None else fault.wait)

    def _first(self) -> Request:
        """A request that has no reply."""
        waiting = self._open | self._sent
        return next(one for group in self._groups for block in group() for one in block if key(one) in waiting)

    def _state(self) -> str:
        """Where the batches are, in one line."""
        seen = [job.seen for job in self._jobs.values()]
        counts = Counter("validating" if one is None else one.status for one in seen)
        parts = [f"{count} {status}" for status, count in sorted(counts.items())]
        done = sum(one.done for one in seen if one is not None)
        parts += [f"{done} requests done"] * bool(done)
        parts += [f"{len(self._foreign)} of another process"] * bool(self._foreign)
        parts += ["its queue is full"] * any(queue.until > time.monotonic() for queue in self._queues)
        return f"{self._where}: batches: {', '.join(parts) or 'none'}"

    def _tell(self, text: str) -> None:
        print(f"endpoint {self._where}: {text}", file=sys.stderr, flush=True)  # noqa: T201


def refuse_twice(groups: Sequence[Group], where: str, endpoint: Endpoint) -> None:
    """Before an endpoint is asked online: nothing of it may be on the way in a batch.

    Raises:
        RunError: something is.
    """
    if not any(submitted.folder().glob("*.jsonl")):
        return
    wanted = {key(request) for group in groups for block in group() for request in block}
    count = 0
    with submitted.alone():
        for record in submitted.on_the_way(submitted.place(endpoint.url), wanted):
            count += len(record.asked & wanted) if record.left is None else 0
            record.release()
    if count:
        raise RunError(
            f"{count} requests to endpoint {where} are in batches that were submitted before; with `mode: batch` in "
            f"params.yaml their replies are fetched; delete {submitted.folder()} to pay for them twice"
        )
