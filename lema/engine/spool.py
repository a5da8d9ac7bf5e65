"""Requests that wait to be sent, on the disk: how many there are does not show in memory."""

import itertools
import os
import pickle
import tempfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from lema.engine import files
from lema.engine.executor import blocks
from lema.errors import RunError
from lema.models import Model, Request

FRAME = 64  # requests pickled together, so that they share their model and sampling parameters


@dataclass(slots=True)
class Group:
    """The requests of one model: `count` in all, of which the last few are not in a frame yet."""

    model: Model
    count: int = 0
    last: list[Request] = field(default_factory=list)
    # Where frames begin and how long they are, in bytes.
    starts: "array[int]" = field(default_factory=lambda: array("Q"))
    sizes: "array[int]" = field(default_factory=lambda: array("Q"))


class Spool:
    """Requests by model, in the order in which they were added. They hold prompts, so the file has no name: it is gone
    with this process, however that ends."""

    def __init__(self) -> None:
        self.groups: dict[tuple[str, str], Group] = {}
        self._file: int | None = None
        self._size = 0

    def __len__(self) -> int:
        return sum(group.count for group in self.groups.values())

    def add(self, request: Request) -> None:
        """Keep a request until the end of the `with` block.

        Raises:
            RunError: the disk is full or not writable.
        """
        model = request.model
        group = self.groups.setdefault((model.label, model.identity), Group(model))
        group.count += 1
        group.last.append(request)
        if len(group.last) == FRAME:
            frame = pickle.dumps(group.last, pickle.HIGHEST_PROTOCOL)
            self._append(frame)
            group.starts.append(self._size)
            group.sizes.append(len(frame))
            self._size += len(frame)
            group.last = []

    def blocks(self, group: Group, size: int) -> Iterator[list[Request]]:
        """The requests of a model in lists of `size`, read when they are asked for; from any thread."""
        frames = zip(group.starts, group.sizes, strict=True)
        read = itertools.chain.from_iterable(self._frame(start, length) for start, length in frames)
        return blocks(itertools.chain(read, group.last), size)

    def _append(self, frame: bytes) -> None:
        try:
            if self._file is None:
                files.home().mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=files.home()) as file:
                    self._file = os.dup(file.fileno())
            view = memoryview(frame)
            at = self._size
            while view:
                written = os.pwrite(self._file, view, at)
                view, at = view[written:], at + written
        except OSError as error:
            raise RunError(f"requests cannot be kept in {files.home()}: {error.strerror}") from None

    def _frame(self, start: int, length: int) -> list[Request]:
        assert self._file is not None
        parts = []
        while length:
            part = os.pread(self._file, length, start)
            if not part:
                raise RunError("the file of waiting requests was cut short")
            parts.append(part)
            start, length = start + len(part), length - len(part)
        frame: list[Request] = pickle.loads(b"".join(parts))
        return frame

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
