"""Packs of the completion store: immutable, content-addressed Parquet files, named after the SHA-256 of their bytes.

Rows lie in the order in which they were bought, in row groups of about a mebibyte, so that asking again in the same
order reads each part of a pack once. Packs of earlier versions (sorted by key, in large row groups, without
`cached_tokens`) are read, too. A whole pack is verified against its name once, a page against its CRC at every reading.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lema.completions.index import KEY_BYTES, KEY_TYPE
from lema.compute import files, parquet
from lema.errors import RunError
from lema.models.types import Completion
from lema.rows import Finish, row_class

SERVED = ("stop", "length")
DIGEST_DIGITS = 32  # hexadecimal digits of a name
GROUP = 2**20  # bytes of text in a row group
PACK = 2**27  # bytes of text in a pack
GROUPS_READ = 16  # row groups whose keys are read at once
ROW = 200  # bytes that a row takes beside its text
PARTIAL = ".pack.partial"

# Prefetches one row group at a time: decompressing needs no lock of Python's.
_prefetcher = ThreadPoolExecutor(1)


@row_class
class Entry:
    """A row of a pack; `id` is the key of the request, `model` the label under which it was asked."""

    id: str
    model: str
    text: str
    finish: Finish
    error: str | None
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


PACK_SCHEMA = parquet.arrow_schema(Entry)
PACK_LAYOUT: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 3,  # packs are written once and for ever
    "use_dictionary": ["model", "finish", "error"],
    "write_statistics": False,
    "version": "2.6",
    "data_page_version": "1.0",
    "store_schema": False,
    "write_page_checksum": True,
}


def write_packs(folder: Path, entries: Iterable[Entry]) -> list[Path]:
    """Write entries in their order into as many packs as they need, on the disk when this returns; one at a time a
    folder. Memory holds a row group.

    Raises:
        OSError: the disk is full or not writable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial, made = folder / PARTIAL, []
    groups = _row_groups(entries)
    try:
        for group, size in groups:
            with pq.ParquetWriter(partial, PACK_SCHEMA, **PACK_LAYOUT) as writer:
                _write_group(writer, group)
                while size < PACK and (more := next(groups, None)) is not None:
                    _write_group(writer, more[0])
                    size += more[1]
            files.fsync_path(partial)
            path = folder / f"{pack_digest(partial)}.parquet"
            partial.replace(path)
            files.fsync_path(folder)
            made.append(path)
    finally:
        partial.unlink(missing_ok=True)
    return made


def _row_groups(entries: Iterable[Entry]) -> Iterator[tuple[list[Entry], int]]:
    """Entries a row group at a time, and their size in bytes."""
    group, size = list[Entry](), 0
    for entry in entries:
        group.append(entry)
        size += len(entry.text) + ROW
        if size >= GROUP:
            yield group, size
            group, size = [], 0
    if group:
        yield group, size


def _write_group(writer: Any, group: list[Entry]) -> None:
    columns = [pa.array([getattr(entry, field.name) for entry in group], field.type) for field in PACK_SCHEMA]
    writer.write_table(pa.Table.from_arrays(columns, schema=PACK_SCHEMA), row_group_size=len(group))


