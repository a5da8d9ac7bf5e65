"""A correction names the incorrect step, explains the mistake and gives a solution."""

from collections.abc import Iterable, Iterator, Sequence

from lema.filters import Candidate
from lema.rows import Correction


def has_fields(candidates: Iterable[Candidate], *, without: Sequence[str] = ()) -> Iterator[str | None]:
    """Drop replies that failed, were cut short or could not be read, and corrections with an empty field, those of
    `without` apart: `incorrect step`, `explanation`."""
    for candidate in candidates:
        yield _reason(candidate.correction, without)


def _reason(row: Correction, without: Sequence[str]) -> str | None:
    if row.status != "parsed":
        return f"{row.status}: {row.reason}" if row.reason else row.status
    fields = {"incorrect step": row.incorrect_step, "explanation": row.explanation, "solution": row.solution}
    empty = [name for name, value in fields.items() if name not in without and not str(value or "").strip()]
    return f"no {', no '.join(empty)}" if empty else None
