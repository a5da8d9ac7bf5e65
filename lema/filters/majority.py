"""Corrections that agree with one another: a check that needs no gold answer."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Literal

from lema.filters import Candidate, Finding
from lema.filters._text import share
from lema.tasks import Task


def majority(
    candidates: Iterable[Candidate], *, of: Literal["path", "question"] = "path", threshold: float = 0.5, task: Task
) -> Iterator[Finding]:
    """Measures the share of the tries for the same wrong path that have this answer; drops `threshold` and less.

    `of: question` counts the corrections of all wrong paths of a question. Tries without an answer count among all,
    and are dropped. Answers are compared as the task does. A single try agrees with itself. The idea is that of
    self-consistency (arXiv 2203.11171).
    """
    rows = list(candidates)
    groups = defaultdict[str, list[str | None]](list)
    for row in rows:
        groups[_group(row, of)].append(row.correction.answer)
    for row in rows:
        answer, votes = row.correction.answer, groups[_group(row, of)]
        if answer is None:
            yield Finding(None, "no answer")
            continue
        agree = sum(vote is not None and (vote == answer or bool(task.equal(vote, answer))) for vote in votes)
        value = share(agree, len(votes))
        says = f"{agree} of {len(votes)} corrections answer {answer}"
        yield Finding(value, None if value > threshold else says)


def _group(row: Candidate, of: str) -> str:
    return row.correction.sample_id if of == "path" else row.correction.question_id
