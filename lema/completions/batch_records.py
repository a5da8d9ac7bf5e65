"""What was, or may have been, submitted to a Batch API: a ledger for each batch, so that no end of a process loses it
and nothing is bought twice. Its steps are in the table of `lema.completions.ledger`.

A batch has a file of its own, `home()/batches/<random>.jsonl`, since it is locked by the process that drives it, taken
over by another one when that is gone, and deleted by a person who gives the batch up. It stays for a while after the
batch was collected: replies are delivered at least once, and fetched again where a process was killed before they were
in the store.
"""

import fcntl
import hashlib
import math
import time
import uuid
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lema.completions.append_log import AppendLog, LogReader
from lema.completions.batch_client import RemoteBatch
from lema.completions.ledger import BatchStep
from lema.compute import files
from lema.errors import RunError
from lema.models.types import Request

# How long a record stays after its replies were handed out, in seconds: as long as OpenAI keeps the files of a batch.
RECORD_LIFETIME = 30 * 24 * 3600.0


def records_folder() -> Path:
    """Where records lie."""
    return files.home() / "batches"


def endpoint_id(url: str) -> str:
    """What a record calls an endpoint: the same for all names that params.yaml may give it."""
    return hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]


@dataclass(slots=True)
class BatchRecord:
    """A batch: `keys` are those of its requests, `file` and `batch` the ids at the endpoint as far as it has them,
    `unanswered` the keys without a reply, None until the replies were handed out. `ledger` is the writer while this
    process drives the batch, None for a batch of another process; `touched` the time of the last step.

    `seen` is how it was when it was last looked at, None before it was accepted, and `due_since` when its
    replies were first looked for, in seconds of `time.monotonic`.
    """

    path: Path
    touched: float
    endpoint: str = ""
    keys: frozenset[str] = frozenset()
    file: str | None = None
    batch: str | None = None
    unanswered: frozenset[str] | None = None
    ledger: AppendLog | None = None
    seen: RemoteBatch | None = None
    due_since: float = math.inf

    @property
    def covered(self) -> frozenset[str]:
        """The keys that nobody needs to ask for, as long as the record is there."""
        return self.keys - (self.unanswered or frozenset())

    def note(self, step: BatchStep) -> None:
        """Write a step down. It is on the disk when this returns.

        Raises:
            RunError: the disk is full or not writable.
        """
        assert self.ledger is not None
        self.ledger.append([step])
        self.touched = time.time()
        self._apply(step)

    def release(self) -> None:
        """Leave the record to others."""
        if self.ledger is not None:
            self.ledger.close()
            self.ledger = None

    def delete(self) -> None:
        """Forget the record: nothing of it was sent, or nothing can come of it any more."""
        self.path.unlink(missing_ok=True)
        self.release()

    def _apply(self, step: BatchStep) -> None:
        self.endpoint = step.get("endpoint", self.endpoint)
        self.keys = frozenset(step.get("keys", self.keys))
        self.file, self.batch = step.get("file", self.file), step.get("batch", self.batch)
        self.unanswered = frozenset(step["left"]) if "left" in step else self.unanswered


@contextmanager
def records_lock() -> Iterator[None]:
    """No other process looks for batches, or decides what to send, at the same time."""
    with files.explain_write_errors(records_folder()):
        records_folder().mkdir(parents=True, exist_ok=True)
        with (records_folder() / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def create_record(url: str, keys: Iterable[str]) -> BatchRecord:
    """Write down what will be sent to the endpoint at this address, and drive it. Called with the `records_lock`.

    Raises:
        RunError: the disk is full or not writable.
    """
    path = records_folder() / f"{uuid.uuid4().hex}.jsonl"
    record = BatchRecord(path, time.time(), ledger=AppendLog(path, fsync=True, what="the ledger"))
    try:
        record.note({"endpoint": endpoint_id(url), "keys": sorted(keys)})
    except RunError:
        record.delete()
        raise
    return record


def find_records(url: str, wanted: Container[str]) -> Iterator[BatchRecord]:
    """The records of the endpoint at this address that cover some of the wanted keys, driven by this process unless
    another one drives them. Records without a use any more are deleted. Called with the `records_lock`."""
    for path in sorted(records_folder().glob("*.jsonl")):
        with suppress(FileNotFoundError):
            record = BatchRecord(path, path.stat().st_mtime)
            with suppress(BlockingIOError):
                record.ledger = AppendLog(path, fsync=True, new=False, what="the ledger")
            # Only the last line can be torn: what it says was not done yet, or is found at the endpoint. Until 2026-11
            # lines began with their newline.
            with closing(LogReader(path, record._apply, unterminated=True)) as reader:
                for _ in reader.lines(quiet=True):
                    pass
            over = record.unanswered is not None
            done = record.file is None or (over and not record.covered)
            if record.ledger and (done or (over and time.time() - record.touched > RECORD_LIFETIME)):
                record.delete()
            elif record.endpoint == endpoint_id(url) and any(name in wanted for name in record.covered):
                yield record
            else:
                record.release()


def refuse_submitted(where: str, url: str, groups: Iterable[Callable[[], Iterable[list[Request]]]]) -> None:
    """Before the endpoint with this name and address is asked online: none of the requests of these groups may be in a
    batch. They are read only if there are batches.

    Raises:
        RunError: one is.
    """
    if not any(records_folder().glob("*.jsonl")):
        return
    keys, count = {request.key for group in groups for block in group() for request in block}, 0
    with records_lock():
        for record in find_records(url, keys):
            count += len(record.covered & keys) if record.unanswered is None else 0
            record.release()
    if count:
        raise RunError(
            f"{count} requests to endpoint {where} are in batches that were submitted before; with `mode: batch` in "
            f"params.yaml their replies are fetched; delete {records_folder()} to pay for them twice"
        )
