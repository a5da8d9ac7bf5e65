"""Corrections that are not too long to learn from."""

from collections.abc import Iterable, Iterator

from lema.filters import Candidate, Finding


def max_tokens(candidates: Iterable[Candidate], *, limit: int) -> Iterator[Finding]:
    """Measures tokens of the reply; drops more than `limit`.

    Tokens are as counted by the corrector's model; where none are counted, words between white space are.
    """
    for candidate in candidates:
        tokens, words = candidate.correction.completion_tokens, len(candidate.correction.reply.split())
        size, unit = (tokens, "tokens") if tokens > 0 else (words, "words")
        yield Finding(size, f"{size} {unit}, limit is {limit}" if size > limit else None)
