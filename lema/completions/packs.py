"""Packs of the completion store: immutable Parquet files, each named after the SHA-256 of its bytes.

Rows lie in the order in which they were bought, in row groups of about a mebibyte, so that who asks again in the same
order reads each part of a pack once. Packs of before (sorted by key, in large row groups, without `cached_tokens`) are
read all the same. Whole packs are held against their names once a file, pages against their CRC at every reading.
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

from lema.completions.index import KEY
from lema.compute import files, parquet
from lema.errors import RunError
from lema.models.types import Completion
from lema.rows import Finish, row_class

SERVED = ("stop", "length")
NAME = 32  # hexadecimal digits
GROUP = 2**20  # bytes of text in a row group
PACK = 2**27  # bytes of text in a pack
LEVEL = 3  # of zstd: packs are written once and for ever
ROW = 200  # bytes that a row takes beside its text
PARTIAL = ".pack.partial"

# Reads ahead, one row group at a time: decompressing needs no lock of Python's.
_thread = ThreadPoolExecutor(1)


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


def write_packs(folder: Path, entries: Iterable[Entry]) -> list[Path]:
    """Write entries in their order into as many packs as they need, on the disk when this returns; one at a time a
    folder. Memory holds a row group.

    Raises:
        OSError: the disk is full or not writable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial, made = folder / PARTIAL, []
    groups = _groups(entries)
    try:
        for group in groups:
            with pq.ParquetWriter(
                partial,
                parquet.arrow_schema(Entry),
                compression="zstd",
                compression_level=LEVEL,
                use_dictionary=["model", "finish", "error"],
                write_statistics=False,
                version="2.6",
                data_page_version="1.0",
                store_schema=False,
                write_page_checksum=True,
            ) as writer:
                size = _write(writer, group)
                while size < PACK and (more := next(groups, None)) is not None:
                    size += _write(writer, more)
            files.fsync_path(partial)
            path = folder / f"{pack_digest(partial)}.parquet"
            partial.replace(path)
            files.fsync_path(folder)
            made.append(path)
    finally:
        partial.unlink(missing_ok=True)
    return made


def _groups(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    group: list[Entry] = []
    size = 0
    for entry in entries:
        group.append(entry)
        size += len(entry.text) + ROW
        if size >= GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group


def _write(writer: Any, group: list[Entry]) -> int:
    fields = parquet.arrow_schema(Entry)
    columns = [pa.array([getattr(entry, field.name) for entry in group], field.type) for field in fields]
    writer.write_table(pa.Table.from_arrays(columns, schema=fields), row_group_size=len(group))
    return sum(len(entry.text) + ROW for entry in group)


def pack_digest(path: Path) -> str:
    """The name that a pack of these bytes has."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:NAME]


def pack_paths(folder: Path) -> list[Path]:
    """The packs of a folder in the order of their names."""
    return sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))


class Pack:
    """A pack that can be read. Raises RunError when it is no pack, OSError when it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = pq.ParquetFile(path, page_checksum_verification=True)
        except pa.ArrowInvalid as error:
            raise RunError(f"{path} is not a readable Parquet file: {str(error).splitlines()[0]}") from None
        known, found = parquet.arrow_schema(Entry), self._file.schema_arrow
        before = known.remove(known.get_field_index("cached_tokens"))
        if not any(found.equals(one, check_metadata=False) for one in (known, before)):
            raise RunError(f"{path} does not hold completions: {parquet.schema_difference(found, known)}")
        self._columns = [name for name in found.names if name != "model"]
        self._next = 0
        self._ahead: Future[Any] | None = None

    def keys(self) -> tuple[bytes, Any, Any]:
        """Of all rows the key, 32 bytes each, the row group, and whether the reply can be served (numpy arrays)."""
        table = self._file.read(columns=["id", "finish"], use_threads=False)
        try:
            keys = b"".join(binascii.unhexlify(_bytes(chunk)) for chunk in table["id"].chunks)
        except ValueError:
            raise RunError(f"{self.path} does not hold completions: ids are not keys of requests") from None
        metadata = self._file.metadata
        sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        groups = np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)
        served = pc.is_in(table["finish"], value_set=pa.array(SERVED)).to_numpy()
        return keys, groups, served

    def labels(self) -> Iterator[tuple[str, str, bool]]:
        """Of all rows the key, the label of the model, and whether the reply can be served."""
        for batch in self._file.iter_batches(columns=["id", "model", "finish"], use_threads=False):
            for key, label, finish in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield key, label, finish in SERVED

    def group(self, number: int) -> Iterator[tuple[str, Completion]]:
        """The keys and replies of a row group. Who reads them in their order finds the next one read."""
        goes_on, ahead = number == self._next, self._ahead
        table = (ahead if ahead and goes_on else _thread.submit(self._read, number)).result()
        self._next, self._ahead = number + 1, None
        if goes_on and self._next < self._file.num_row_groups:
            self._ahead = _thread.submit(self._read, self._next)
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
        if self._ahead:
            self._ahead.exception()  # it is still being read
        self._file.close()


def _bytes(ids: Any) -> bytes:
    """The names of keys, one after the other. Raises ValueError when one is of another length."""
    lengths = pc.unique(pc.binary_length(ids)).to_pylist()
    if lengths not in ([], [2 * KEY]):
        raise ValueError
    text = pa.concat_arrays([ids]) if ids.offset else ids
    return bytes(text.buffers()[2].to_pybytes()[: 2 * KEY * len(ids)]) if len(ids) else b""


def damaged_pack(path: Path) -> RunError:
    return RunError(
        f"{path} is damaged: its bytes do not match its name. Fetch it again (`lema completions pull`) or, when there "
        "is no other copy, delete it: its completions are then asked for again"
    )


class VerifiedPacks:
    """Packs that were held against their names before, by size, time and inode, so that it is done once a file: reading
    a gigabyte to begin a stage would take seconds, and minutes on a network disk."""

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
