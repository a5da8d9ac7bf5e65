"""No test question is learnt from. On in every recipe: `verdicts: {contamination: ...}` sets it, false turns it off."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from lema.filters import Candidate, Finding
from lema.rows import Question
from lema.text.ngrams import NgramIndex, file_texts


def contamination(
    candidates: Iterable[Candidate],
    *,
    ngram: int = 13,
    limit: float = 0.5,
    files: Sequence[str] = (),
    field: str = "question",
    questions: Iterable[Question],
    read_file: Callable[[str], Iterable[Mapping[str, Any]]],
) -> Iterator[Finding]:
    """Measures the share of a test question's n-grams that a correction holds; drops more than `limit`.

    Of all test questions, the one that shares most counts: test, dev and transfer sets, and `field` of the rows of
    `files`. N-grams are runs of `ngram` words (`lema.text.ngrams`), looked for in the training question, the wrong
    path, the explanation and the solution. A limit of 0 drops whatever shares a single n-gram, which is too strict for
    questions made from templates. RunError for rows without the field.
    """
    tests = {row.id: row.text for row in questions if row.split != "train"}
    index = NgramIndex(tests | dict(file_texts(files, field, read_file)), ngram)
    for candidate in candidates:
        # All that a student would read of a correction, beside the question.
        row = candidate.correction
        learnt = (candidate.sample.text, row.explanation or "", " ".join(candidate.whole_solution))
        overlap = index.overlap(candidate.question.text, learnt)
        yield Finding(overlap.share, index.describe(overlap) if overlap.share > limit else None)
