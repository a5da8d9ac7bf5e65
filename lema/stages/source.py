"""`source`: raw records from a generator, a hub data set or a file, kept as they came."""

import hashlib
import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import PurePath
from typing import Any

from lema.errors import RunError
from lema.recipe.schema import SourceSpec, TestSource
from lema.rows import Record, Split
from lema.tasks import Task
from lema.text.record_files import read_file

# One split of the hub data set or file that a spec names; of another recipe, rows with `id` and `record`.
ReadSplit = Callable[[SourceSpec, Split], Iterable[Mapping[str, Any]]]
RecordsBySplit = Iterator[tuple[Split, Mapping[str, Any]]]

MAX_REPEATS = 10_000  # records in a row that are of no use, after which a generator is held to have no others


def read_split(spec: SourceSpec, split: Split) -> Iterator[Mapping[str, Any]]:
    """One split of a source: of the file that the spec names, or of the hub data set. Of another recipe, rows with
    `record`, JSON as it stands there, and `id`, None for a question that is new."""
    if spec.evolved is not None:
        yield from _other_recipe(spec, split)
        return
    if split == "test" and spec.test_from == "validation":
        split = "validation"
    if spec.file is None:
        yield from _hub(spec, split)
    elif "{split}" in spec.file or split == "train":  # a file without {split} in its name holds the training questions
        yield from read_file(spec.file.replace("{split}", split))


def source(
    *,
    spec: SourceSpec,
    transfer: Mapping[str, TestSource],
    generators: Mapping[str, Task],
    read_split: ReadSplit = read_split,
) -> Iterator[Record]:
    """Records `<name>-<split>-<number>`, numbered in the order of the source; those of a transfer set, whose split is
    its name, `<set>-transfer-<number>`. Records of another recipe keep their ids, by which questions are chosen, so
    that both rounds choose alike. `generators` are by the names in the specs. RunError if there are too few."""
    counts = Counter[str]()
    for split, record in _records(spec, generators, read_split):
        name = f"{_name(spec)}-{split}-{counts[split]:05d}"
        counts[split] += 1
        yield Record(record["id"] or name, split, record["record"]) if spec.evolved else _raw(name, split, record)
    for split in ("train", "test"):
        _check_count(split, counts[split], getattr(spec, split))
    for name, other in transfer.items():
        number = -1
        for number, (_, record) in enumerate(_records(_test_only(other), generators, read_split)):
            yield _raw(f"{name}-transfer-{number:05d}", name, record)
        _check_count(name, number + 1, other.test)


def _raw(name: str, split: Split, record: Mapping[str, Any]) -> Record:
    return Record(name, split, json.dumps(record, sort_keys=True, ensure_ascii=False))


def _check_count(split: str, found: int, wanted: int | None) -> None:
    if wanted is not None and found < wanted:
        raise RunError(f"source: {wanted} {split} records wanted, {found} found")


def _test_only(spec: TestSource) -> SourceSpec:
    """A source that is all test: of one file, everything."""
    one_file = spec.file is not None and "{split}" not in spec.file
    return SourceSpec(**{**dict(spec), "train": 0, "test_from": "train" if one_file else spec.test_from})


def _records(spec: SourceSpec, generators: Mapping[str, Task], read_split: ReadSplit) -> RecordsBySplit:
    if spec.generator:
        yield from _generated(spec, generators[spec.generator])
        return
    if spec.test_from == "train":
        yield from _split_last(read_split(spec, "train"), spec)
        return
    for split, number in (("train", spec.train), ("test", spec.test)):
        if number != 0:
            yield from ((split, record) for record in islice(read_split(spec, split), number))


def _split_last(records: Iterable[Mapping[str, Any]], spec: SourceSpec) -> RecordsBySplit:
    """The last `spec.test` records as test records, the first ones of the others as training records; without such a
    number, all as test records."""
    held_out = deque[Mapping[str, Any]]()
    for number, record in enumerate(records):
        held_out.append(record)
        if spec.test is None:
            yield "test", held_out.popleft()
        elif len(held_out) > spec.test:
            earlier = held_out.popleft()
            if spec.train is None or number - spec.test < spec.train:
                yield "train", earlier
    yield from (("test", record) for record in held_out)


def _generated(spec: SourceSpec, generator: Task) -> RecordsBySplit:
    """Records until both splits are full, each only once."""
    if generator.generate is None:
        raise RunError(f"source: the task {generator.name} has no generator")
    if spec.train is None or spec.test is None:
        raise RunError("source: a generator never ends; say how many `train` and `test` records")
    lacking = {"train": spec.train, "test": spec.test}
    seen = set[tuple[Split, bytes]]()  # hashes of the records
    repeats = 0
    try:
        records = generator.generate(**spec.options)
    except ValueError as error:
        raise RunError(f"source: {generator.name}: {error}") from None
    for split, record in records:
        known = split, hashlib.sha256(json.dumps(record, sort_keys=True).encode()).digest()[:16]
        if lacking.get(split) and known not in seen:
            seen.add(known)
            lacking[split] -= 1
            repeats = 0
            yield split, record
        else:
            repeats += 1
        # An option such as one step of numbers up to 3 may leave only so many different questions.
        if repeats > MAX_REPEATS or not any(lacking.values()):
            break


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


def _other_recipe(spec: SourceSpec, split: Split) -> Iterator[Mapping[str, Any]]:
    """Records of another recipe: its evolved questions to learn from, its own records where they are wanted."""
    for name in spec.artifacts(split):
        for row in read_file(name):
            # An evolved question has no split, and no record when it was dropped.
            if row["record"] is not None and row.get("split", split) == split:
                yield {"id": row["id"] if "split" in row else None, "record": row["record"]}


def _hub(spec: SourceSpec, split: Split) -> Iterator[Mapping[str, Any]]:
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
