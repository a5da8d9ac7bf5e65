"""Texts compared by their words, and which test question a text holds (contamination)."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from lema.errors import RunError

Words = tuple[str, ...]
# The share of a test question's n-grams that texts hold, 0 to 1, and its name; of all test questions the largest.
Held = Callable[[str, Iterable[str]], tuple[float, str]]

_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:'[^\W\d_]+)*|[-+*/^=%<>$€£×÷]")
# What more test questions have than these is no question but its dressing: "Give your answer as a fraction in ..."
COMMON = 10


def words(text: str) -> Words:
    """The words, numbers and signs of arithmetic in a text, in lower case: what is left when it is set differently."""
    return tuple(_WORD.findall(text.lower().replace("’", "'")))


def grams(sequence: Sequence[str], n: int) -> set[Words]:
    """All runs of `n` words; none in a shorter text."""
    return {tuple(sequence[at : at + n]) for at in range(len(sequence) - n + 1)}


def held(tests: Mapping[str, str], ngram: int) -> Held:
    """What tells how much of test questions, texts by name, is held by a training question and what goes with it.

    N-grams are runs of `ngram` words, as usual since GPT-3 (arXiv 2005.14165, appendix C); those of more than ten test
    questions do not count. A test question that is shorter counts when it is the training question, word for word.
    (0, "") where none is held.
    """
    told = {name: words(text) for name, text in tests.items()}
    short = {text: name for name, text in reversed(told.items()) if 0 < len(text) < ngram}
    holders = defaultdict[Words, list[str]](list)
    for name, text in told.items():
        for gram in grams(text, ngram):
            holders[gram].append(name)
    own = {gram: names for gram, names in holders.items() if len(names) <= COMMON}
    sizes = Counter(name for names in own.values() for name in names)

    def most(question: str, others: Iterable[str]) -> tuple[float, str]:
        found = {gram for text in (question, *others) for gram in grams(words(text), ngram) & own.keys()}
        counts = Counter(name for gram in found for name in own[gram])
        asked = words(question)
        shares = [(1.0, short[asked])] if asked in short else []
        shares += [(round(count / sizes[name], 4), name) for name, count in counts.items()]
        return min(shares, key=lambda one: (-one[0], one[1]), default=(0.0, ""))

    return most


def said(share: float, name: str, ngram: int) -> str:
    """What is held of a test question, in words."""
    return f"{'holds' if share == 1 else f'holds {share:.0%} of the {ngram}-grams of'} the test question {name}"


def file_texts(
    files: Iterable[str], field: str, read_file: Callable[[str], Iterable[Mapping[str, Any]]]
) -> Iterator[tuple[str, str]]:
    """The test questions of files, named by their place. RunError for rows without a text in `field`."""
    for file in files:
        for place, row in enumerate(read_file(file), start=1):
            if not isinstance(row.get(field), str):
                message = f"no text in {field!r}; it has: {', '.join(row)}"
                raise RunError(f"verdicts.contamination: {file}, row {place}: {message}")
            yield f"{file}:{place}", row[field]
