"""`questions`: the questions that are asked, read from raw records by the task."""

import json
from collections.abc import Iterable, Iterator

from lema.errors import RunError
from lema.recipe import QuestionsSpec
from lema.rows import Question, Record, Stratum
from lema.stages import chosen
from lema.tasks import Task


def questions(source: Iterable[Record], *, spec: QuestionsSpec, task: Task) -> Iterator[Question]:
    """A nested choice of each split, so that asking ten more questions keeps all that were asked before.

    RunError, naming the first ten, if records cannot be read: a question without gold answer serves nobody.
    """
    records = [record for record in source if task.counts is None or task.counts(json.loads(record.record))]
    unreadable = []
    for split, size in (("train", spec.train), ("test", spec.test)):
        pool = chosen((record for record in records if record.split == split), spec.seed, lambda record: record.id)
        if size is not None and len(pool) < size:
            raise RunError(f"questions: {size} {split} questions wanted, the source has {len(pool)}")
        for record in sorted(pool[:size], key=lambda record: record.id):
            try:
                reading = task.read(json.loads(record.record))
            except ValueError as error:
                unreadable.append(f"{record.id}: {error}")
                continue
            strata = tuple(Stratum(name, value) for name, value in sorted(reading.strata.items()))
            yield Question(record.id, record.split, reading.text, reading.gold, reading.rationale, strata)
    if unreadable:
        shown = "\n  ".join(unreadable[:10])
        raise RunError(f"questions: task {task.name} cannot read {len(unreadable)} records:\n  {shown}")
