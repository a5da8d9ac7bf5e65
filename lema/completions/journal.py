"""Journals of the completion store: where a process writes what it bought, one JSON line a batch, before it is used.

A journal has one writer, which holds a lock on it for as long as it lives; when that is gone anybody may seal it.
"""

import fcntl
import json
import logging
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import fields
from operator import attrgetter
from pathlib import Path

from lema.completions.packs import Entry
from lema.compute import files

log = logging.getLogger(__name__)

_values = attrgetter(*(field.name for field in fields(Entry)))


class Journal:
    """The journal of this process, a new file in `folder`. Raises OSError when it cannot be made."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{os.getpid()}-{uuid.uuid4().hex[:12]}.jsonl"
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        # Held until this process is gone: how others know that they may seal the journal.
        fcntl.flock(self._file, fcntl.LOCK_EX)
        files.fsync_path(folder)
        self.size = 0

    def append(self, entries: Sequence[Entry]) -> int:
        """Write a batch, on the disk when this returns, and return where its line begins.

        Raises:
            OSError: the disk is full or not writable; then nothing of the batch is in the journal.
        """
        # One line a batch: after a crash a batch is there or it is not, so the rest is asked for in whole batches.
        line = json.dumps([_values(entry) for entry in entries]).encode() + b"\n"
        start = self.size
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except OSError:
            # The half of a line would spoil the next one.
            with suppress(OSError):
                os.ftruncate(self._file, start)
            raise
        self.size += len(line)
        return start

    def close(self) -> None:
        """Let others seal it."""
        os.close(self._file)


class Lines:
    """The batches of a journal, read one at a time. The file stays open: who seals it deletes it.

    Of the last reading, `count` is the number of lines, and `torn` are those (from 1) that are incomplete.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.count = path, 0
        self.torn: list[int] = []
        self._file = path.open("rb")

    def batches(self, *, quiet: bool = False) -> Iterator[tuple[int, list[Entry]]]:
        """Where a line begins, and what is in it; incomplete ones are skipped and, unless `quiet`, reported."""
        self._file.seek(0)
        start, self.count, self.torn = 0, 0, []
        for line in self._file:
            self.count += 1
            try:
                yield start, _parse(line)
            except ValueError:
                # A process was killed, or is right now, while it wrote this line: the replies were not acknowledged.
                self.torn.append(self.count)
                if not quiet:
                    log.warning("%s, line %d is incomplete and was skipped", self.path, self.count)
            start += len(line)

    def read(self, start: int) -> list[Entry]:
        """The batch whose line begins there. Raises OSError or ValueError when it cannot be read any more."""
        self._file.seek(start)
        return _parse(self._file.readline())

    def close(self) -> None:
        self._file.close()


def _parse(line: bytes) -> list[Entry]:
    if not line.endswith(b"\n"):
        raise ValueError("incomplete")
    try:
        return [Entry(*values) for values in json.loads(line)]
    except TypeError as error:
        raise ValueError(str(error)) from None


def claim(path: Path) -> int | None:
    """Lock a journal whose process is gone, and return the open file; None when its process is alive."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    # Another process may have sealed and deleted it since it was listed.
    if files.try_lock(handle) and os.fstat(handle).st_nlink:
        return handle
    os.close(handle)
    return None
