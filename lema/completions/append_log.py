"""Append-only logs of JSON lines: the one write-ahead mechanism of the store, the ledger and the batch records.

A log has one writer, which holds an advisory lock on the file for as long as it lives: that is how others know whether
they may take the log over. An append is all or nothing. A process that is killed may leave a torn last line, which
readers skip with a warning: it was never acknowledged.
"""

import json
import logging
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from lema.compute import files
from lema.errors import RunError

logger = logging.getLogger(__name__)

Line = TypeVar("Line")


# Made once: `json.dumps` with options makes an encoder a call. Money is decimal, and written as text.
_encode_line = json.JSONEncoder(sort_keys=True, default=str).encode


class AppendLog:
    """The writer of a log: of a new one, or (`new=False`) of one that its writer has left. Called by one
    thread at a time.

    With `fsync`, what was appended survives a power failure when `append` returns; without, a kill of this process
    loses nothing, and a power failure what came since the last `close`. `what` is written, for messages.

    Raises:
        BlockingIOError: another process writes it.
        OSError: the file cannot be made or opened; FileNotFoundError when it was deleted meanwhile.
    """

    def __init__(self, path: Path, *, fsync: bool, new: bool = True, what: str = "") -> None:
        self.path, self._fsync, self._what = path, fsync, what or str(path)
        flags = os.O_RDWR | os.O_APPEND | (os.O_CREAT | os.O_EXCL if new else 0)
        self._file = FileIO(os.open(path, flags, 0o666), "ab+")
        try:
            if not files.try_lock(self._file.fileno()):
                raise BlockingIOError(f"another process writes {path}")
            if not os.fstat(self._file.fileno()).st_nlink:
                raise FileNotFoundError(path)
            self._end = self._file.seek(0, os.SEEK_END)  # of the last whole line
            if new:
                files.fsync_path(path.parent)
            elif self._end and os.pread(self._file.fileno(), 1, self._end - 1) != b"\n":
                self._end += self._file.write(b"\n")  # ends the line that a killed writer has torn
        except BaseException:
            self._file.close()
            raise

    @classmethod
    def of_this_process(cls, folder: Path, what: str, *, fsync: bool) -> Self:
        """A new log in a folder, which is made if need be. Raises RunError when the disk is full or not writable."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return cls(folder / f"{os.getpid()}-{uuid.uuid4().hex[:12]}.jsonl", fsync=fsync, what=what)
        except OSError as error:
            raise RunError(f"{what} cannot be written: {error}") from None

    def append(self, lines: Iterable[Any]) -> int:
        """Append values, one JSON line each, all or none, and return the offset in bytes of the first.

        Raises:
            RunError: the disk is full or not writable; then none of the lines is in the log.
        """
        content = "\n".join([*map(_encode_line, lines), ""]).encode()
        start = self._end
        try:
            # Part of a line is there still if cutting it off failed, or was interrupted.
            if self._file.seek(0, os.SEEK_END) != start:
                self._file.truncate(start)
            try:
                rest = memoryview(content)
                while rest:
                    rest = rest[self._file.write(rest) :]
                if self._fsync:
                    os.fsync(self._file.fileno())
            except BaseException:
                with suppress(OSError):
                    self._file.truncate(start)
                raise
        except OSError as error:
            raise RunError(f"{self._what} cannot be written: {error}") from None
        self._end += len(content)
        return start

    def close(self) -> None:
        """Force everything onto the disk and leave the log to others."""
        if not self._file.closed:
            if not self._fsync:
                os.fsync(self._file.fileno())
            self._file.close()


class LogReader(Generic[Line]):
    """The lines of a log, each as `decode` makes it of its JSON value. The file stays open: who deletes the log takes
    nothing away from those that read it.

    Of the last reading, `count` is the number of lines, and `torn` are those (from 1) that are incomplete. With
    `unterminated`, a last line that lacks only its end counts, too: so batch records ended until 2026-11.

    Raises:
        FileNotFoundError: there is no such log.
    """

    def __init__(self, path: Path, decode: Callable[[Any], Line], *, unterminated: bool = False) -> None:
        self.path, self._decode, self._unterminated, self.count = path, decode, unterminated, 0
        self.torn: list[int] = []
        self._file = path.open("rb")

    def lines(self, *, quiet: bool = False) -> Iterator[tuple[int, Line]]:
        """The offset of each line, in bytes, and its value; torn ones are skipped and, unless `quiet`, reported."""
        self._file.seek(0)
        start, self.count, self.torn = 0, 0, []
        for text in self._file:
            self.count += 1
            try:
                yield start, self._parse(text)
            except ValueError:
                self.torn.append(self.count)
                if not quiet:
                    logger.warning("%s, line %d is incomplete and was skipped", self.path, self.count)
            start += len(text)

    def read(self, offset: int) -> Line:
        """The line that begins there. Raises OSError or ValueError when it cannot be read any more."""
        self._file.seek(offset)
        return self._parse(self._file.readline())

    def close(self) -> None:
        self._file.close()

    def _parse(self, text: bytes) -> Line:
        if not (text.endswith(b"\n") or self._unterminated):
            raise ValueError("torn")
        try:
            return self._decode(json.loads(text))
        except TypeError as error:
            raise ValueError(str(error)) from None


def claim_log(path: Path) -> int | None:
    """Lock a log whose writer is gone, and return the open file; None when the writer lives, or the log is gone."""
    with suppress(FileNotFoundError):
        handle = os.open(path, os.O_RDONLY)
        # It may have been deleted since it was listed.
        if files.try_lock(handle) and os.fstat(handle).st_nlink:
            return handle
        os.close(handle)
    return None
