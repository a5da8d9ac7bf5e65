"""Corrections that agree with one another: a check that needs no gold answer."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
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
    keys, answers = list[str](), list[str | None]()
    for candidate in candidates:
        row = candidate.correction
        keys.append(row.sample_id if of == "path" else row.question_id)
        answers.append(row.answer)
    places = defaultdict[str, list[int]](list)
    for place, key in enumerate(keys):
        places[key].append(place)
    agree = dict[int, int]()
    for own in places.values():
        for group in group_equal([answers[place] for place in own], task.equal):
            agree |= {own[vote]: len(group) for vote in group}
    for place, (key, answer) in enumerate(zip(keys, answers, strict=True)):
        if answer is None:
            yield Finding(None, "no answer")
            continue
        votes, value = len(places[key]), ratio(agree[place], len(places[key]))
        reason = f"{agree[place]} of {votes} corrections answer {answer}"
        yield Finding(value, None if value > threshold else reason)
