"""The same correction once."""

from collections.abc import Iterable, Iterator

from lema.filters import Candidate
from lema.filters._text import path, squeezed, whole_solution


def duplicate(candidates: Iterable[Candidate]) -> Iterator[str | None]:
    """Drop corrections that give the same solution to the same question and wrong path as an earlier one.

    White space and "..." make no difference. Replies without a solution are not judged.
    """
    first: dict[tuple[str, tuple[str, ...], tuple[str, ...]], str] = {}
    for candidate in candidates:
        if not candidate.correction.solution:
            yield None
            continue
        content = (squeezed(candidate.question.text), path(candidate), whole_solution(candidate))
        earlier = first.setdefault(content, candidate.correction.id)
        yield f"same as {earlier}" if earlier != candidate.correction.id else None
