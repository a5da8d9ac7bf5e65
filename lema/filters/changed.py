"""A correction corrects something."""

from collections.abc import Iterable, Iterator
from itertools import zip_longest

from lema.filters import Candidate, Finding


def changed(candidates: Iterable[Candidate]) -> Iterator[Finding]:
    """Measures steps that differ from the wrong path; drops 0. Replies without a solution are not judged."""
    for candidate in candidates:
        pairs = zip_longest(candidate.whole_solution, candidate.path)
        differing = sum(step != before for step, before in pairs) if candidate.solution else None
        yield Finding(differing, "the solution is the wrong path again" if differing == 0 else None)
