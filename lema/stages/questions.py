"""`questions`: the questions that are asked, read from raw records by the task."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from lema.errors import RunError
from lema.recipe.schema import ContaminationSpec, QuestionsSpec
from lema.rows import Question, Record, Split, Stratum
from lema.stages.common import stable_shuffle
from lema.tasks import Task
from lema.text.ngrams import NgramIndex, file_texts


def questions(
    source: Iterable[Record],
    *,
    spec: QuestionsSpec,
    tasks: Mapping[Split, Task],
    contamination: ContaminationSpec | Literal[False],
    read_file: Callable[[str], Iterable[Mapping[str, Any]]],
    say: Callable[[str], None],
) -> Iterator[Question]:
    """A nested choice of each split, so that asking ten more questions keeps all that were asked before.

    The dev questions are the last training records in the order of the choice, the training questions the first; an
    id is that of the record. A training record that holds a test question is passed over for the next one, and `say`
    is told how many are. RunError if there are too few records, and, naming the first ten, if records cannot be
    read: a question without gold answer serves nobody.
    """

    def counts(record: Record) -> bool:
        test = tasks[record.split].counts
        return test is None or test(json.loads(record.record))

    records = [record for record in source if counts(record)]
    unreadable = dict[str, list[str]]()
    pools = _pools(records, spec)
    if contamination:
        holds = _holds(records, pools.get("dev", ()), tasks, contamination, read_file)
        pools["train"] = _clean(pools["train"], spec.train, holds, say)
    pools["train"] = pools["train"][: spec.train]
    for split, pool in pools.items():
        for record in sorted(pool, key=lambda record: record.id):
            try:
                reading = tasks[split].read(json.loads(record.record))
            except ValueError as error:
                unreadable.setdefault(tasks[split].name, []).append(f"{record.id}: {error}")
                continue
            strata = tuple(Stratum(name, value) for name, value in sorted(reading.strata.items()))
            yield Question(record.id, split, reading.text, reading.gold, reading.rationale, strata)
    for name, messages in unreadable.items():
        shown = "\n  ".join(messages[:10])
        raise RunError(f"questions: task {name} cannot read {len(messages)} records:\n  {shown}")


def _pools(records: Sequence[Record], spec: QuestionsSpec) -> dict[Split, list[Record]]:
    """The records of each split, as many as are wanted; of train all but dev, in the order of the choice."""
    pools, sizes = {}, {name: one.test for name, one in spec.transfer.items()}
    for split, size in {"train": spec.train, "test": spec.test, **sizes}.items():
        own = (record for record in records if record.split == split)
        pools[split] = stable_shuffle(own, spec.seed, lambda record: record.id)
        dev = spec.dev if split == "train" else 0
        if (wanted := (size or 0) + dev) > len(pools[split]):
            kinds = f"{split} and dev" if dev else split
            raise RunError(f"questions: {wanted} {kinds} questions wanted, the source has {len(pools[split])}")
        if dev:
            pools[split], pools["dev"] = pools[split][:-dev], pools[split][-dev:]
        pools[split] = pools[split] if split == "train" else pools[split][:size]
    return pools


def _holds(
    records: Sequence[Record],
    dev: Iterable[Record],
    tasks: Mapping[Split, Task],
    contamination: ContaminationSpec,
    read_file: Callable[[str], Iterable[Mapping[str, Any]]],
) -> Callable[[Record], str | None]:
    """What says which test question a training record holds. All test and transfer records count, asked or not: so the
    choice is the same however many are asked."""

    def read(record: Record) -> tuple[str, str]:
        try:
            reading = tasks[record.split].read(json.loads(record.record))
        except ValueError:
            return "", ""  # told about if it is asked
        return reading.text, reading.rationale or ""

    kept = [*(record for record in records if record.split != "train"), *dev]
    tests = {record.id: read(record)[0] for record in kept}
    more = file_texts(contamination.files, contamination.field, read_file)
    index = NgramIndex(tests | dict(more), contamination.ngram)

    def holds(record: Record) -> str | None:
        text, *others = read(record)
        overlap = index.overlap(text, others)
        return index.describe(overlap) if overlap.share > contamination.limit else None

    return holds


def _clean(
    pool: Sequence[Record], size: int | None, holds: Callable[[Record], str | None], say: Callable[[str], None]
) -> list[Record]:
    """The first `size` records that hold no test question, or all of them."""
    clean, passed = list[Record](), list[str]()
    for record in pool:
        if len(clean) == size:
            break
        if reason := holds(record):
            passed.append(f"{record.id}, which {reason}")
        else:
            clean.append(record)
    example = f", such as {passed[0]}" if passed else ""
    told = f"{len(passed)} training records passed over because of test questions{example}"
    wanted = min(1, len(pool)) if size is None else size
    if len(clean) < wanted:
        raise RunError(f"questions: {wanted} train questions wanted, {len(clean)} are left: {told}")
    if passed:
        say(told)
    return clean
