"""Canonical Parquet: the same rows are the same bytes, whichever process writes them, in any order and portions.

Rows are dataclasses with an `id`; the Arrow schema is derived from their fields. Rows are sorted by id and
written with one schema, codec, level and row-group size, without timestamps or metadata of other libraries. The
version of pyarrow is in the footer of a Parquet file, so bytes are equal within one pinned version.
"""

import dataclasses
import gc
import itertools
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from lema.compute.external_sort import SortedRuns, sort_by_id
from lema.compute.files import atomic
from lema.errors import RunError

ROW_GROUP = 4096
ROW_GROUPS_A_RUN = 8  # row groups that are sorted together when they have come in no order
BATCH = 1024  # rows that are read at once of a file
# What decides the bytes of a file beside its rows; it stands in every plan. Level 3 takes half as long again for 2 to
# 6 % less.
LAYOUT: Mapping[str, Any] = {
    "compression": "zstd",
    "compression_level": 2,
    "use_dictionary": True,
    "write_statistics": True,
    "version": "2.6",
    "data_page_version": "1.0",
    "store_schema": False,
}
SCALARS: dict[Any, Any] = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}

Row = TypeVar("Row")


Convert = Callable[[Any], Any]


class _Column(NamedTuple):
    """How the values of a field are stored: its Arrow field, and what makes of a value what Arrow takes, dataclasses
    being dictionaries and tuples lists, and the other way round; None where both are the same."""

    name: str
    field: Any
    pack: Convert | None = None
    unpack: Convert | None = None


def _columns(row_type: type) -> tuple[_Column, ...]:
    hints = typing.get_type_hints(row_type)
    return tuple(_column(field.name, hints[field.name]) for field in dataclasses.fields(row_type))


def _column(name: str, hint: Any) -> _Column:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union) and len(inner) == 2 and types.NoneType in inner:
        _, field, pack, unpack = _column(name, next(one for one in inner if one is not types.NoneType))
        return _Column(name, field.with_nullable(True), pack and _unless_none(pack), unpack and _unless_none(unpack))
    if dataclasses.is_dataclass(hint):
        build = typing.cast(type, hint)
        parts = _columns(build)
        names = [part.name for part in parts]
        packs, unpacks = ([one or _identity for one in ways] for ways in list(zip(*parts, strict=True))[2:])
        return _Column(
            name,
            pa.field(name, pa.struct([part.field for part in parts]), nullable=False),
            lambda value: {part: pack(getattr(value, part)) for part, pack in zip(names, packs, strict=True)},
            lambda value: build(*(unpack(value[part]) for part, unpack in zip(names, unpacks, strict=True))),
        )
    if origin is tuple:
        if inner[1:] != (...,) and any(other != inner[0] for other in inner):
            raise TypeError(f"only tuples of any length or of one type can be stored, not {hint}")
        element = _column("element", inner[0])
        field = pa.field(name, pa.list_(element.field), nullable=False)
        to_list, to_tuple = element.pack or _identity, element.unpack or _identity
        return _Column(name, field, lambda some: list(map(to_list, some)), lambda some: tuple(map(to_tuple, some)))
    strings = origin is Literal and all(type(value) is str for value in inner)
    if not strings and hint not in SCALARS:
        raise TypeError(f"field {name}: {hint} cannot be stored")
    return _Column(name, pa.field(name, SCALARS[str if strings else hint], nullable=False))


def _unless_none(convert: Convert) -> Convert:
    return lambda value: None if value is None else convert(value)


def _identity(value: Any) -> Any:
    return value


def arrow_schema(row_type: type) -> Any:
    """The Arrow schema (`pyarrow.Schema`) of a dataclass, one column a field, in the order of the fields.

    `str`, `bool`, `int` (64 bits), `float` (64 bits), a `Literal` of strings, a dataclass, `tuple[X, ...]` and
    `tuple[X, X]` of one of these, and `X | None`; only the latter is nullable. Raises TypeError for any other type.
    """
    return pa.schema([column.field for column in _columns(row_type)])


def rows_to_table(row_type: type[Row], rows: Iterable[Row]) -> Any:
    """Rows as an Arrow table (`pyarrow.Table`), in their order, in one chunk.

    Raises:
        ValueError: a field that is not optional is None.
    """
    rows, arrays = list(rows), list[Any]()
    for name, field, pack, _ in _columns(row_type):
        values = map(attrgetter(name), rows)
        arrays.append(pa.array(list(map(pack, values) if pack else values), field.type))
        if arrays[-1].null_count and not field.nullable:
            raise ValueError(f"{row_type.__name__}.{name} is None in some row")
    return pa.Table.from_arrays(arrays, schema=arrow_schema(row_type))


