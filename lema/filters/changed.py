"""A correction corrects something."""

from collections.abc import Iterable, Iterator

from lema.filters import Candidate
from lema.filters._text import path, solution, whole_solution


def changed(candidates: Iterable[Candidate]) -> Iterator[str | None]:
    """Drop corrections whose solution is the wrong path again. Replies without a solution are not judged."""
    for candidate in candidates:
        again = solution(candidate) and whole_solution(candidate) == path(candidate)
        yield "the solution is the wrong path again" if again else None
