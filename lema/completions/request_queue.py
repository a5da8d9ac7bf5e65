"""Requests that wait to be sent, on the disk: how many there are does not show in memory."""

import itertools
import pickle
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from lema.compute import files
from lema.compute.executor import blocks
from lema.compute.scratch_file import ScratchFile
from lema.models.types import Model, Request

FRAME = 64  # requests kept together, so that they share their model and sampling parameters


@dataclass(slots=True)
class Group:
    """The requests of one model: `count` in all, of which the last few are not in a frame yet."""

    model: Model
    count: int = 0
    last: list[Request] = field(default_factory=list)
    frames: "array[int]" = field(default_factory=lambda: array("Q"))


class Spool(ScratchFile):
    """Requests by model, in the order in which they were added. They hold prompts, so the file has no name."""

    def __init__(self) -> None:
        super().__init__(files.home())
        self.groups: dict[tuple[str, str], Group] = {}

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
            group.frames.append(self.append(pickle.dumps(group.last, pickle.HIGHEST_PROTOCOL)))
            group.last = []

    def blocks(self, group: Group, size: int) -> Iterator[list[Request]]:
        """The requests of a model in lists of `size`, read when they are asked for; from any thread."""
        read = itertools.chain.from_iterable(pickle.loads(self.read(number)) for number in group.frames)
        return blocks(itertools.chain(read, group.last), size)
