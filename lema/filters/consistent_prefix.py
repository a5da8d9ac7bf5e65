"""A correction goes on from the steps before the incorrect one (the "continuity" of LEMA's human evaluation)."""

from collections.abc import Iterable, Iterator

from lema.filters import Candidate
from lema.filters._text import path, solution
from lema.reply import ELLIPSIS


def consistent_prefix(candidates: Iterable[Candidate]) -> Iterator[str | None]:
    """Drop corrections whose solution does not keep the steps before the incorrect one.

    It keeps them by repeating them or by a first "...". An incorrect step that the path does not have is a reason
    too. Replies without a solution are not judged.
    """
    for candidate in candidates:
        yield _reason(candidate) if solution(candidate) else None


def _reason(candidate: Candidate) -> str | None:
    steps, lines, at = path(candidate), solution(candidate), candidate.correction.incorrect_step
    if at is None or not 1 <= at <= len(steps):
        return f"incorrect step is {at}, the path has {len(steps)}"
    if lines[0] == ELLIPSIS:
        return "'...' stands for no step, incorrect step is 1" if at == 1 else None
    for place, step in enumerate(steps[: at - 1], start=1):
        if lines[place - 1 : place] != (step,):
            return f"step {place} is not kept, incorrect step is {at}"
    return None
