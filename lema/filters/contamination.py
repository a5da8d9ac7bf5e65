"""No test question is learnt from. On in every recipe: `verdicts: {contamination: ...}` sets it, false turns it off."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from lema.errors import RunError
from lema.filters import Candidate, Finding
from lema.filters._text import grams, share, whole_solution, words
from lema.rows import Question

Words = tuple[str, ...]
# What more test questions have than these is no question but its dressing: "Give your answer as a fraction in ..."
COMMON = 10


def contamination(
    candidates: Iterable[Candidate],
    *,
    ngram: int = 13,
    limit: float = 0.5,
    files: Sequence[str] = (),
    field: str = "question",
    questions: Sequence[Question],
    read_file: Callable[[str], Iterable[Mapping[str, Any]]],
) -> Iterator[Finding]:
    """Measures the share of a test question's n-grams that a correction holds; drops more than `limit`.

    Of all test questions, the one that shares most counts. N-grams are runs of `ngram` words, as usual since GPT-3
    (arXiv 2005.14165, appendix C), looked for in the training question, the wrong path, the explanation and the
    solution; those of more than ten test questions do not count. A test question that is shorter counts when it is
    the training question, word for word. Test questions are all of the recipe that are not learnt from (test, dev and
    transfer sets), and `field` of the rows of `files`.
    A limit of 0 drops whatever shares a single n-gram, which is too strict for questions made from templates.
    RunError for rows without the field.
    """
    tests = {row.id: words(row.text) for row in questions if row.split != "train"}
    tests |= {name: words(text) for file in files for name, text in _texts(file, field, read_file)}
    short = {text: name for name, text in reversed(tests.items()) if len(text) < ngram}
    holders = defaultdict[Words, list[str]](list)
    for name, text in tests.items():
        for gram in grams(text, ngram):
            holders[gram].append(name)
    own = {gram: names for gram, names in holders.items() if len(names) <= COMMON}
    sizes = Counter(name for names in own.values() for name in names)
    for candidate in candidates:
        asked = words(candidate.question.text)
        held = {gram for text in _read(candidate) for gram in grams(text, ngram) & own.keys()}
        found = Counter(name for gram in held for name in own[gram])
        shares = [(1.0, short[asked])] if asked in short else []
        shares += [(share(count, sizes[name]), name) for name, count in found.items()]
        value, name = min(shares, key=lambda one: (-one[0], one[1]), default=(0.0, ""))
        what = "holds" if value == 1 else f"holds {value:.0%} of the {ngram}-grams of"
        yield Finding(value, f"{what} the test question {name}" if value > limit else None)


def _read(candidate: Candidate) -> Iterator[Words]:
    """All that a student would read of a correction."""
    yield words(candidate.question.text)
    yield words(candidate.sample.text)
    yield words(candidate.correction.explanation or "")
    yield words(" ".join(whole_solution(candidate)))


def _texts(file: str, field: str, read_file: Callable[[str], Iterable[Mapping[str, Any]]]) -> Iterator[tuple[str, str]]:
    """The test questions of a file, named by their place."""
    for place, row in enumerate(read_file(file), start=1):
        if not isinstance(row.get(field), str):
            raise RunError(
                f"verdicts: contamination: {file}, row {place}: no text in {field!r}; it has: {', '.join(row)}"
            )
        yield f"{file}:{place}", row[field]
