"""Tables sorted by id that wait on the disk until all of their rows can be put in order."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lema.compute.scratch_file import ScratchFile
from lema.errors import RunError

FRAME = 64  # rows that are read at once


def sort(table: Any, what: str) -> Any:
    """A table sorted by its column `id`; the very same when it is. Raises RunError when an id is there twice; `what`
    has it."""
    ids = table["id"]
    if pc.all(pc.less(ids[:-1], ids[1:])).as_py():
        return table.combine_chunks()
    return table.combine_chunks().take(_order(ids, what))


def _order(ids: Any, what: str) -> Any:
    """Where the rows are, in the order of their ids: UTF-8 sorts as its characters do."""
    order = pc.sort_indices(ids)
    ordered = ids.take(order)
    twice = pc.index(pc.equal(ordered[1:], ordered[:-1]), True).as_py()
    if twice >= 0:
        raise RunError(f"two rows of {what} have the id {ordered[twice].as_py()!r}")
    return order


class SortedRuns(ScratchFile):
    """Sorted tables with the same columns."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._ids: list[Any] = []
        self._starts = [0]  # of every frame: how many rows lie before it
        self._schema: Any = None

    def add(self, table: Any) -> None:
        """Keep a table.

        Raises:
            RunError: the disk is full or not writable.
        """
        self._schema = table.schema
        self._ids += table["id"].chunks
        for batch in table.to_batches(FRAME):
            self.append(batch.serialize())
            self._starts.append(self._starts[-1] + batch.num_rows)

    def merged(self, size: int, what: str) -> Iterator[Any]:
        """All rows in order, as tables of `size` rows, the last one of fewer. Raises RunError as `sort` does.

        Since runs are sorted, a table is made of a few frames of each.
        """
        order = _order(pa.chunked_array(self._ids), what).to_numpy()
        for start in range(0, len(order), size):
            places = order[start : start + size]
            frames = np.unique(np.searchsorted(self._starts, places, side="right") - 1).tolist()
            batches = [pa.ipc.read_record_batch(self.read(frame), self._schema) for frame in frames]
            there = np.concatenate([np.arange(self._starts[frame], self._starts[frame + 1]) for frame in frames])
            yield pa.Table.from_batches(batches).combine_chunks().take(np.searchsorted(there, places))
