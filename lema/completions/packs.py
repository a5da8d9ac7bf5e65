"""Packs of the completion store: immutable, content-addressed Parquet files, named after the SHA-256 of their bytes.

Rows lie in the order in which they were bought, in row groups of about a mebibyte, so that asking again in the same
order reads each part of a pack once. Packs of earlier versions (sorted by key, in large row groups, without
`cached_tokens`) are read, too. A whole pack is verified against its name once, a page against its CRC at every reading.
"""

import binascii
import hashlib
import json
import os
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

from lema.completions.index import KEY_BYTES
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

    def key_groups(self) -> Iterator[tuple[bytes, Any, int]]:
        """Of a few row groups at a time the keys of all replies that can be served, 32 bytes each, the numbers of their
        groups (numpy, int64), and how many others there are."""
        for start in range(0, self._file.num_row_groups, GROUPS_READ):
            groups = range(start, min(start + GROUPS_READ, self._file.num_row_groups))
            table = self._file.read_row_groups(groups, columns=["id", "finish"], use_threads=False)
            try:
                keys = b"".join(binascii.unhexlify(_joined_ids(chunk)) for chunk in table["id"].chunks)
            except ValueError:
                raise RunError(f"{self.path} does not hold completions: ids are not keys of requests") from None
            sizes = [self._file.metadata.row_group(group).num_rows for group in groups]
            served = pc.is_in(table["finish"], value_set=pa.array(SERVED)).to_numpy()
            there = np.frombuffer(keys, f"S{KEY_BYTES}")[served].tobytes()
            yield there, np.repeat(np.array(groups, np.int64), sizes)[served], int((~served).sum())

    def labels(self) -> Iterator[tuple[str, str, bool]]:
        """Of all rows the key, the label of the model, and whether the reply can be served."""
        for batch in self._file.iter_batches(columns=["id", "model", "finish"], use_threads=False):
            for key, label, finish in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield key, label, finish in SERVED

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


def _joined_ids(ids: Any) -> bytes:
    """Hexadecimal keys, one after the other. Raises ValueError when one is of another length."""
    lengths = pc.unique(pc.binary_length(ids)).to_pylist()
    if lengths not in ([], [2 * KEY_BYTES]):
        raise ValueError
    text = pa.concat_arrays([ids]) if ids.offset else ids
    return bytes(text.buffers()[2].to_pybytes()[: 2 * KEY_BYTES * len(ids)]) if len(ids) else b""


def damaged_pack(path: Path) -> RunError:
    return RunError(
        f"{path} is damaged: its bytes do not match its name. Fetch it again (`lema completions pull`) or, when there "
        "is no other copy, delete it: its completions are then asked for again"
    )


class VerifiedPacks:
    """Packs that were verified against their names before, by size, time and inode, so that it is done once a file:
    reading a gigabyte to begin a stage would take seconds, and minutes on a network disk."""

    def __init__(self, path: Path, *, trusting: bool = True) -> None:
        self._path = path
        self._known: dict[str, list[int]] = {}
        if trusting:
            with suppress(OSError, ValueError):
                self._known = json.loads(path.read_bytes())
        self._seen: dict[str, list[int]] = {}

    def check(self, path: Path) -> None:
        """Raises RunError when the bytes of a pack do not match its name."""
        state = path.stat()
        stamp = [state.st_size, state.st_mtime_ns, state.st_ino]
        if self._known.get(path.name) != stamp and pack_digest(path) != path.stem:
            raise damaged_pack(path)
        self._seen[path.name] = stamp

    def save(self) -> None:
        """Remember what was seen; on a disk that cannot be written packs are verified again the next time."""
        if self._seen == self._known:
            return
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Under a name of its own: other processes do the same, and the last one is as right as the first.
            handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(self._seen, file)
            Path(name).replace(self._path)
