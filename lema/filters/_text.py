"""Texts compared without regard to how they are set."""

from lema.filters import Candidate
from lema.text.correction_format import expand
from lema.text.steps import split


def squeezed(text: str) -> str:
    """A text with every run of white space as one space."""
    return " ".join(text.split())


def path(candidate: Candidate) -> tuple[str, ...]:
    """The steps of the wrong path."""
    return tuple(squeezed(step) for step in split(candidate.sample.text))


def solution(candidate: Candidate) -> tuple[str, ...]:
    """The steps of the corrected solution, a first "..." among them; none where the reply could not be read."""
    return tuple(squeezed(line) for line in (candidate.correction.solution or "").splitlines() if line.strip())


def whole_solution(candidate: Candidate) -> tuple[str, ...]:
    """The corrected solution with "..." replaced by the steps that it stands for."""
    return expand(solution(candidate), candidate.correction.incorrect_step or 1, path(candidate))


def share(part: float, whole: float) -> float:
    """A share to four digits, as findings show it."""
    return round(part / whole, 4)