def pack_digest(path: Path) -> str:
    """The name that a pack of these bytes has."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGEST_DIGITS]


def pack_paths(folder: Path) -> list[Path]:
    """The packs of a folder in the order of their names."""
    return sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))


class Pack:
    """A pack that can be read. Raises RunError when it is no pack, OSError when it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True)
        except pa.ArrowInvalid as error:
            raise RunError(f"{path} is not a readable Parquet file: {str(error).splitlines()[0]}") from None
        found, earlier = self._file.schema_arrow, PACK_SCHEMA.remove(PACK_SCHEMA.get_field_index("cached_tokens"))
        if not any(found.equals(one, check_metadata=False) for one in (PACK_SCHEMA, earlier)):
            raise RunError(f"{path} does not hold completions: {parquet.schema_difference(found, PACK_SCHEMA)}")
        self._columns = [name for name in found.names if name != "model"]
        self._next = 0
        self._prefetched: Future[Any] | None = None

    def key_groups(self) -> Iterator[tuple[Any, Any, Any]]:
        """A few row groups at a time, of all rows the key, whether the reply can be served, and the number of the group
        (numpy arrays)."""
        for start in range(0, self._file.num_row_groups, GROUPS_READ):
            groups = range(start, min(start + GROUPS_READ, self._file.num_row_groups))
            table = self._file.read_row_groups(groups, columns=["id", "finish"], use_threads=False)
            joined = pc.binary_join(pa.LargeListArray.from_arrays([0, len(table)], table["id"].combine_chunks()), "")
            try:
                keys = bytes.fromhex(joined[0].as_py())
            except ValueError:
                keys = b""
            if len(keys) != KEY_BYTES * len(table):
                raise RunError(f"{self.path} does not hold completions: ids are not keys of requests")
            sizes = [self._file.metadata.row_group(group).num_rows for group in groups]
            served = pc.is_in(table["finish"], value_set=pa.array(SERVED)).to_numpy()
            yield np.frombuffer(keys, KEY_TYPE), served, np.repeat(np.array(groups, np.int64), sizes)

    def models(self) -> Any:
        """Of all rows the label of the model (an Arrow array)."""
        return self._file.read(columns=["model"], use_threads=False)["model"]

    def group(self, number: int) -> Iterator[tuple[str, Completion]]:
        """The keys and replies of a row group. When they are read in their order, the next one is prefetched."""
        in_order, prefetched = number == self._next, self._prefetched
        table = (prefetched if prefetched and in_order else _prefetcher.submit(self._read, number)).result()
        self._next, self._prefetched = number + 1, None
        if in_order and self._next < self._file.num_row_groups:
            self._prefetched = _prefetcher.submit(self._read, self._next)
        # By way of numpy, which takes a fifth of the time of `to_pylist`.
        keys, *fields = (column.to_numpy().tolist() for column in table.columns)
        return zip(keys, map(Completion, *fields), strict=True)

    def _read(self, number: int) -> Any:
        return self._file.read_row_group(number, columns=self._columns, use_threads=False)

    def entries(self) -> Iterator[Entry]:
        """All rows, a row group at a time."""
        for number in range(self._file.num_row_groups):
            table = self._file.read_row_group(number, use_threads=False)
            for values in zip(*(column.to_pylist() for column in table.columns), strict=True):
                yield Entry(*values)

    def close(self) -> None:
        if self._prefetched:
            self._prefetched.exception()  # it is still being read
        self._file.close()


def damaged_pack(path: Path) -> RunError:
    return RunError(
        f"{path} is damaged: its bytes do not match its name. Fetch it again (`lema completions pull`) or, when there "
        "is no other copy, delete it: its completions are then asked for again"
    )


def verify_packs(paths: Iterable[Path], record: Path, *, trusting: bool = True) -> None:
    """Compare packs with their names, once a file (known by size, time and inode from the `record` unless it is not to
    be trusted): reading a gigabyte to begin a stage would take seconds, and minutes on a network disk.

    Raises:
        RunError: the bytes of a pack do not match its name.
    """
    known, seen = dict[str, list[int]](), dict[str, list[int]]()
    if trusting:
        with suppress(OSError, ValueError):
            known = json.loads(record.read_bytes())
    for path in paths:
        state = path.stat()
        stamp = seen[path.name] = [state.st_size, state.st_mtime_ns, state.st_ino]
        if known.get(path.name) != stamp and pack_digest(path) != path.stem:
            raise damaged_pack(path)
    if seen != known:
        # On a disk that cannot be written packs are verified again the next time. The file has a name of its own until
        # it is whole: other processes do the same, and the last one is as right as the first.
        with suppress(OSError):
            record.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=record.parent, prefix=f".{record.name}.", delete=False) as file:
                json.dump(seen, file)
            Path(file.name).replace(record)
