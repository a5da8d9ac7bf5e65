"""`questions`: the questions that are asked, read from raw records by the task."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lema.errors import RunError
from lema.recipe import QuestionsSpec
from lema.rows import Question, Record, Split, Stratum
from lema.stages import chosen
from lema.tasks import Task


def questions(source: Iterable[Record], *, spec: QuestionsSpec, tasks: Mapping[Split, Task]) -> Iterator[Question]:
    """A nested choice of each split, so that asking ten more questions keeps all that were asked before.

    The dev questions are the last training records in the order of the choice, the training questions the first; an
    id is that of the record. RunError if there are too few records, and, naming the first ten, if records cannot be
    read: a question without gold answer serves nobody.
    """

    def counts(record: Record) -> bool:
        test = tasks[record.split].counts
        return test is None or test(json.loads(record.record))

    records = [record for record in source if counts(record)]
    unreadable = dict[str, list[str]]()
    for split, pool in _pools(records, spec).items():
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
    """The records of each split, as many as are wanted."""
    pools, sizes = {}, {name: one.test for name, one in spec.transfer.items()}
    for split, size in {"train": spec.train, "test": spec.test, **sizes}.items():
        own = (record for record in records if record.split == split)
        pools[split] = chosen(own, spec.seed, lambda record: record.id)
        dev = spec.dev if split == "train" else 0
        if (wanted := (size or 0) + dev) > len(pools[split]):
            kinds = f"{split} and dev" if dev else split
            raise RunError(f"questions: {wanted} {kinds} questions wanted, the source has {len(pools[split])}")
        if dev:
            pools[split], pools["dev"] = pools[split][:-dev], pools[split][-dev:]
        pools[split] = pools[split][:size]
    return pools