def write_rows(path: Path, row_type: type[Row], rows: Iterable[Row]) -> int:
    """Write rows, sorted by id, and return their number; the file appears whole or not at all.

    Rows that come in order are written as they come, a row group while the next one is made; memory holds a few of
    them. When one comes too late, all are put in order by an external merge sort, whose runs lie beside the file;
    memory then holds all ids.

    Raises:
        RunError: two rows have the same id; the disk is full or not writable.
    """
    groups, late, last = _sorted_groups(row_type, rows), None, None
    path.parent.mkdir(parents=True, exist_ok=True)
    with SortedRuns(path.parent) as runs, atomic(path) as partial, _few_collections():
        with _row_group_writer(partial, arrow_schema(row_type)) as put:
            for group in groups:
                if last is not None and group["id"][0].as_py() <= last:
                    late = group
                    break
                put(group)
                last = group["id"][-1].as_py() if group.num_rows else None
        if late is not None:
            with pq.ParquetFile(partial) as early:
                written = map(early.read_row_group, range(early.num_row_groups))
                rest = itertools.chain(written, [late], groups)
                while run := list(itertools.islice(rest, ROW_GROUPS_A_RUN)):
                    runs.add(sort_by_id(pa.concat_tables(run), row_type.__name__))
            with _row_group_writer(partial, arrow_schema(row_type)) as put:
                for group in runs.merged(ROW_GROUP, row_type.__name__):
                    put(group)
        count: int = pq.read_metadata(partial).num_rows
    return count


@contextmanager
def _few_collections() -> Iterator[None]:
    """Rows hold no cycles: Python's collector looks through them seldom, and never through what was there before."""
    usual = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(10_000, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()


def _sorted_groups(row_type: type[Row], rows: Iterable[Row]) -> Iterator[Any]:
    """Rows as they come, a row group at a time, each sorted by itself; no rows at all are an empty one."""
    rest = iter(rows)
    group = list(itertools.islice(rest, ROW_GROUP))
    while True:
        yield sort_by_id(rows_to_table(row_type, group), row_type.__name__)
        group = list(itertools.islice(rest, ROW_GROUP))
        if not group:
            return


@contextmanager
def _row_group_writer(path: Path, fields: Any) -> Iterator[Callable[[Any], None]]:
    """A function that writes a row group, each while the next one is made: it is compressed in a thread."""
    with (
        pq.ParquetWriter(path, fields, **LAYOUT) as writer,
        ThreadPoolExecutor(1) as thread,
    ):
        written: Future[None] | None = None

        def put(group: Any) -> None:
            nonlocal written
            if written:
                written.result()
            written = thread.submit(writer.write_table, group, row_group_size=ROW_GROUP)

        yield put
        if written:
            written.result()


class Rows(Generic[Row]):
    """The rows of a file in the order of their ids. They are read whenever they are walked over, a few at a time, so
    memory does not grow with their number.

    Raises:
        RunError: the file is missing, is no Parquet file, or has other columns.
    """

    def __init__(self, path: Path, row_type: type[Row]) -> None:
        self._path, self._row_type = path, row_type
        expected = arrow_schema(row_type)
        with _readable(path):
            found = pq.read_schema(path)
        if not found.equals(expected, check_metadata=False):
            raise RunError(f"{path} does not hold rows of {row_type.__name__}: {schema_difference(found, expected)}")

    def __iter__(self) -> Iterator[Row]:
        columns = [(name, unpack or _identity) for name, _, _, unpack in _columns(self._row_type)]
        # Without `pre_buffer`, which would read the whole file at once, and threads, memory holds a few pages.
        with _readable(self._path), pq.ParquetFile(self._path, pre_buffer=False) as file:
            for batch in file.iter_batches(BATCH, use_threads=False):
                values = [map(unpack, batch.column(name).to_pylist()) for name, unpack in columns]
                yield from itertools.starmap(self._row_type, zip(*values, strict=True))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise RunError(f"{path} does not exist; the stage that makes it has not run") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise RunError(f"{path} is not a readable Parquet file: {str(error).splitlines()[0]}") from None


def schema_difference(found: Any, expected: Any) -> str:
    """The first thing in which two schemas differ."""
    for field in expected:
        at = found.get_field_index(field.name)
        if at < 0:
            return f"column {field.name} is missing"
        if not found.field(at).equals(field):
            there, wanted = (f"{one.type}{' or null' * one.nullable}" for one in (found.field(at), field))
            return f"column {field.name} is {there}, not {wanted}"
    extra = [name for name in found.names if name not in expected.names]
    return f"unknown column {extra[0]}" if extra else "its columns are in another order"


def read_rows(path: Path, row_type: type[Row]) -> list[Row]:
    """All rows of a file in the order of their ids.

    Raises:
        RunError: the file is missing, is no Parquet file, or has other columns.
    """
    return list(Rows(path, row_type))
