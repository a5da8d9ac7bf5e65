"""The corrector reasons; it does not recite the gold solution that it was shown, or knows by heart."""

import re
from collections.abc import Iterable, Iterator

from lema.filters import Candidate, Finding, ratio
from lema.text.final_answer import only_states_answer
from lema.text.ngrams import ngrams, words
from lema.text.numbers import ANNOTATION
from lema.text.steps import split_steps

# Talk about a solution that the student will never see. "The correct answer is 9" and "the given solution", which is
# the wrong path, are no such talk.
_META = re.compile(
    r"\b(?:reference|gold(?:en)?|ground[- ]truth|official) (?:final )?"
    r"(?:answers?|solutions?|rationales?|results?)\b"
    r"|\b(?:given|provided|expected|supplied) (?:final |correct |right |gold )?(?:answer|rationale)\b"
    r"|\b(?:given|provided|expected|supplied) correct solution\b"
    r"|\banswer key\b|\bthe rationale\b|\bground[- ]truth\b",
    re.IGNORECASE,
)
# A text of fewer words says the same as another by chance: "3 + 4 = 7" is how everybody writes it.
MIN_WORDS, NGRAM = 12, 3


def gold_leak(candidates: Iterable[Candidate], *, limit: float = 0.95, hint: str) -> Iterator[Finding]:
    """Measures how much of the explanation or solution is the gold rationale word for word; drops more than `limit`.

    In shares of runs of three words, 0 to 1: of the explanation those that the rationale has too, of the solution those
    in both among those in either. The solution counts only where the corrector was shown nothing: with a hint it may
    well be the rationale. Texts of fewer than twelve words measure 0. Dropped too, whatever they measure: explanations
    that only state the answer, and talk of a reference, gold or given answer.
    """
    for candidate in candidates:
        row = candidate.correction
        if not row.explanation and not row.solution:
            yield Finding(None)
            continue
        explanation, solution = row.explanation or "", "\n".join(candidate.whole_solution)
        gold = _words_without_answer(candidate.question.rationale or "")
        recited = {"the explanation": _recited(_words_without_answer(explanation), gold, of_both=False)}
        if hint == "none":
            recited["the solution"] = _recited(_words_without_answer(solution), gold, of_both=True)
        most = max(recited, key=lambda name: recited[name])
        said, reason = _META.search(f"{explanation}\n{solution}"), None
        # The question may speak of an answer key itself.
        if said and said.group().lower() not in candidate.question.text.lower():
            reason = f"speaks of {' '.join(said.group().split())!r}"
        elif explanation.strip() and not _words_without_answer(explanation):
            reason = "the explanation only states the answer"
        elif recited[most] > limit:
            reason = f"{most} is the gold rationale, {recited[most]:.0%} word for word"
        yield Finding(recited[most], reason)


def _words_without_answer(text: str) -> tuple[str, ...]:
    """The words of a text without the statement of the answer and without GSM8K's annotations."""
    steps = split_steps(ANNOTATION.sub("", text))
    return words(" ".join(step for step in steps if not only_states_answer(step)))


def _recited(text: tuple[str, ...], gold: tuple[str, ...], *, of_both: bool) -> float:
    """The share of runs of words that are in both texts, of those in either, or of those in the first."""
    mine, theirs = ngrams(text, NGRAM), ngrams(gold, NGRAM)
    return ratio(len(mine & theirs), len(mine | theirs if of_both else mine)) if len(text) >= MIN_WORDS else 0.0
