"""Requests through the Batch API of an endpoint: the other way to the same replies, for less money.

What is on the way stands in records (`lema.completions.batch_records`) before it is sent, so the process may end at any
moment: its batches run on, and the next one takes them over. Replies are handed out as those of an endpoint that is
asked online, and every request is checked off: what a batch leaves without a reply goes into the next one.
"""

import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lema.completions import batch_records
from lema.completions.batch_files import OVER, Batches, Trouble, path_of
from lema.completions.batch_queue import Budget, Group, Job, Pending, Queue, standing
from lema.completions.batch_records import Record
from lema.completions.batch_results import Check, lines
from lema.errors import RunError
from lema.models.types import Completion, Model, Request
from lema.recipe.params import Endpoint

# All in seconds.
FIRST_POLL, LONGEST_POLL = 5.0, 60.0  # between two looks, the longer the less happens
SETTLE = 60.0  # after which an endpoint surely shows what it was sent
PATIENCE = 900.0  # with an endpoint that does not answer
GIVE_UP = 26 * 3600.0  # a queue that stays full: a batch that fills it is over by then

NOT_OFFERED = (404, 405, 501)  # the status of what an endpoint does not have
UNSURE = 3  # batches in a row whose creation had no answer


class Over(Exception):
    """Why nothing more can be had from the endpoint."""


