"""Files of records: .jsonl, .csv and .parquet, read as plain mappings."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lema.errors import RunError

ReadFile = Callable[[str], Iterable[Mapping[str, Any]]]
SUFFIXES = (".jsonl", ".csv", ".parquet")


def read_file(name: str) -> Iterator[dict[str, Any]]:
    """Rows of a .jsonl, .csv or .parquet file, in file order. RunError, with the line, where it cannot be read."""
    path = Path(name)
    if not path.is_file():
        raise RunError(f"no file {name}")
    if path.suffix == ".jsonl":
        yield from _jsonl(path, name)
    elif path.suffix in (".csv", ".parquet"):
        yield from _arrow(path, name)
    else:
        raise RunError(f"{name}: cannot read {path.suffix or 'a file without suffix'}; allowed: {', '.join(SUFFIXES)}")


def _jsonl(path: Path, name: str) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise RunError(f"{name}:{number}: not JSON: {error}") from None
            if not isinstance(row, dict):
                raise RunError(f"{name}:{number}: needs an object with fields, got {type(row).__name__}")
            yield row


def _arrow(path: Path, name: str) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    try:
        if path.suffix == ".csv":
            # Everything stays text: a column of numbers must not turn "007" or "1,000" into something else.
            with path.open(encoding="utf-8") as lines:
                columns = pyarrow.csv.open_csv(path).schema.names if lines.readline() else []
            options = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(columns, pyarrow.string()))
            parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
            batches = iter(pyarrow.csv.open_csv(path, parse_options=parse, convert_options=options))
        else:
            batches = pyarrow.parquet.ParquetFile(path, pre_buffer=False).iter_batches(1000)
        for batch in batches:
            yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise RunError(f"{name}: {error}") from None
