"""Write-ahead records of batches: what was, or may have been, submitted to an endpoint, so that no end of a process
loses it and nothing is bought twice.

A record is an append-only log `home()/batches/<token>.jsonl`, a line a step, each on the disk before the next step is
taken. It holds keys and ids, no prompts. The states of a batch, and what its record has by then:

    created      the keys of its requests, and its endpoint
    uploaded     the id of its file of requests
    submitted    the id of the batch; when the call had no answer, it is found by the token, an idempotency token
    collected    the keys without a reply (`unanswered`), which go into another batch

One process drives a record, the one that has it locked; a record without a lock is taken over. A record stays
for a while after it was collected: replies are delivered at least once, and fetched again where a process was killed
before they were in the store.
"""

import fcntl
import hashlib
import time
import uuid
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lema.completions.append_log import AppendLog, LogReader
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
    """A batch: `keys` are those of its requests, `file` and `batch` the ids at the endpoint as far as it has them.
    `unanswered` is None until its replies were handed out. `log` is the writer while this process drives the record,
    None for a record of another process."""

    path: Path
    endpoint: str = ""
    keys: frozenset[str] = frozenset()
    file: str | None = None
    batch: str | None = None
    unanswered: frozenset[str] | None = None
    log: AppendLog | None = None

    @property
    def token(self) -> str:
        """The idempotency token by which its batch is found at the endpoint."""
        return self.path.stem

    @property
    def covered(self) -> frozenset[str]:
        """The keys that nobody needs to ask for, as long as the record is there."""
        return self.keys - (self.unanswered or frozenset())

    @property
    def age(self) -> float:
        """Seconds since the last step of a record that this process drives."""
        assert self.log is not None
        return time.time() - self.log.modified

    def note(self, **steps: str | Iterable[str]) -> None:
        """Write steps down: `file`, `batch` or `unanswered`, or nothing but that there was one now. They are on the
        disk when this returns.

        Raises:
            RunError: the disk is full or not writable.
        """
        assert self.log is not None
        # On the disk `unanswered` has its earlier name, `left`.
        values = {name: value if isinstance(value, str) else sorted(value) for name, value in steps.items()}
        line = {"left" if name == "unanswered" else name: value for name, value in values.items()}
        try:
            self.log.append([line])
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written: {error.strerror}") from None
        self._apply(line)

    def release(self) -> None:
        """Leave the record to others."""
        if self.log is not None:
            self.log.close()
            self.log = None

    def delete(self) -> None:
        """Forget the record: nothing of it was sent, or nothing can come of it any more."""
        self.path.unlink(missing_ok=True)
        self.release()

    def _apply(self, line: dict[str, Any]) -> None:
        self.endpoint = line.get("endpoint", self.endpoint)
        self.keys = frozenset(line["keys"]) if "keys" in line else self.keys
        self.file, self.batch = line.get("file", self.file), line.get("batch", self.batch)
        self.unanswered = frozenset(line["left"]) if "left" in line else self.unanswered


@contextmanager
def records_lock() -> Iterator[None]:
    """No other process looks for batches, or decides what to send, at the same time."""
    try:
        records_folder().mkdir(parents=True, exist_ok=True)
        with (records_folder() / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise RunError(f"{records_folder()}: cannot be written: {error.strerror}") from None


def create_record(url: str, keys: Iterable[str]) -> BatchRecord:
    """Write down what will be sent to the endpoint at this address, and drive it. Called with the `records_lock`.

    Raises:
        RunError: the disk is full or not writable.
    """
    path = records_folder() / f"{uuid.uuid4().hex}.jsonl"
    record = BatchRecord(path, log=AppendLog(path, fsync=True))
    try:
        record.note(endpoint=endpoint_id(url), keys=keys)
    except RunError:
        record.delete()
        raise
    return record


def find_records(url: str, wanted: Container[str]) -> Iterator[BatchRecord]:
    """The records of the endpoint at this address that cover some of the wanted keys, driven by this process unless
    another one drives them. Records without a use any more are deleted. Called with the `records_lock`."""
    for path in sorted(records_folder().glob("*.jsonl")):
        with suppress(FileNotFoundError):
            record = BatchRecord(path)
            with suppress(BlockingIOError):
                record.log = AppendLog(path, fsync=True, new=False)
            # Only the last line can be torn: what it says was not done yet, or is found at the endpoint. Until 2026-11
            # lines began with their newline.
            with closing(LogReader(path, record._apply, unterminated=True)) as reader:
                for _ in reader.lines(quiet=True):
                    pass
            done = record.unanswered is not None and not record.covered
            if record.log and (
                record.file is None or done or (record.unanswered is not None and record.age > RECORD_LIFETIME)
            ):
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
