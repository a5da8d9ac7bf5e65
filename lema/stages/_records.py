"""Reading what lies outside: records of a file or of a hub data set, as plain mappings."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lema.errors import RunError
from lema.recipe.schema import SourceSpec

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


def read_split(spec: SourceSpec, split: str) -> Iterator[dict[str, Any]]:
    """One split of a source: of the file that the spec names, or of the hub data set. Of a round, rows of the other
    recipe: `record`, JSON as it stands there, and `id`, None for a question that is new."""
    if spec.evolved is not None:
        yield from _round(spec, split)
        return
    if split == "test" and spec.test_from == "validation":
        split = "validation"
    if spec.file is not None:
        # A file without {split} in its name holds one split, the training questions.
        if "{split}" in spec.file or split == "train":
            yield from read_file(spec.file.replace("{split}", split))
        return
    yield from _hub(spec, split)


def _round(spec: SourceSpec, split: str) -> Iterator[dict[str, Any]]:
    """Records of another recipe: its evolved questions to learn from, its own records where they are wanted."""
    for name in spec.artifacts(split):
        for row in read_file(name):
            # An evolved question has no split, and no record when it was dropped.
            if row["record"] is not None and row.get("split", split) == split:
                yield {"id": row["id"] if "split" in row else None, "record": row["record"]}


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
            table = pyarrow.csv.read_csv(path, parse_options=parse, convert_options=options)
        else:
            table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise RunError(f"{name}: {error}") from None
    for batch in table.to_batches(max_chunksize=1000):
        yield from batch.to_pylist()


def _hub(spec: SourceSpec, split: str) -> Iterator[dict[str, Any]]:
    try:
        import datasets
    except ImportError:
        raise RunError("source: reading from the hub needs the extra `hub`: pip install -e '.[hub]'") from None
    try:
        rows = datasets.load_dataset(spec.hub, spec.config, split=split, revision=spec.revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(f"source: cannot load {spec.hub}, split {split}: {reason}") from None
    yield from rows
