"""Tasks whose answers are numbers: how the answer of a text is read, and when two are equal."""

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from lema.text.final_answer import conclusion, last_statement
from lema.text.numbers import ANNOTATION, format_exact, parse_number, parse_number_words
from lema.text.records import text_field

# What a statement may begin with before its number: a display formula or a code fence.
_OPENING = re.compile(r"^\s*(?:\$\$|\\\[|```\w*)?\s*")
_SENTENCE_END = re.compile(r"(?<!\b[Rr]s)(?<!\b[Cc]a)(?<!\b[Nn]o)[.!?;](?=\s|$)")
_AFTERTHOUGHT = re.compile(r",\s+(?:because|since|as|so|which|that|where)\b")


def extract_number(text: str) -> str | None:
    """The final answer in a model's text as a plain number ("1234.5", "3/4"), or None.

    It stands after the last "The answer is"; without one, after the last "####"; without either, in the last
    `\\boxed{}`, after the last "Answer:", or on a last line that holds a number and nothing else. It may be spelt
    ("twelve apples"). What follows an invented next "Question:" does not count.
    """
    text = ANNOTATION.sub("", conclusion(text))
    value, found = None, last_statement(text, hashes=True)
    if found:
        value = _stated_number(found.text if found.kind == "box" else _clause(found.text))
    # A label is weaker: "Answer: Let's think step by step." states nothing yet.
    if not found or (value is None and found.kind == "label"):
        last = text.rstrip().rpartition("\n")[2].strip()
        value = None if re.search(r"[^0-9\s.,$€£%/+−–-]", last) else parse_number(last)
    return None if value is None else format_exact(value)


def equal_numbers(answer: str, gold: str) -> bool:
    """Whether both are numbers, and the same one: compared as exact fractions, so 36.0 equals 36 and 0.75 equals
    3/4, while 33.33 does not equal 100/3. No tolerance: grade-school answers are exact, and the golds of GSM8K are
    all integers."""
    left, right = parse_number(answer), parse_number(gold)
    return left is not None and left == right


def equal_to_places(places: int) -> Callable[[str, str], bool]:
    """Equality of two numbers rounded to so many decimal places."""

    def equal_rounded(answer: str, gold: str) -> bool:
        left, right = parse_number(answer), parse_number(gold)
        return left is not None and right is not None and round(left, places) == round(right, places)

    return equal_rounded


def gold_number(text: str) -> str:
    """A gold answer in the form in which answers are compared and shown; ValueError when it is not one number."""
    if (value := parse_number(text)) is None:
        raise ValueError(f"the gold answer {text.strip()[:40]!r} is not a number")
    return format_exact(value)


def join_story(record: Mapping[str, Any], *names: tuple[str, ...]) -> str:
    """A story and its question, fields of a record, as one text, with a full stop or comma between them where the
    story ends without. One that ends in "If ..." or the like is half a sentence, the question the other half."""
    body, question = (text_field(record, *own) for own in names)
    if body[-1] in ".?!,;:":
        return f"{body} {question}"
    last = body.replace("! ", ". ").replace("? ", ". ").rpartition(". ")[2]
    half = last.lower().startswith(("if ", "when ", "after ", "given ", "since ", "because "))
    return f"{body}{',' if half else '.'} {question[0].lower() + question[1:] if half else question}"


def _stated_number(clause: str) -> Fraction | None:
    """The number in a clause, in figures or, where it has none, in words at its beginning."""
    outside = re.sub(r"\([^()]*\)", " ", clause)
    return parse_number(clause) if re.search("[0-9½⅓⅔¼¾⅕⅛]|^[^a-z]*$", outside) else parse_number_words(outside)


def _clause(text: str) -> str:
    """The first sentence, without an afterthought such as ", because 3 * 4 is 12"."""
    line = _OPENING.sub("", text).partition("\n")[0]
    return _AFTERTHOUGHT.split(_SENTENCE_END.split(line, maxsplit=1)[0], maxsplit=1)[0]
