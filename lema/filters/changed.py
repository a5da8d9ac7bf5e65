"""A correction corrects something."""

from collections.abc import Iterable, Iterator
from itertools import zip_longest

from lema.filters import Candidate, Finding
from lema.filters._text import path, solution, whole_solution


def changed(candidates: Iterable[Candidate]) -> Iterator[Finding]:
    """Measures steps that differ from the wrong path; drops 0. Replies without a solution are not judged."""
    for candidate in candidates:
        if not solution(candidate):
            yield Finding(None)
            continue
        pairs = zip_longest(whole_solution(candidate), path(candidate))
        differing = sum(step != before for step, before in pairs)
        yield Finding(differing, None if differing else "the solution is the wrong path again")
