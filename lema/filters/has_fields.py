"""A correction names the incorrect step, explains the mistake and gives a solution."""

from collections.abc import Iterable, Iterator

from lema.filters import Candidate, Finding
from lema.rows import Correction


def has_fields(candidates: Iterable[Candidate]) -> Iterator[Finding]:
    """Measures how many of incorrect step, explanation and solution are there; drops less than three.

    So it drops replies that failed, were cut short or could not be read, too.
    """
    for candidate in candidates:
        yield _finding(candidate.correction)


def _finding(row: Correction) -> Finding:
    fields = {"incorrect step": row.incorrect_step, "explanation": row.explanation, "solution": row.solution}
    empty = [name for name, value in fields.items() if not str(value or "").strip()]
    there = len(fields) - len(empty)
    if row.status != "parsed":
        return Finding(there, f"{row.status}: {row.reason}" if row.reason else row.status)
    return Finding(there, f"no {', no '.join(empty)}" if empty else None)
