"""`source`: raw records from a generator, a hub data set or a file, kept as they came."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import PurePath
from typing import Any, get_args

from lema.errors import RunError
from lema.recipe import SourceSpec
from lema.rows import Record, Split
from lema.tasks import Task

# Reads one split of the hub data set or file that a spec names.
ReadSplit = Callable[[SourceSpec, Split], Iterable[Mapping[str, Any]]]

# Records in a row that are of no use, after which a generator is held to have no others.
IN_VAIN = 10_000


def source(*, spec: SourceSpec, generator: Task | None, read_split: ReadSplit) -> Iterator[Record]:
    """Records `<name>-<split>-<number>`, numbered in the order of the source. RunError if there are too few."""
    splits = _generated(spec, generator) if generator else _read(spec, read_split)
    for split, records in splits.items():
        wanted = getattr(spec, split)
        if wanted is not None and len(records) < wanted:
            raise RunError(f"source: {wanted} {split} records wanted, {len(records)} found")
        for number, record in enumerate(records):
            text = json.dumps(record, sort_keys=True, ensure_ascii=False)
            yield Record(f"{_name(spec)}-{split}-{number:05d}", split, text)


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
        if len(found[split]) < wanted[split] and text not in found[split]:
            found[split][text] = record
            in_vain = 0
        else:
            in_vain += 1
        # An option such as one step of numbers up to 3 may leave only so many different questions.
        if in_vain > IN_VAIN or all(len(found[each]) >= wanted[each] for each in wanted):
            break
    return {split: list(records.values()) for split, records in found.items()}


def _read(spec: SourceSpec, read_split: ReadSplit) -> dict[Split, list[Mapping[str, Any]]]:
    train = list(read_split(spec, "train"))
    if spec.test_from == "train":
        kept = max(0, len(train) - (spec.test or 0))
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
    named_after_split = "{split}" in file.name or file.stem in get_args(Split)
    return (file.parent.name or "file") if named_after_split else file.stem
