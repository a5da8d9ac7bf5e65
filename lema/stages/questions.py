"""`questions`: the questions that are asked, read from raw records by the task."""

import json
from collections.abc import Iterable, Iterator, Sequence

from lema.errors import RunError
from lema.recipe import QuestionsSpec
from lema.rows import Question, Record, Split, Stratum
from lema.stages import chosen
from lema.tasks import Task


def questions(source: Iterable[Record], *, spec: QuestionsSpec, task: Task) -> Iterator[Question]:
    """A nested choice of each split, so that asking ten more questions keeps all that were asked before.

    The dev questions are the last training records in the order of the choice, the training questions the first; an
    id is that of the record. RunError if there are too few records, and, naming the first ten, if records cannot be
    read: a question without gold answer serves nobody.
    """
    records = list(source)
    unreadable = []
    for split, pool in _pools(records, spec).items():
        for record in sorted(pool, key=lambda record: record.id):
            try:
                reading = task.read(json.loads(record.record))
            except ValueError as error:
                unreadable.append(f"{record.id}: {error}")
                continue
            strata = tuple(Stratum(name, value) for name, value in sorted(reading.strata.items()))
            yield Question(record.id, split, reading.text, reading.gold, reading.rationale, strata)
    if unreadable:
        shown = "\n  ".join(unreadable[:10])
        raise RunError(f"questions: task {task.name} cannot read {len(unreadable)} records:\n  {shown}")


def _pools(records: Sequence[Record], spec: QuestionsSpec) -> dict[Split, Sequence[Record]]:
    """The records of each split, as many as are wanted."""
    train, test = (
        chosen((record for record in records if record.split == split), spec.seed, lambda record: record.id)
        for split in ("train", "test")
    )
    wanted = (spec.train or 0) + spec.dev
    for split, pool, size in (("train", train, wanted), ("test", test, spec.test or 0)):
        if len(pool) < size:
            kinds = "train and dev" if split == "train" and spec.dev else split
            raise RunError(f"questions: {size} {kinds} questions wanted, the source has {len(pool)}")
    kept = len(train) - spec.dev
    return {"train": train[:kept][: spec.train], "dev": train[kept:], "test": test[: spec.test]}
