"""Texts compared by their words, and which test question a text contains (contamination)."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lema.text.records import text_field

Words = tuple[str, ...]

_WORD_OR_SIGN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:'[^\W\d_]+)*|[-+*/^=%<>$€£×÷]")
# N-grams of more test questions than these are boilerplate: "Give your answer as a fraction in ..."
COMMON = 10


def words(text: str) -> Words:
    """The words, numbers and signs of arithmetic in a text, in lower case: what is left when it is set differently."""
    return tuple(_WORD_OR_SIGN.findall(text.lower().replace("’", "'")))


def ngrams(sequence: Sequence[str], n: int) -> set[Words]:
    """All runs of `n` words; none in a shorter text."""
    return {tuple(sequence[at : at + n]) for at in range(len(sequence) - n + 1)}


class Overlap(NamedTuple):
    """The share, 0 to 1, of a test question's n-grams that texts contain, and its name."""

    share: float
    name: str


class NgramIndex:
    """An inverted index from n-grams to the test questions that have them.

    N-grams are runs of `n` words, as usual since GPT-3 (arXiv 2005.14165, appendix C); those of more than ten test
    questions do not count. A test question that is shorter counts when it is the training question, word for word.
    """

    def __init__(self, tests: Mapping[str, str], n: int) -> None:
        """Index test questions, texts by name."""
        self.n = n
        split = {name: words(text) for name, text in tests.items()}
        self._short = {text: name for name, text in reversed(split.items()) if 0 < len(text) < n}
        postings = defaultdict[Words, list[str]](list)
        for name, text in split.items():
            for gram in ngrams(text, n):
                postings[gram].append(name)
        self._postings = {gram: names for gram, names in postings.items() if len(names) <= COMMON}
        self._sizes = Counter(name for names in self._postings.values() for name in names)

    def overlap(self, question: str, others: Iterable[str]) -> Overlap:
        """The test question of which a training question and the texts that go with it contain the largest share;
        (0, "") where they contain nothing of any."""
        texts = [words(text) for text in (question, *others)]
        found = {gram for text in texts for gram in ngrams(text, self.n) & self._postings.keys()}
        counts = Counter(name for gram in found for name in self._postings[gram])
        shares = [Overlap(1.0, self._short[texts[0]])] if texts[0] in self._short else []
        shares += [Overlap(round(count / self._sizes[name], 4), name) for name, count in counts.items()]
        return min(shares, key=lambda one: (-one.share, one.name), default=Overlap(0.0, ""))

    def describe(self, overlap: Overlap) -> str:
        """An overlap as the tail of a message."""
        share = "holds" if overlap.share == 1 else f"holds {overlap.share:.0%} of the {self.n}-grams of"
        return f"{share} the test question {overlap.name}"


def file_texts(
    files: Iterable[str], field: str, read_file: Callable[[str], Iterable[Mapping[str, Any]]]
) -> Iterator[tuple[str, str]]:
    """The test questions of files, named by their place. RunError for rows without a text in `field`."""
    for file in files:
        for place, row in enumerate(read_file(file), start=1):
            yield f"{file}:{place}", text_field(row, field, where=f"verdicts.contamination: {file}, row {place}")
