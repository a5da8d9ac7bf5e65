"""CommonsenseQA: 9,741 training and 1,221 dev questions with five candidate answers (Talmor et al., arXiv 1811.00937).

A record holds `question`, `choices` (`label` and `text`, two lists) and `answerKey`, as on the hub, or `question`
with `stem` and `choices`, and `answerKey`, as the data set's own files. LEMA (section 3.1) tests on dev.

The question's text ends with the candidates, "(A) bank, (B) library". A gold answer is "(A) bank"; a model may
answer with the letter, the text or both. It is never rounded to the nearest candidate: an answer that names two
letters is none, and one that says one candidate's letter and another's text, or more than the candidate, is
ambiguous.
"""

import re
from collections.abc import Mapping
from typing import Any

from lema.tasks import Reading, Task, Undecided
from lema.text.final_answer import boxed, conclusion, last_statement
from lema.text.records import text_field

_MAX_WORDS = 12  # words of an answer; longer ones are prose
_CHOICE = re.compile(
    r"(?:(?:option|choice|answer|candidate)\s+)?(?:\(([A-Ea-e])\)|([A-E])(?![A-Za-z'’-]))", re.IGNORECASE
)
_LETTERS = re.compile(
    r"\(([A-E])\)|(?<![A-Za-z'’-])([B-E])(?![A-Za-z'’-])|(?<![A-Za-z'’-])A(?=\s*(?:$|[,.:;)]|or\b|and\b))"
)
_NO_ANSWER = re.compile(r"\b(?:not|neither|either|both|none|unclear|unknown|cannot|can't|nothing)\b", re.IGNORECASE)
# "C. post office" is one answer, "C. The others are places." has a sentence after it.
_CLAUSE_END = re.compile(
    r"(?<!\b[A-E])[.!?;](?=[\s*_\"”]|$)|(?<=\b[A-E])\.(?=\s+[A-Z])|,\s+(?:because|since|as|so|which)\b"
)
_DRESS = " \t\n*_`\"'“”‘’$.,;:!"
_LATEX_MARKUP = re.compile(r"\\text(?:bf|rm|it)?\{([^{}]*)\}|\\[()\[\]]|(?<!\w)\{(\w)\}")


def extract_choice(reply: str) -> str | None:
    r"""The final answer in a model's text, "(A) bank", "(A)" or "bank", or None where it says none or several.

    It stands after the last "The answer is"; without one, in the last `\boxed{}` or after the last "Answer:"; without
    any, on a last line that is nothing but a letter, or one in brackets and the text of its candidate.
    """
    reply = conclusion(reply)
    if found := last_statement(reply):
        return _stated_choice(found.text)
    last = reply.rstrip().rpartition("\n")[2].strip(_DRESS)
    return _stated_choice(last) if re.fullmatch(r"\(?[A-E]\)?|\([A-E]\)(?: \w+){1,5}", last) else None


def _stated_choice(rest: str) -> str | None:
    """The answer in the first sentence of a text."""
    line = rest.strip().partition("\n")[0]
    line = _LATEX_MARKUP.sub(r"\1\2", boxed(line) or line)
    clause = _CLAUSE_END.split(line, maxsplit=1)[0].strip(_DRESS)
    letter, words = _split_choice(clause)
    letters = {match[1] or match[2] or "A" for match in _LETTERS.finditer(clause)}
    if _NO_ANSWER.search(clause) or len(letters) > 1 or len(words.split()) > _MAX_WORDS:
        return None
    return " ".join(part for part in (f"({letter})" if letter else "", words) if part) or None


def _split_choice(answer: str) -> tuple[str | None, str]:
    """The letter at the beginning or end of an answer, if any, and the rest."""
    match = _CHOICE.match(answer)
    # "A bank" begins with an article, unless a sign or nothing follows.
    if match and not match[1] and not re.match(r"\s*(?:$|[).:,;-])", answer[match.end() :]):
        match = None
    if match:
        return (match[1] or match[2]).upper(), answer[match.end() :].strip(_DRESS + ")-–")
    if match := re.search(r"[\s,]*\(([A-E])\)$", answer):
        return match[1], answer[: match.start()].strip(_DRESS)
    return None, answer


def equal_choices(answer: str, gold: str) -> bool | Undecided:
    """Whether an answer is the gold candidate by letter, by text or, saying both, by both."""
    letter, words = _split_choice(answer)
    gold_letter, gold_words = _split_choice(gold)
    said, wanted = _normalize_words(words), _normalize_words(gold_words)
    same = said == wanted
    if not said:
        return letter == gold_letter
    longer = not same and f" {wanted} " in f" {said} "
    return Undecided.UNPARSED if longer or (letter and (letter == gold_letter) != same) else same


def _normalize_words(words: str) -> str:
    bare = " ".join(re.sub(r"[^\w\s]", " ", words.casefold()).split())
    return re.sub(r"^(?:the|an|a) ", "", bare)


def read_csqa(record: Mapping[str, Any]) -> Reading:
    question = record.get("question")
    inner: Mapping[str, Any] = question if isinstance(question, Mapping) else {}
    stem = text_field(inner, "stem") if inner else text_field(record, "question")
    candidates = _candidates(inner.get("choices") if inner else record.get("choices"))
    key = text_field(record, "answerKey").upper()
    if key not in candidates:
        raise ValueError(f"`answerKey` is {key[:10]!r}, the choices are {', '.join(candidates)}")
    listed = ", ".join(f"({label}) {words}" for label, words in candidates.items())
    return Reading(f"{stem}\nCandidate Answers: {listed}.", f"({key}) {candidates[key]}", None)


def _candidates(choices: Any) -> dict[str, str]:
    """Candidates by letter, from two lists or from a list of pairs."""
    if isinstance(choices, Mapping):
        labels, texts = choices.get("label") or (), choices.get("text") or ()
        pairs = list(zip(labels, texts, strict=True)) if len(labels) == len(texts) else []
    else:
        pairs = [(one.get("label"), one.get("text")) for one in choices or () if isinstance(one, Mapping)]
    if len(pairs) < 2 or any(not isinstance(part, str) or not part.strip() for pair in pairs for part in pair):
        raise ValueError("needs `choices` with a `label` and a `text` for each candidate")
    return {label.strip().upper(): words.strip() for label, words in pairs}


csqa = Task("csqa", read_csqa, extract_choice, equal_choices)
