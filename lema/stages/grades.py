"""`grades`: whether each path ends in the gold answer."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from lema.rows import Grade, Question, Sample
from lema.stages import grade
from lema.tasks import Task


def grades(
    questions: Iterable[Question], samples: Iterable[Sample], *, task: Task, pmap: Callable[..., Iterator[Any]]
) -> Iterator[Grade]:
    """One row a sample, with an outcome, not a boolean: what could not be judged is not a mistake."""
    gold = {question.id: question.gold for question in questions}
    return pmap(partial(_grade, task=task), ((sample, gold[sample.question_id]) for sample in samples))


def _grade(pair: tuple[Sample, str], *, task: Task) -> Grade:
    sample, gold = pair
    outcome, answer = grade(sample.text, sample.finish, gold, task)
    return Grade(sample.id, sample.question_id, sample.sampler, outcome, answer)
