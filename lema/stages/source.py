"""`source`: raw records from a generator, a hub data set or a file, kept as they came."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import PurePath
from typing import Any

from lema.errors import RunError
from lema.recipe.schema import SourceSpec
from lema.rows import Record, Split
from lema.tasks import Task

# Reads one split of the hub data set or file that a spec names; of another recipe, rows with `id` and `record`.
ReadSplit = Callable[[SourceSpec, Split], Iterable[Mapping[str, Any]]]

# Records in a row that are of no use, after which a generator is held to have no others.
IN_VAIN = 10_000


def source(
    *, spec: SourceSpec, transfer: Mapping[str, SourceSpec], generators: Mapping[str, Task], read_split: ReadSplit
) -> Iterator[Record]:
    """Records `<name>-<split>-<number>`, numbered in the order of the source; those of a transfer set, whose split is
    its name, `<set>-transfer-<number>`. Records of another recipe keep their ids, by which questions are chosen, so
    that both rounds choose alike. `generators` are by the names in the specs. RunError if there are too few."""
    for split, records in _splits(spec, generators, read_split).items():
        made = _records(f"{_name(spec)}-{split}", split, records, getattr(spec, split))
        yield from map(_kept, records, made) if spec.evolved else made
    for name, other in transfer.items():
        records = _splits(_test_only(other), generators, read_split)["test"]
        yield from _records(f"{name}-transfer", name, records, other.test)


def _records(prefix: str, split: str, records: Sequence[Mapping[str, Any]], wanted: int | None) -> Iterator[Record]:
    if wanted is not None and len(records) < wanted:
        raise RunError(f"source: {wanted} {split} records wanted, {len(records)} found")
    for number, record in enumerate(records):
        yield Record(f"{prefix}-{number:05d}", split, json.dumps(record, sort_keys=True, ensure_ascii=False))


def _kept(row: Mapping[str, Any], made: Record) -> Record:
    """A record as it stands in another recipe; the id is a new one if it has none there."""
    return Record(row["id"] or made.id, made.split, row["record"])


def _test_only(spec: SourceSpec) -> SourceSpec:
    """A source that is all test: of one file, everything."""
    one_file = spec.file is not None and "{split}" not in spec.file
    return spec.model_copy(update={"train": 0, "test_from": "train" if one_file else spec.test_from})


def _splits(
    spec: SourceSpec, generators: Mapping[str, Task], read_split: ReadSplit
) -> dict[Split, list[Mapping[str, Any]]]:
    return _generated(spec, generators[spec.generator]) if spec.generator else _read(spec, read_split)


def _generated(spec: SourceSpec, generator: Task) -> dict[Split, list[Mapping[str, Any]]]:
    """Draw until both splits are full; a record that came before is not taken twice."""
    if generator.generate is None:
        raise RunError(f"source: the task {generator.name} has no generator")
    if spec.train is None or spec.test is None:
        raise RunError("source: a generator never ends; say how many `train` and `test` records")
    wanted: dict[Split, int] = {"train": spec.train, "test": spec.test}
    found: dict[Split, dict[str, Mapping[str, Any]]] = {"train": {}, "test": {}}
    in_vain = 0
    try:
        records = generator.generate(**spec.options)
    except ValueError as error:
        raise RunError(f"source: {generator.name}: {error}") from None
    for split, record in records:
        text = json.dumps(record, sort_keys=True)
        if split in wanted and len(found[split]) < wanted[split] and text not in found[split]:
            found[split][text] = record
            in_vain = 0
        else:
            in_vain += 1
        # An option such as one step of numbers up to 3 may leave only so many different questions.
        if in_vain > IN_VAIN or all(len(found[each]) >= wanted[each] for each in wanted):
            break
    return {split: list(records.values()) for split, records in found.items()}


def _read(spec: SourceSpec, read_split: ReadSplit) -> dict[Split, list[Mapping[str, Any]]]:
    train = [] if spec.train == 0 and spec.test_from != "train" else list(read_split(spec, "train"))
    if spec.test_from == "train":
        kept = 0 if spec.test is None else max(0, len(train) - spec.test)
        return {"train": train[:kept][: spec.train], "test": train[kept:]}
    test = [] if spec.test == 0 else list(islice(read_split(spec, "test"), spec.test))
    return {"train": train[: spec.train], "test": test}


def _name(spec: SourceSpec) -> str:
    """What ids begin with: the generator, the data set, the other recipe, or the file or its folder when it is named
    after a split."""
    if spec.generator:
        return spec.generator.rpartition(":")[2]
    if spec.evolved:
        return f"{spec.evolved}-evolved"
    if spec.hub:
        return PurePath(spec.hub).name
    file = PurePath(spec.file or "")
    named_after_split = "{split}" in file.name or file.stem in ("train", "test")
    return (file.parent.name or "file") if named_after_split else file.stem
