"""Corrections in the language of their question, as far as its letters show it."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache

from lema.filters import Candidate, Finding, ratio

# Written together in Japanese and Korean.
_EAST_ASIAN = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO")
# Signs of mathematics, whatever the language.
_MATHEMATICAL = ("MATHEMATICAL", "SCRIPT", "DOUBLE", "ANGSTROM", "MICRO", "OHM", "MODIFIER", "MASCULINE", "FEMININE")


def language(candidates: Iterable[Candidate], *, limit: float = 0.05) -> Iterator[Finding]:
    """Measures the share of letters of a script that the question does not use; drops more than `limit`.

    Looks at explanation and solution. Tells Latin from Cyrillic or Chinese, not English from French. Where question or
    correction have no letters there is nothing to measure.
    """
    for candidate in candidates:
        own = _scripts(candidate.question.text)
        said = _scripts(f"{candidate.correction.explanation or ''} {candidate.correction.solution or ''}")
        if not own or not said:
            yield Finding(None)
            continue
        foreign = Counter({script: count for script, count in said.items() if script not in own})
        value, most = ratio(foreign.total(), said.total()), "".join(script for script, _ in foreign.most_common(1))
        says = f"{value:.0%} of the letters are of another script, {most.capitalize()}; limit is {limit:.0%}"
        yield Finding(value, says if value > limit else None)


def _scripts(text: str) -> Counter[str]:
    """Letters by script, those of mathematics apart."""
    return Counter(script for letter in text if letter.isalpha() and (script := _script(letter)) not in _MATHEMATICAL)


@lru_cache(maxsize=10_000)
def _script(letter: str) -> str:
    """The first word of a letter's name in Unicode is its script."""
    first = unicodedata.name(letter, _MATHEMATICAL[0]).partition(" ")[0].partition("-")[0]
    return "East Asian" if first in _EAST_ASIAN else first
