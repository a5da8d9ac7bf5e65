"""Pieces of bytes on the disk, in a file without a name: what waits there is gone with this process, however that
ends, and nobody else can open it."""

import os
import tempfile
from array import array
from pathlib import Path
from typing import Self

from lema.errors import RunError


class ScratchFile:
    """Pieces by the order in which they were added. The file appears in `folder` with the first one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: int | None = None
        self._ends = array("Q", [0])  # bytes

    def append(self, piece: bytes) -> int:
        """Keep a piece, bytes or anything that shows its bytes, and return its number.

        Raises:
            RunError: the disk is full or not writable.
        """
        frame, at = memoryview(piece), self._ends[-1]
        try:
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=self._folder) as file:
                    self._file = os.dup(file.fileno())
            while frame:
                written = os.pwrite(self._file, frame, at)
                frame, at = frame[written:], at + written
        except OSError as error:
            raise RunError(f"no room for what waits in {self._folder}: {error.strerror}") from None
        self._ends.append(at)
        return len(self._ends) - 2

    def read(self, number: int) -> bytes:
        """A piece, read again from the disk; from any thread."""
        assert self._file is not None
        start, end = self._ends[number], self._ends[number + 1]
        parts = []
        while start < end:
            parts.append(os.pread(self._file, end - start, start))
            start += len(parts[-1])
        return b"".join(parts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
