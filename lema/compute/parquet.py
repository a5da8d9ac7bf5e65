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
from typing import Any, Generic, Literal, TypeVar

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


def _optional(hint: Any) -> tuple[Any, bool]:
    """`X | None` as (X, True), anything else as (hint, False)."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        rest = [one for one in typing.get_args(hint) if one is not types.NoneType]
        if len(rest) == 1:
            return rest[0], True
    return hint, False


def _field_types(row_type: type) -> dict[str, Any]:
    hints = typing.get_type_hints(row_type)
    return {field.name: hints[field.name] for field in dataclasses.fields(row_type)}


def _element_type(hint: Any) -> Any:
    inner, *rest = typing.get_args(hint)
    if rest != [...] and any(other != inner for other in rest):
        raise TypeError(f"only tuples of any length or of one type can be stored, not {hint}")
    return inner


def _arrow_field(name: str, hint: Any) -> Any:
    hint, nullable = _optional(hint)
    if dataclasses.is_dataclass(hint):
        kind = pa.struct([_arrow_field(*field) for field in _field_types(typing.cast(type, hint)).items()])
    elif typing.get_origin(hint) is tuple:
        kind = pa.list_(_arrow_field("element", _element_type(hint)))
    elif typing.get_origin(hint) is Literal and all(type(value) is str for value in typing.get_args(hint)):
        kind = pa.string()
    elif hint in SCALARS:
        kind = SCALARS[hint]
    else:
        raise TypeError(f"field {name}: {hint} cannot be stored")
    return pa.field(name, kind, nullable=nullable)


def arrow_schema(row_type: type) -> Any:
    """The Arrow schema (`pyarrow.Schema`) of a dataclass, one column a field, in the order of the fields.

    `str`, `bool`, `int` (64 bits), `float` (64 bits), a `Literal` of strings, a dataclass, `tuple[X, ...]` and
    `tuple[X, X]` of one of these, and `X | None`; only the latter is nullable. Raises TypeError for any other type.
    """
    return pa.schema([_arrow_field(*field) for field in _field_types(row_type).items()])


Convert = Callable[[Any], Any]


def _converters(hint: Any) -> tuple[Convert, Convert] | None:
    """Functions that make a value of this type what Arrow takes, dataclasses being dictionaries and tuples lists, and
    the other way round; None when both are the same."""
    hint, nullable = _optional(hint)
    if nullable:
        inner = _converters(hint)
        return inner and (_unless_none(inner[0]), _unless_none(inner[1]))
    if dataclasses.is_dataclass(hint):
        build = typing.cast(type, hint)
        parts = {name: _converters(part) or (_identity, _identity) for name, part in _field_types(build).items()}
        return (
            lambda value: {name: pack(getattr(value, name)) for name, (pack, _) in parts.items()},
            lambda value: build(**{name: unpack(value[name]) for name, (_, unpack) in parts.items()}),
        )
    if typing.get_origin(hint) is tuple:
        pack, unpack = _converters(_element_type(hint)) or (_identity, _identity)
        return lambda value: [pack(one) for one in value], lambda value: tuple(unpack(one) for one in value)
    return None


def _unless_none(convert: Convert) -> Convert:
    return lambda value: None if value is None else convert(value)


def _identity(value: Any) -> Any:
    return value


def rows_to_table(row_type: type[Row], rows: Iterable[Row]) -> Any:
    """Rows as an Arrow table (`pyarrow.Table`), in their order, in one chunk.

    Raises:
        ValueError: a field that is not optional is None.
    """
    rows = list(rows)
    columns: list[Any] = []
    for field, hint in zip(arrow_schema(row_type), _field_types(row_type).values(), strict=True):
        values, convert = list(map(attrgetter(field.name), rows)), _converters(hint)
        column = pa.array([convert[0](value) for value in values] if convert else values, field.type)
        if column.null_count and not field.nullable:
            raise ValueError(f"{row_type.__name__}.{field.name} is None in some row")
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=arrow_schema(row_type)).combine_chunks()


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
        fields = _field_types(self._row_type).items()
        unpackers = [(name, (_converters(hint) or (_identity, _identity))[1]) for name, hint in fields]
        with _readable(self._path), pq.ParquetFile(self._path, pre_buffer=False) as file:
            for batch in file.iter_batches(BATCH, use_threads=False):
                columns = [[unpack(value) for value in batch.column(name).to_pylist()] for name, unpack in unpackers]
                yield from (self._row_type(*values) for values in zip(*columns, strict=True))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise RunError(f"{path} does not exist; the stage that makes it has not run") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise RunError(f"{path} is not a readable Parquet file: {str(error).splitlines()[0]}") from None


def _describe_field(field: Any) -> str:
    return f"{field.type}{' or null' if field.nullable else ''}"


def schema_difference(found: Any, expected: Any) -> str:
    """The first thing in which two schemas differ."""
    for field in expected:
        at = found.get_field_index(field.name)
        if at < 0:
            return f"column {field.name} is missing"
        if not found.field(at).equals(field):
            return f"column {field.name} is {_describe_field(found.field(at))}, not {_describe_field(field)}"
    extra = [name for name in found.names if name not in expected.names]
    return f"unknown column {extra[0]}" if extra else "its columns are in another order"


def read_rows(path: Path, row_type: type[Row]) -> list[Row]:
    """All rows of a file in the order of their ids.

    Raises:
        RunError: the file is missing, is no Parquet file, or has other columns.
    """
    return list(Rows(path, row_type))
