"""A correction goes on from the steps before the incorrect one (the "continuity" of LEMA's human evaluation)."""

from collections.abc import Iterable, Iterator

from lema.filters import Candidate, Finding, ratio
from lema.text.correction_format import ELLIPSIS


def consistent_prefix(candidates: Iterable[Candidate]) -> Iterator[Finding]:
    """Measures the share of the steps before the incorrect one that the solution keeps; drops less than all.

    It keeps them by repeating them or by a first "...". An incorrect step that the path does not have is a reason
    too. Replies without a solution are not judged.
    """
    for candidate in candidates:
        yield _prefix_finding(candidate) if candidate.solution else Finding(None)


def _prefix_finding(candidate: Candidate) -> Finding:
    steps, lines, at = candidate.path, candidate.solution, candidate.correction.incorrect_step
    if at is None or not 1 <= at <= len(steps):
        return Finding(None, f"incorrect step is {at}, the path has {len(steps)}")
    if lines[0] == ELLIPSIS:
        return Finding(0, "'...' stands for no step, incorrect step is 1") if at == 1 else Finding(1)
    lost = [place for place, step in enumerate(steps[: at - 1], start=1) if lines[place - 1 : place] != (step,)]
    kept = ratio(at - 1 - len(lost), at - 1) if at > 1 else 1
    return Finding(kept, f"step {lost[0]} is not kept, incorrect step is {at}" if lost else None)
