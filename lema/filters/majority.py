"""Corrections that agree with one another: a check that needs no gold answer."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import attrgetter
from typing import Literal

from lema.filters import Candidate, Finding, ratio
from lema.tasks import Task, group_equal


def majority(
    candidates: Iterable[Candidate], *, of: Literal["path", "question"] = "path", threshold: float = 0.5, task: Task
) -> Iterator[Finding]:
    """Measures the share of the tries for the same wrong path that have this answer; drops `threshold` and less.

    `of: question` counts the corrections of all wrong paths of a question. Tries without an answer count among all,
    and are dropped. Answers are compared as the task does. A single try agrees with itself. The idea is that of
    self-consistency (arXiv 2203.11171).
    """
    keys = {"path": attrgetter("correction.sample_id"), "question": attrgetter("correction.question_id")}
    for _, group in groupby(candidates, key=keys[of]):
        answers = [candidate.correction.answer for candidate in group]
        agree = {place: len(equal) for equal in group_equal(answers, task.equal) for place in equal}
        for place, answer in enumerate(answers):
            value = ratio(agree.get(place, 0), len(answers))
            reason = f"{agree.get(place)} of {len(answers)} corrections answer {answer}" if value <= threshold else None
            yield Finding(None, "no answer") if answer is None else Finding(value, reason)
