"""The filter of the paper (LEMA, section 2.1): keep corrections that reach the gold answer."""

from collections.abc import Iterable, Iterator

from lema.filters import Candidate


def answer_matches(candidates: Iterable[Candidate]) -> Iterator[str | None]:
    """Drop corrections whose answer is not the gold answer, and those without an answer."""
    for candidate in candidates:
        if candidate.correction.answer is None:
            yield "no answer"
        elif not candidate.answer_is_gold:
            yield f"answer is {candidate.correction.answer}, gold is {candidate.question.gold}"
        else:
            yield None
