"""A correction names the incorrect step, explains the mistake and gives a solution."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from lema.filters import Candidate, Finding
from lema.rows import Correction


def has_fields(
    candidates: Iterable[Candidate], *, without: Sequence[Literal["incorrect_step", "explanation"]] = ()
) -> Iterator[Finding]:
    """Measures how many of incorrect step, explanation and solution are there; drops where one is missing.

    Those of `without`, `incorrect_step` or `explanation`, may be. Replies that failed, were cut short or could not be
    read are dropped, too.
    """
    for candidate in candidates:
        yield _fields_finding(candidate.correction, without)


def _fields_finding(row: Correction, without: Sequence[str]) -> Finding:
    fields = {"incorrect_step": row.incorrect_step, "explanation": row.explanation, "solution": row.solution}
    empty = [name for name, value in fields.items() if not str(value or "").strip()]
    there, missing = len(fields) - len(empty), [name for name in empty if name not in without]
    if row.status != "parsed":
        return Finding(there, f"{row.status}: {row.reason}" if row.reason else row.status)
    return Finding(there, f"no {', no '.join(missing).replace('_', ' ')}" if missing else None)
