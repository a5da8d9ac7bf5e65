"""A correction names the incorrect step, explains the mistake and gives a solution."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from lema.filters import Candidate, Finding


def has_fields(
    candidates: Iterable[Candidate], *, without: Sequence[Literal["incorrect_step", "explanation"]] = ()
) -> Iterator[Finding]:
    """Measures how many of incorrect step, explanation and solution are there; drops where one is missing.

    Those of `without`, `incorrect_step` or `explanation`, may be. Replies that failed, were cut short or could not be
    read are dropped, too.
    """
    for candidate in candidates:
        row = candidate.correction
        fields = {"incorrect_step": row.incorrect_step, "explanation": row.explanation, "solution": row.solution}
        empty = [name for name, value in fields.items() if not str(value or "").strip()]
        missing = [f"no {name.replace('_', ' ')}" for name in empty if name not in without]
        reason = ", ".join(missing) or None
        if row.status != "parsed":
            reason = f"{row.status}: {row.reason}" if row.reason else row.status
        yield Finding(len(fields) - len(empty), reason)
