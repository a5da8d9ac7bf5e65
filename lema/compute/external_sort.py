"""External merge sort: sorted runs of rows wait on the disk until they can be merged by id."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lema.compute.scratch_file import ScratchFile
from lema.errors import RunError

ROWS_A_PIECE = 64  # that are read at once


def sort_by_id(table: Any, what: str) -> Any:
    """A table sorted by its column `id`; unchanged when it is sorted.

    Raises:
        RunError: two rows have the same id; `what` says what they are.
    """
    ids = table["id"]
    if pc.all(pc.less(ids[:-1], ids[1:])).as_py():
        return table.combine_chunks()
    return table.combine_chunks().take(_id_order(ids, what))


def _id_order(ids: Any, what: str) -> Any:
    """Where the rows are, in the order of their ids: UTF-8 sorts as its characters do."""
    order = pc.sort_indices(ids)
    ordered = ids.take(order)
    twice = pc.index(pc.equal(ordered[1:], ordered[:-1]), True).as_py()
    if twice >= 0:
        raise RunError(f"two rows of {what} have the id {ordered[twice].as_py()!r}")
    return order


class SortedRuns(ScratchFile):
    """Sorted tables with the same columns, the runs of a merge sort."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._ids: list[Any] = []
        self._starts = [0]  # of every piece: how many rows lie before it
        self._schema: Any = None

    def add(self, table: Any) -> None:
        """Keep a table.

        Raises:
            RunError: the disk is full or not writable.
        """
        self._schema = table.schema
        self._ids += table["id"].chunks
        for batch in table.to_batches(ROWS_A_PIECE):
            self.append(batch.serialize())
            self._starts.append(self._starts[-1] + batch.num_rows)

    def merged(self, size: int, what: str) -> Iterator[Any]:
        """All rows in order, as tables of `size` rows, the last one of fewer. Raises RunError as `sort_by_id` does.

        Since runs are sorted, a table is made of a few pieces of each.
        """
        order = _id_order(pa.chunked_array(self._ids), what).to_numpy()
        for start in range(0, len(order), size):
            places = order[start : start + size]
            pieces = np.unique(np.searchsorted(self._starts, places, side="right") - 1).tolist()
            batches = [pa.ipc.read_record_batch(self.read(piece), self._schema) for piece in pieces]
            there = np.concatenate([np.arange(self._starts[piece], self._starts[piece + 1]) for piece in pieces])
            yield pa.Table.from_batches(batches).combine_chunks().take(np.searchsorted(there, places))
