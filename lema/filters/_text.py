"""Texts compared without regard to how they are set."""

import re
from collections.abc import Sequence

from lema.filters import Candidate
from lema.reply import expand
from lema.steps import split

_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:'[^\W\d_]+)*|[-+*/^=%<>$€£×÷]")


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


def words(text: str) -> tuple[str, ...]:
    """The words, numbers and signs of arithmetic in a text, in lower case: what is left when it is set differently."""
    return tuple(_WORD.findall(text.lower().replace("’", "'")))


def grams(sequence: Sequence[str], n: int) -> set[tuple[str, ...]]:
    """All runs of `n` words; none in a shorter text."""
    return {tuple(sequence[at : at + n]) for at in range(len(sequence) - n + 1)}


def share(part: float, whole: float) -> float:
    """A share to four digits, as findings show it."""
    return round(part / whole, 4)
