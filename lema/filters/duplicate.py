"""The same correction once."""

from collections.abc import Iterable, Iterator

from lema.filters import Candidate, Finding, normalize_space


def duplicate(candidates: Iterable[Candidate]) -> Iterator[Finding]:
    """Measures earlier corrections of the same path with the same solution; drops all but the first.

    White space and "..." make no difference. Replies without a solution are not judged.
    """
    earlier: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for candidate in candidates:
        if not candidate.correction.solution:
            yield Finding(None)
            continue
        content = (normalize_space(candidate.question.text), candidate.path, candidate.whole_solution)
        same = earlier.setdefault(content, [])
        yield Finding(len(same), f"same as {same[0]}" if same else None)
        same.append(candidate.correction.id)
