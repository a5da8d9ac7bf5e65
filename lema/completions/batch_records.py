"""Batches on the way, on the disk: what was, or may have been, sent to an endpoint, so that no end of a process loses
it and nothing is bought twice.

A record is a file `home()/batches/<token>.jsonl`: what is asked is written before it is sent, and then, a line a step,
the id of the uploaded file, that of the batch, and what was left without a reply. It holds keys and ids, no prompts.
One process drives a record, the one that has it locked; whoever finds one without a lock takes it over.
"""

import fcntl
import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lema.compute import files
from lema.errors import RunError
from lema.models.types import Request, key

# How long a record stays after its replies were handed out, in seconds: who waited for them, or was killed before they
# were in the store, fetches them again. It is as long as OpenAI keeps the files of a batch.
KEPT = 30 * 24 * 3600.0


def folder() -> Path:
    """Where records lie."""
    return files.home() / "batches"


def place(url: str) -> str:
    """What a record calls an endpoint: the same for all names that params.yaml may give it."""
    return hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]


@dataclass(slots=True)
class Record:
    """A batch: `keys` are those of its requests, `file` and `batch` the ids at the endpoint as far as it has them.
    `left` is None until its replies were handed out, and then the keys that have none. `handle` is open and locked
    while this process drives it, None for a record of another process."""

    path: Path
    endpoint: str
    keys: frozenset[str]
    file: str | None = None
    batch: str | None = None
    left: frozenset[str] | None = None
    handle: int | None = None

    @property
    def token(self) -> str:
        """By which its batch is found at the endpoint."""
        return self.path.stem

    @property
    def asked(self) -> frozenset[str]:
        """The keys that nobody needs to ask for, as long as the record is there."""
        return self.keys - (self.left or frozenset())

    @property
    def age(self) -> float:
        """Seconds since the last step of a record that this process drives."""
        assert self.handle is not None
        return time.time() - os.fstat(self.handle).st_mtime

    def note(self, step: str, value: str | Iterable[str]) -> None:
        """Write a step down: `file`, `batch` or `left`. It is on the disk when this returns.

        Raises:
            RunError: the disk is full or not writable.
        """
        self._write({step: value if isinstance(value, str) else sorted(value)})
        setattr(self, step, value if isinstance(value, str) else frozenset(value))

    def touch(self) -> None:
        """Have its age begin now."""
        assert self.handle is not None
        os.utime(self.handle)

    def release(self) -> None:
        """Leave the record to others."""
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None

    def delete(self) -> None:
        """Forget the record: nothing of it was sent, or nothing can come of it any more."""
        self.path.unlink(missing_ok=True)
        self.release()

    def _write(self, line: dict[str, object]) -> None:
        assert self.handle is not None
        # The line ends the one before it, which a kill may have torn.
        content = b"\n" + json.dumps(line).encode()
        try:
            while content:
                content = content[os.write(self.handle, content) :]
            os.fsync(self.handle)
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written: {error.strerror}") from None


@contextmanager
def alone() -> Iterator[None]:
    """No other process looks for what is on the way, or decides what to send, at the same time."""
    try:
        folder().mkdir(parents=True, exist_ok=True)
        with (folder() / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise RunError(f"{folder()}: cannot be written: {error.strerror}") from None


def begin(endpoint: str, keys: Iterable[str]) -> Record:
    """Write down what will be sent, and drive it. Call it when `alone`.

    Raises:
        RunError: the disk is full or not writable.
    """
    path = folder() / f"{uuid.uuid4().hex}.jsonl"
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
    files.try_lock(handle)
    record = Record(path, endpoint, frozenset(keys), handle=handle)
    try:
        record._write({"endpoint": endpoint, "keys": sorted(record.keys)})
    except RunError:
        record.delete()
        raise
    files.fsync_path(path.parent)
    return record


def on_the_way(endpoint: str, wanted: Container[str]) -> Iterator[Record]:
    """The records of an endpoint that hold some of the wanted keys, locked for this process unless another one has
    them. Records without a use any more are deleted. Call it when `alone`."""
    for path in sorted(folder().glob("*.jsonl")):
        with suppress(FileNotFoundError):
            handle: int | None = os.open(path, os.O_RDWR | os.O_APPEND)
            if handle is not None and not files.try_lock(handle):
                os.close(handle)
                handle = None
            record = _read(path, handle)
            if record is None:
                continue
            if record.endpoint == endpoint and any(key in wanted for key in record.asked):
                yield record
            else:
                record.release()


def refuse_twice(where: str, url: str, groups: Iterable[Callable[[], Iterable[list[Request]]]]) -> None:
    """Before the endpoint with this name and address is asked online: none of the requests of these groups may be in a
    batch. They are read only if there are batches.

    Raises:
        RunError: one is.
    """
    if not any(folder().glob("*.jsonl")):
        return
    keys, count = {key(one) for group in groups for block in group() for one in block}, 0
    with alone():
        for record in on_the_way(place(url), keys):
            count += len(record.asked & keys) if record.left is None else 0
            record.release()
    if count:
        raise RunError(
            f"{count} requests to endpoint {where} are in batches that were submitted before; with `mode: batch` in "
            f"params.yaml their replies are fetched; delete {folder()} to pay for them twice"
        )


def _read(path: Path, handle: int | None) -> Record | None:
    """A record as its file tells it, None and no file any more where nothing was sent or all is long over."""
    record = Record(path, "", frozenset(), handle=handle)
    for line in path.read_bytes().split(b"\n"):
        # Only the last line can be torn, by a kill while it was written: what it says was not done yet, or is found
        # at the endpoint.
        with suppress(ValueError):
            step = json.loads(line)
            record.endpoint = step.get("endpoint", record.endpoint)
            record.keys = frozenset(step["keys"]) if "keys" in step else record.keys
            record.file, record.batch = step.get("file", record.file), step.get("batch", record.batch)
            record.left = frozenset(step["left"]) if "left" in step else record.left
    if handle is None:
        return record
    if record.file is None or (record.left is not None and (record.age > KEPT or not record.asked)):
        record.delete()
        return None
    return record
