"""Corrections that are neither too short nor too long, in words or against the path that they correct."""

from collections.abc import Iterable, Iterator
from typing import Literal

from lema.filters import Candidate, Finding, ratio


def length(
    candidates: Iterable[Candidate],
    *,
    of: Literal["words", "ratio"] = "words",
    least: float | None = None,
    most: float | None = None,
) -> Iterator[Finding]:
    """Measures words of the solution, by themselves or against the path; drops below `least` and above `most`.

    `of: ratio` counts words of the solution for each word of the path. "..." counts as the steps that it stands for.
    Replies without a solution are not judged.
    """
    for candidate in candidates:
        words = sum(len(step.split()) for step in candidate.whole_solution)
        size = words if of == "words" else ratio(words, len(candidate.sample.text.split()) or 1)
        what = f"{size:g} {'words' if of == 'words' else 'times as long as the path'}"
        reason = f"{what}, at least {least:g} wanted" if least is not None and size < least else None
        if most is not None and size > most:
            reason = f"{what}, at most {most:g} wanted"
        yield Finding(size, reason) if words else Finding(None)
