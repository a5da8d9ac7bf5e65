"""The filter of the paper (LEMA, section 2.1): keep corrections that reach the gold answer."""

from collections.abc import Iterable, Iterator

from lema.filters import Candidate, Finding


def answer_matches(candidates: Iterable[Candidate]) -> Iterator[Finding]:
    """Measures 1 where the answer is the gold answer, else 0; drops 0, and corrections without an answer or with one
    that cannot be compared."""
    for candidate in candidates:
        answer, gold = candidate.correction.answer, candidate.question.gold
        same = candidate.answer_is_gold
        if answer is None:
            yield Finding(None, "no answer")
        elif same is None:
            yield Finding(None, "the answer cannot be compared with the gold one")
        else:
            yield Finding(int(same), None if same else f"answer is {answer}, gold is {gold}")
