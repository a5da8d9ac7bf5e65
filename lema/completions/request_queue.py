"""Requests that wait to be sent, on the disk: memory does not grow with their number."""

import pickle
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from lema.compute import files
from lema.compute.scratch_file import ScratchFile
from lema.models.types import Model, Request

FRAME = 64  # requests kept together, so that they share their model and sampling parameters


@dataclass(slots=True)
class Group:
    """The requests to one model: their places in the file, and the last few, which are not there yet."""

    model: Model
    last: list[Request] = field(default_factory=list)
    frames: "array[int]" = field(default_factory=partial(array, "Q"))

    def __len__(self) -> int:
        return len(self.frames) * FRAME + len(self.last)


class RequestQueue:
    """Requests by model, in the order in which they were added. They hold prompts, so the file has no name."""

    def __init__(self) -> None:
        self.groups: dict[tuple[str, str], Group] = {}
        self.count = 0
        self._file: ScratchFile | None = None  # made when there are more than a few

    def add(self, request: Request) -> None:
        """Keep a request until `close`.

        Raises:
            RunError: the disk is full or not writable.
        """
        model = request.model
        group = self.groups.setdefault((model.label, model.identity), Group(model))
        group.last.append(request)
        self.count += 1
        if len(group.last) == FRAME:
            self._file = self._file or ScratchFile(files.home())
            group.frames.append(self._file.append(pickle.dumps(group.last, pickle.HIGHEST_PROTOCOL)))
            group.last = []

    def requests(self, group: Group) -> Iterator[Request]:
        """The requests to a model, read when they are asked for; from any thread."""
        for number in group.frames:
            assert self._file is not None
            yield from pickle.loads(self._file.read(number))
        yield from group.last

    def close(self) -> None:
        """Forget all of them."""
        if self._file is not None:
            self._file.__exit__(None, None, None)
