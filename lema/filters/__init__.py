"""Filters: which corrections may be learnt from. One file each, named after its function.

A filter walks over all candidates in order and yields, for each, a reason to drop it or None to keep it.
Every filter sees every candidate, whatever other filters said. Its options are its keyword-only parameters.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from lema.rows import Correction, Question, Sample


@dataclass(frozen=True, slots=True)
class Candidate:
    """All that a filter may look at: the correction, the wrong path that it corrects, the question, and whether
    the answer of the correction equals the gold answer (None when it has no answer)."""

    question: Question
    sample: Sample
    correction: Correction
    answer_is_gold: bool | None


class Filter(Protocol):
    """One reason or None a candidate, in order; called as `filter(candidates, **options)`."""

    def __call__(self, candidates: Iterable[Candidate], /) -> Iterator[str | None]: ...
