"""Filters: which corrections may be learnt from. One file each, named after its function.

A filter walks over all candidates in order and yields one `Finding` for each, or returns a list of them: the number
that it measures, and a reason to drop the candidate or None to keep it. So the decision is a threshold over a statistic
that every row has; a generator keeps memory flat.
Every filter sees every candidate, whatever other filters said. Its options are its keyword-only parameters.

What a filter needs beyond that it asks for, as a stage does, by a keyword-only parameter of one of the names in
`GIVEN`: `questions` (all of the recipe's, read from the disk whenever they are iterated over), `task`, `hint` (what of
the gold solution the corrector was shown), `read_file` (rows of a file), `models` (by the recipe's names) and
`generate` (requests to completions, bought once and kept). An option called `model` names a model of the recipe, one
called `prompt` is a prompt.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from lema.rows import Correction, Finding, Question, Sample
from lema.text.correction_format import expand_ellipsis
from lema.text.steps import split_steps

GIVEN = ("questions", "task", "hint", "read_file", "models", "generate")


@dataclass(frozen=True)
class Candidate:
    """All that a filter may look at: the correction, the wrong path that it corrects, the question, and whether
    the answer of the correction equals the gold answer (None when it has no answer)."""

    question: Question
    sample: Sample
    correction: Correction
    answer_is_gold: bool | None

    @cached_property
    def path(self) -> tuple[str, ...]:
        """The steps of the wrong path; here and below every run of white space is one space."""
        return tuple(normalize_space(step) for step in split_steps(self.sample.text))

    @cached_property
    def solution(self) -> tuple[str, ...]:
        """The steps of the corrected solution, a first "..." among them; none where the reply could not be parsed."""
        lines = (self.correction.solution or "").splitlines()
        return tuple(normalize_space(line) for line in lines if line.strip())

    @cached_property
    def whole_solution(self) -> tuple[str, ...]:
        """The steps of the corrected solution with "..." replaced by those that it stands for."""
        return expand_ellipsis(self.solution, self.correction.incorrect_step or 1, self.path)


class Filter(Protocol):
    """One finding a candidate, in order; called as `filter(candidates, **options)`."""

    def __call__(self, candidates: Iterable[Candidate], /) -> Iterator[Finding]: ...


def distinct_names(uses: Sequence[str]) -> list[str]:
    """The names of a recipe's filters in findings; one that is used again is told apart by its place."""
    return [use if use not in uses[:at] else f"{use}-{at + 1}" for at, use in enumerate(uses)]


def normalize_space(text: str) -> str:
    """A text with every run of white space as one space."""
    return " ".join(text.split())


def ratio(part: float, whole: float) -> float:
    """A share to four digits, as findings have it."""
    return round(part / whole, 4)


__all__ = ["GIVEN", "Candidate", "Filter", "Finding", "distinct_names", "normalize_space", "ratio"]
