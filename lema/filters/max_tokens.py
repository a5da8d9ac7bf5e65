"""Corrections that are not too long to learn from."""

from collections.abc import Iterable, Iterator

from lema.filters import Candidate


def max_tokens(candidates: Iterable[Candidate], *, limit: int) -> Iterator[str | None]:
    """Drop replies of more than `limit` tokens as counted by the corrector; where it counts none, of more than
    `limit` words between white space."""
    for candidate in candidates:
        tokens, words = candidate.correction.completion_tokens, len(candidate.correction.reply.split())
        size, unit = (tokens, "tokens") if tokens > 0 else (words, "words")
        yield f"{size} {unit}, limit is {limit}" if size > limit else None
