"""`questions`: the questions that are asked, read from raw records by the task."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

from lema.errors import RunError
from lema.recipe.schema import ContaminationSpec, QuestionsSpec
from lema.rows import Question, Record, Split, Stratum
from lema.stages.common import stable_shuffle
from lema.tasks import Task
from lema.text.ngrams import NgramIndex, file_texts
from lema.text.record_files import ReadFile
from lema.text.record_files import read_file as read_record_file


def questions(
    source: Iterable[Record],
    *,
    spec: QuestionsSpec,
    tasks: Mapping[Split, Task],
    contamination: ContaminationSpec | Literal[False],
    log: Callable[[str], None],
    read_file: ReadFile = read_record_file,
) -> Iterator[Question]:
    """A nested choice of each split, so that asking ten more questions keeps all that were asked before.

    The dev questions are the last training records in the order of the choice, the training questions the first; an
    id is that of the record. A training record that holds a test question is passed over for the next one, and `log`
    gets their number. RunError if there are too few records, and, naming the first ten, if records cannot be read: a
    question without gold answer serves nobody.
    """

    def records() -> Iterator[Record]:
        for record in source:
            counts = tasks[record.split].counts
            if counts is None or counts(json.loads(record.record)):
                yield record

    pools = _pools(records(), spec)
    if contamination:
        overlaps = _overlap_check(records, pools.get("dev", ()), tasks, contamination, read_file)
        pools["train"] = _without_overlaps(pools["train"], spec.train, records, overlaps, log)
    pools["train"] = pools["train"][: spec.train]
    chosen = {name: split for split, pool in pools.items() for name in pool}
    unreadable = dict[str, list[str]]()
    for record in records():
        if (split := chosen.get(record.id)) is None:
            continue
        try:
            reading = tasks[split].read(json.loads(record.record))
        except ValueError as error:
            unreadable.setdefault(tasks[split].name, []).append(f"{record.id}: {error}")
            continue
        except Exception as error:  # a task of the user's may raise anything
            raise RunError(
                f"questions: task {tasks[split].name} raised {type(error).__name__}: {error} for the record "
                f"{record.id}; for a record that it cannot take `read` raises ValueError, saying what is missing"
            ) from error
        strata = tuple(Stratum(name, value) for name, value in sorted(reading.strata.items()))
        yield Question(record.id, split, reading.text, reading.gold, reading.rationale, strata)
    for name, messages in unreadable.items():
        shown = "\n  ".join(messages[:10])
        raise RunError(f"questions: task {name} cannot read {len(messages)} records:\n  {shown}")


def _pools(records: Iterable[Record], spec: QuestionsSpec) -> dict[Split, list[str]]:
    """The ids of each split's records, as many as are wanted; of train all but dev, in the order of the choice."""
    found = defaultdict[Split, list[str]](list)
    for record in records:
        found[record.split].append(record.id)
    pools, sizes = dict[Split, list[str]](), {name: one.test for name, one in spec.transfer.items()}
    for split, size in {"train": spec.train, "test": spec.test, **sizes}.items():
        pools[split] = stable_shuffle(found[split], spec.seed, str)
        dev = spec.dev if split == "train" else 0
        if (wanted := (size or 0) + dev) > len(pools[split]):
            kinds = f"{split} and dev" if dev else split
            raise RunError(f"questions: {wanted} {kinds} questions wanted, the source has {len(pools[split])}")
        if dev:
            pools[split], pools["dev"] = pools[split][:-dev], pools[split][-dev:]
        pools[split] = pools[split] if split == "train" else pools[split][:size]
    return pools


def _overlap_check(
    records: Callable[[], Iterable[Record]],
    dev: Iterable[str],
    tasks: Mapping[Split, Task],
    contamination: ContaminationSpec,
    read_file: ReadFile,
) -> Callable[[Record], str | None]:
    """A function that returns the test question that a training record holds. All test and transfer records count,
    asked or not: so the choice is the same however many are asked."""

    def read(record: Record) -> tuple[str, str]:
        try:
            reading = tasks[record.split].read(json.loads(record.record))
        except Exception:
            return "", ""  # an error if it is asked
        return reading.text, reading.rationale or ""

    held_out = dict.fromkeys(dev, "")
    tests = {record.id: read(record)[0] for record in records() if record.split != "train" or record.id in held_out}
    tests |= {name: tests.pop(name) for name in held_out}
    more = file_texts(contamination.files, contamination.field, read_file)
    index = NgramIndex(tests | dict(more), contamination.ngram)

    def overlaps(record: Record) -> str | None:
        text, *others = read(record)
        overlap = index.overlap(text, others)
        return index.describe(overlap) if overlap.share > contamination.limit else None

    return overlaps


def _without_overlaps(
    pool: Sequence[str],
    size: int | None,
    records: Callable[[], Iterable[Record]],
    overlaps: Callable[[Record], str | None],
    log: Callable[[str], None],
) -> list[str]:
    """The first `size` records that hold no test question, or all of them. As many are looked at as it takes: each
    pass over the records looks at what is still lacking."""
    reasons = dict[str, str]()
    seen, lacking = 0, len(pool) if size is None else size
    while lacking and seen < len(pool):
        due = frozenset(pool[seen : seen + lacking])
        seen += len(due)
        found = ((record.id, overlaps(record)) for record in records() if record.id in due)
        reasons |= {name: reason for name, reason in found if reason}
        lacking = lacking - len(due) + len(due & reasons.keys())
    clean = [name for name in pool[:seen] if name not in reasons]
    passed = [name for name in pool[:seen] if name in reasons]
    example = f", such as {passed[0]}, which {reasons[passed[0]]}" if passed else ""
    told = f"{len(passed)} training records passed over because of test questions{example}"
    wanted = min(1, len(pool)) if size is None else size
    if len(clean) < wanted:
        raise RunError(f"questions: {wanted} train questions wanted, {len(clean)} are left: {told}")
    if passed:
        log(told)
    return clean