class Driver:
    """What one stage waits for at one endpoint, named `where`: the requests to each of some models. `say` is told how
    things stand.

    A record that another process drives is waited for, too. Of a model, one batch at a time is validated.

    Raises:
        RunError: a model is not of the backend `openai`, whose requests this endpoint takes.
    """

    def __init__(
        self,
        models: Sequence[Model],
        groups: Sequence[Group],
        where: str,
        endpoint: Endpoint,
        stop: threading.Event,
        say: Callable[[str], None],
        budget: Budget | None = None,
    ) -> None:
        if theirs := next((model for model in models if model.backend != "openai"), None):
            raise RunError(
                f"model {theirs.label!r}: endpoint {where} is asked in batches, which the backend {theirs.backend} "
                "does not make"
            )
        self._models, self._groups, self._where, self._endpoint = models, groups, where, endpoint
        self._stop, self._say, self._budget = stop, say, budget
        self._place = batch_records.place(endpoint.url)
        self._tries: Counter[str] = Counter()
        self._jobs: dict[Path, Job] = {}
        self._foreign: list[Record] = []

    def stream(self) -> Iterator[tuple[list[Request], list[Completion]]]:
        """Blocks of requests with their replies, as batches end, until every request has one, `stop` is set, or the
        budget allows none of the rest and nothing is under way that could make room.

        Raises:
            RunError: nothing more can be had from the endpoint; its key is not in the environment; the disk is full or
                not writable.
        """
        self._pending = Pending(self._groups, self._budget)
        self._apis = [Batches(model, self._endpoint) for model in self._models]
        self._queues = [Queue() for _ in self._apis]
        pause, before, last = FIRST_POLL, "", False
        try:
            while self._pending and not self._stop.is_set():
                yield from self._round()
                idle = self._pending.stuck and not (self._jobs or self._foreign)
                if not self._pending or (idle and last):
                    return
                # What is under way elsewhere may make room in the budget when it is answered.
                last = idle and not (self._budget and self._budget.wait_for_room([self._pending.first()], self._stop))
                state = standing(self._jobs.values(), len(self._foreign), self._queues)
                self._say(f"{self._where}: {state}")
                pause = min(pause * 1.5, LONGEST_POLL) if state == before else FIRST_POLL
                before = state
                if self._pending:
                    self._stop.wait(pause)
        except Over as over:
            asked = ", ".join(model.label for model in self._models)
            raise RunError(f"{asked}: {over}; what was bought is kept") from None
        finally:
            for job in self._jobs.values():
                job.record.release()
            for api in self._apis:
                api.close()

    def _round(self) -> Iterator[tuple[list[Request], list[Completion]]]:
        if self._foreign or not self._jobs:
            with batch_records.alone():
                self._adopt()
        for job in list(self._jobs.values()):
            try:
                yield from self._step(job)
                job.ill = None
            except Trouble as trouble:
                self._wait(trouble, job)
        for number in sorted(set(self._pending.open.values())):
            busy = any(job.group == number and job.seen is None for job in self._jobs.values())
            if not busy and time.monotonic() >= self._queues[number].until and not self._stop.is_set():
                self._send(number)

    def _adopt(self) -> None:
        """Take over what was sent before, by processes that are gone."""
        pending = self._pending
        for record in self._foreign:
            pending.uncover(record.asked)
        self._foreign = []
        for record in batch_records.on_the_way(self._place, pending.open):
            group = next(pending.open[name] for name in record.asked if name in pending.open)
            pending.cover(record)
            if record.handle is None:
                self._foreign.append(record)
            else:
                self._jobs[record.path] = Job(record, group)
                self._tell(f"a batch that was submitted before, {len(record.keys)} requests, is fetched")

    def _send(self, number: int) -> None:
        """Submit one batch of what is in none yet."""
        queue, api = self._queues[number], self._apis[number]
        with tempfile.TemporaryFile(dir=batch_records.folder()) as file:
            with batch_records.alone():
                self._adopt()
                names = self._pending.fill(file, number, queue.most, self._endpoint)
                if not names:
                    return
                record = batch_records.begin(self._place, names)
            job = self._jobs[record.path] = Job(record, number)
            self._pending.cover(record)
            file.seek(0)
            try:
                record.note("file", api.upload(f"{record.token}.jsonl", file))
            except Trouble as trouble:
                self._turned_away(job, trouble)
                return
        begun, pause = time.monotonic(), FIRST_POLL / 5
        while True:
            try:
                batch = api.create(str(record.file), path_of(self._models[number]), record.token)
                break
            except Trouble as trouble:
                if trouble.not_yet and time.monotonic() - begun < SETTLE and not self._stop.wait(pause):
                    pause *= 2
                elif trouble.unsure:
                    # It may be there all the same: `_step` looks for it.
                    record.touch()
                    queue.unsure += 1
                    if queue.unsure >= UNSURE:
                        raise Over(f"{trouble.fault.reason}, when it was to make a batch") from trouble
                    return
                else:
                    self._turned_away(job, trouble)
                    return
        queue.ill, queue.unsure, queue.heard = None, 0, True
        record.note("batch", batch.id)
        self._tell(
            f"batch {batch.id} of {len(names)} requests is submitted; it runs on when this process ends, and the next "
            "run fetches its replies"
        )

    def _turned_away(self, job: Job, trouble: Trouble) -> None:
        """Nothing was submitted."""
        self._forget(job)
        if trouble.full:
            self._hold(job)
        else:
            self._wait(trouble, self._queues[job.group])

    def _hold(self, job: Job) -> None:
        queue, size = self._queues[job.group], len(job.record.keys)
        queue.hold(size)
        if queue.full is not None and time.monotonic() - queue.full > GIVE_UP:
            raise Over(f"endpoint {self._where} takes no batch: its queue is full")
        self._tell(f"its queue has no place for a batch of {size} requests; a smaller one follows later")

    def _forget(self, job: Job) -> None:
        """Nothing will come of a batch: its requests go into another one."""
        self._pending.uncover(job.record.asked)
        job.record.delete()
        del self._jobs[job.record.path]

    def _step(self, job: Job) -> Iterator[tuple[list[Request], list[Completion]]]:
        """Look what has become of a batch, and hand out its replies when it is over."""
        record, api = job.record, self._apis[job.group]
        if record.batch is None:
            try:
                found = api.find(record.token, str(record.file), time.time() - record.age - 24 * 3600)
            except Trouble as trouble:
                if trouble.status not in NOT_OFFERED:
                    raise
                raise self._lost(record, f"lists no batches, so that of {record.file} cannot be found") from trouble
            if found is None:
                if record.age > SETTLE:
                    self._forget(job)
                return
            record.note("batch", found.id)
        try:
            batch = api.look(str(record.batch))
        except Trouble as trouble:
            if trouble.status != 404:
                raise
            if record.left is not None:
                self._forget(job)
            elif record.age > SETTLE:
                raise self._lost(record, f"knows no batch {record.batch}") from trouble
            return
        if batch.status == "validating":
            return
        job.seen = batch
        if batch.status not in OVER:
            self._queues[job.group].full = None
            return
        job.over = job.over or time.monotonic()
        patient = time.monotonic() - job.over < SETTLE
        found_lines = lines(api, batch, record.keys, patient)
        if found_lines is not None:
            yield from self._collect(job, Check(found_lines, batch, self._endpoint, self._tries))
        elif record.left is not None:
            self._forget(job)
        elif not patient:
            raise self._lost(record, f"does not give the replies of batch {batch.id}")

    def _lost(self, record: Record, why: str) -> Over:
        """A batch may have been paid for and cannot be fetched: only a person gives it up."""
        return Over(
            f"endpoint {self._where} {why}; if it is lost, delete {record.path} to ask for its {len(record.keys)} "
            "requests again"
        )

    def _collect(self, job: Job, check: Check) -> Iterator[tuple[list[Request], list[Completion]]]:
        """Hand out the replies that somebody waits for, and check off every request of the batch."""
        record, pending = job.record, self._pending
        wanted = {name for name in record.asked if name in pending.sent}
        numbers = sorted({pending.sent[name] for name in wanted})
        for block, reply in check.off(wanted, [pending.groups[number] for number in numbers]):
            pending.answered(block)
            yield block, reply
        record.note("left", check.left(record.keys))
        # Not by the record: others may be in later batches by now.
        pending.uncover(wanted)
        if record.asked:
            del self._jobs[record.path]
            record.release()
        else:
            self._forget(job)
        if check.fatal is not None:
            raise Over(check.fatal)
        if check.full:
            self._hold(job)
        elif check.refused is not None:
            raise Over(f"endpoint {self._where} refuses a batch ({check.refused})")
        else:
            self._queues[job.group].moved()
        if check.again:
            self._tell(
                f"{check.again} of {len(record.keys)} replies are missing ({check.why}); they are asked for again"
            )

    def _wait(self, trouble: Trouble, what: Job | Queue) -> None:
        """Wait for what passes, as long as it has not been so for too long.

        Raises:
            Over: it does not pass.
        """
        fault = trouble.fault
        if self._stop.is_set():
            return
        if trouble.status in NOT_OFFERED:
            raise Over(f"endpoint {self._where} has no Batch API, or its url is wrong ({trouble.status})")
        if fault.what not in ("retry", "limit"):
            raise Over(fault.reason)
        what.ill = what.ill or time.monotonic()
        new = fault.unsent and isinstance(what, Queue) and not what.heard
        if time.monotonic() - what.ill > (FIRST_POLL if new else PATIENCE):
            raise Over(f"{fault.reason}; what was submitted runs on, and the next run fetches it")
        self._say(f"{self._where}: {fault.reason}")
        self._stop.wait(FIRST_POLL if fault.wait is None else fault.wait)

    def _tell(self, text: str) -> None:
        print(f"endpoint {self._where}: {text}", file=sys.stderr, flush=True)  # noqa: T201
