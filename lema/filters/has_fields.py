"""A correction names the incorrect step, explains the mistake and gives a solution."""

from collections.abc import Iterable, Iterator

from lema.filters import Candidate
from lema.rows import Correction


def has_fields(candidates: Iterable[Candidate]) -> Iterator[str | None]:
    """Drop replies that failed, were cut short or could not be read, and corrections with an empty field."""
    for candidate in candidates:
        yield _reason(candidate.correction)


def _reason(row: Correction) -> str | None:
    if row.status != "parsed":
        return f"{row.status}: {row.reason}" if row.reason else row.status
    fields = {"incorrect step": row.incorrect_step, "explanation": row.explanation, "solution": row.solution}
    empty = [name for name, value in fields.items() if not str(value or "").strip()]
    return f"no {', no '.join(empty)}" if empty else None
