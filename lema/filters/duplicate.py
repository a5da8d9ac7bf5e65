"""The same correction once."""

import hashlib
from collections.abc import Iterable, Iterator

from lema.filters import Candidate, Finding, normalize_space


def duplicate(candidates: Iterable[Candidate]) -> Iterator[Finding]:
    """Measures earlier corrections of the same path with the same solution; drops all but the first.

    White space and "..." make no difference. Replies without a solution are not judged.
    """
    first: dict[bytes, str] = {}
    earlier: dict[bytes, int] = {}
    for candidate in candidates:
        row = candidate.correction
        if not row.solution:
            yield Finding(None)
            continue
        content = (normalize_space(candidate.question.text), candidate.path, candidate.whole_solution)
        key = hashlib.sha256(repr(content).encode()).digest()
        count = earlier[key] = earlier.get(key, -1) + 1
        yield Finding(count, f"same as {first[key]}" if count else None)
        first.setdefault(key, row.id)
