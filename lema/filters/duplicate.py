"""The same correction once."""

import hashlib
from collections.abc import Iterable, Iterator

from lema.filters import Candidate, Finding, normalize_space


def duplicate(candidates: Iterable[Candidate]) -> Iterator[Finding]:
    """Measures earlier corrections of the same path with the same solution; drops all but the first.

    White space and "..." make no difference. Replies without a solution are not judged.
    """
    first: dict[bytes, str] = {}  # ids, by hashes of 16 bytes: all that grows with the candidates
    repeated: dict[bytes, int] = {}
    for candidate in candidates:
        row = candidate.correction
        content = (normalize_space(candidate.question.text), candidate.path, candidate.whole_solution)
        key = hashlib.blake2b(repr(content).encode(), digest_size=16).digest()
        if not row.solution:
            yield Finding(None)
        elif (same := first.setdefault(key, row.id)) == row.id:
            yield Finding(0)
        else:
            repeated[key] = repeated.get(key, 0) + 1
            yield Finding(repeated[key], f"same as {same}")
