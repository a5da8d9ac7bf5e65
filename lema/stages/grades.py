"""`grades`: whether each path ends in the gold answer."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from lema.rows import Grade, Outcome, Question, Sample
from lema.tasks import Task, Undecided
from lema.text.joins import SortedLookup


def grades(
    questions: Iterable[Question], samples: Iterable[Sample], *, task: Task, pmap: Callable[..., Iterator[Any]]
) -> Iterator[Grade]:
    """One row a sample, with an outcome, not a boolean: what could not be judged is not a mistake."""
    asked = SortedLookup(questions)
    return pmap(partial(_grade, task=task), ((sample, asked[sample.question_id].gold) for sample in samples))


def _grade(pair: tuple[Sample, str], *, task: Task) -> Grade:
    sample, gold = pair
    outcome, answer = grade_text(sample.text, sample.finish, gold, task)
    return Grade(sample.id, sample.question_id, sample.sampler, outcome, answer)


def grade_text(text: str, finish: str, gold: str, task: Task) -> tuple[Outcome, str | None]:
    """What a text is worth, and the answer in it. A text that was cut short before it could be right is truncated,
    never incorrect: it is no mistake of reasoning. Neither is one whose answer could not be compared."""
    if finish in ("failed", "refused"):
        return "failed", None
    answer = task.extract(text)
    equal = Undecided.UNPARSED if answer is None else task.equal(answer, gold)
    if equal:
        return "correct", answer
    if finish == "length":
        return "truncated", answer
    if isinstance(equal, Undecided):
        return "unparsed" if equal is Undecided.UNPARSED else "timeout", answer
    return "incorrect", answer
