"""Numeric final answers: where they stand in a text, which number they are, when two are equal.

Nothing a model wrote is evaluated. `3 + 4` is no answer, `3 + 4 = 7` is 7, `3/4` is a fraction, `2 x 10^3` and
`2e3` are scientific. Units are dropped,
the percent sign among them: 50 % is 50, because gold answers are plain numbers. Text that leaves open which number
is meant ("3 hours and 20 minutes") is no answer at all: a wrong reading could pass for a right answer.
"""

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from lema.text.final_answer import conclusion, last_statement
from lema.text.records import text_field

_UNITS = "one two three four five six seven eight nine"
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORDS = {word: value for value, word in enumerate(f"zero {_UNITS} {_TEENS}".split())}
_WORDS |= {word: 10 * value for value, word in enumerate(_TENS.split(), start=2)}
_WORDS |= {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9}
_ANY_UNIT, _ANY_TEEN, _ANY_TEN = (words.replace(" ", "|") for words in (_UNITS, _TEENS, _TENS))
_BELOW_100 = rf"(?:(?:{_ANY_TEN})(?: (?:{_ANY_UNIT}))?|{_ANY_TEEN}|{_ANY_UNIT})"
_BELOW_1000 = rf"(?:{_BELOW_100} hundred(?: (?:and )?{_BELOW_100})?|{_BELOW_100})"
_SPELT = re.compile(rf"zero|{_BELOW_1000}(?: (?:thousand|million|billion)(?: (?:and )?{_BELOW_1000})?)*")

ANNOTATION = re.compile(r"<<[^<>]*>>")  # GSM8K's calculator: `48/2 = <<48/2=24>>24`

_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
_NUMBER = re.compile(
    rf"(?<![A-Za-z0-9_.])(?P<sign>[-+](?:\s(?=[$€£¥₹]?[0-9.]))?)?(?P<whole>{_DIGITS})(?![0-9]|\.[0-9])"
    rf"(?:[eE](?P<e>[-+]?[0-9]{{1,2}})(?![0-9A-Za-z])|\s?(?:[×x*·]|times)\s?10\s?(?:\^|\*\*)\s?(?P<power>-?[0-9]{{1,2}})(?![0-9]))?"
    rf"(?:\s?/\s?(?P<under>{_DIGITS})|\s(?P<part>[0-9]+)/(?P<of>[0-9]+))?"
    r"(?:\s?(?P<scale>thousand|million|billion)\b)?"
)
_SCALE = {None: 1, "thousand": 10**3, "million": 10**6, "billion": 10**9}
_MARKUP = re.compile(r"\\(?:boxed|text|mathrm|left|right|[,;!() \[\]])|[*_`{}$€£¥₹\\]")
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}")
_DASHES = str.maketrans({"−": "-", "–": "-", "—": "-", "\u00a0": " ", "\u202f": " "})
_LONGEST = 40  # digits; longer ones are noise, and Python refuses to read thousands of them


def extract(text: str) -> str | None:
    """The final answer in a model's text as a plain number ("1234.5", "3/4"), or None.

    It stands after the last "The answer is"; without one, after the last "####"; without either, in the last
    `\\boxed{}`, after the last "Answer:", or on a last line that holds a number and nothing else. It may be spelt
    ("twelve apples"). What follows an invented next "Question:" does not count.
    """
    text = ANNOTATION.sub("", conclusion(text))
    found = last_statement(text, hashes=True)
    if found:
        value = _stated(found.text if found.kind == "box" else _clause(found.text))
        # A label is weaker: "Answer: Let's think step by step." states nothing yet.
        if value is not None or found.kind != "label":
            return _shown(value)
    last = text.rstrip().rpartition("\n")[2].strip()
    return _shown(number(last)) if not re.search(r"[^0-9\s.,$€£%/+−–-]", last) else None


def number(text: str) -> Fraction | None:
    """The one number in a short text, exactly; None when there is none, or more than one without an "=".

    >>> number("about $1,234.50 in all"), number("3 * 4 = 12 apples"), number("3 or 4")
    (Fraction(2469, 2), Fraction(12, 1), None)
    """
    text = _LATEX_FRACTION.sub(r"\1/\2", text.translate(_DASHES))
    text = _MARKUP.sub("", text).rpartition("=")[2]
    text = re.sub(r"\([^()]*\)", " ", text)
    found = list(_NUMBER.finditer(text))
    if len(found) != 1:
        return None
    around = f"{text[: found[0].start()]}0{text[found[0].end() :]}"
    if re.search(r"\bnot\b|[0-9]\s*[-+*/×÷^:]\s*$|[0-9][×÷^:e][0-9]", around):
        return None
    return _value(found[0])


def equal(answer: str, gold: str) -> bool:
    """Whether both are numbers, and the same one: compared as exact fractions, so 36.0 equals 36 and 0.75 equals
    3/4, while 33.33 does not equal 100/3. No tolerance: grade-school answers are exact, and the golds of GSM8K are
    all integers."""
    left, right = number(answer), number(gold)
    return left is not None and left == right


def gold_number(text: str) -> str:
    """A gold answer in the form in which answers are compared and shown; ValueError when it is not one number."""
    if (value := _shown(number(text))) is None:
        raise ValueError(f"the gold answer {text.strip()[:40]!r} is not a number")
    return value


def join_story(record: Mapping[str, Any], *names: str | tuple[str, ...]) -> str:
    """A story and its question, fields of a record, as one text, with a full stop or comma between them where the
    story ends without. One that ends in "If ..." or the like is half a sentence, the question the other half."""
    body, question = (text_field(record, *((name,) if isinstance(name, str) else name)) for name in names)
    if body[-1] in ".?!,;:":
        return f"{body} {question}"
    last = body.replace("! ", ". ").replace("? ", ". ").rpartition(". ")[2]
    half = last.lower().startswith(("if ", "when ", "after ", "given ", "since ", "because "))
    return f"{body}{',' if half else '.'} {question[0].lower() + question[1:] if half else question}"


def equal_to_places(places: int) -> Callable[[str, str], bool]:
    """Equality of two numbers rounded to so many decimal places."""

    def equal_rounded(answer: str, gold: str) -> bool:
        left, right = number(answer), number(gold)
        return left is not None and right is not None and round(left, places) == round(right, places)

    return equal_rounded


def _stated(clause: str) -> Fraction | None:
    """The number in a clause, in figures or, where it has none, in words at its beginning."""
    outside = re.sub(r"\([^()]*\)", " ", clause)
    return number(clause) if re.search("[0-9]", outside) else spelt(outside)


def spelt(clause: str) -> Fraction | None:
    """A number in English words at the beginning of a text, "twenty-five apples"; None for "one of them", and where
    another number follows."""
    words = re.findall("[a-z]+", clause.lower())
    sign = -1 if words[:1] in (["minus"], ["negative"]) else 1
    words = words[sign < 0 :]
    count = next((at for at, word in enumerate(words) if word not in _WORDS and word != "and"), len(words))
    rest = words[count:]
    if not _SPELT.fullmatch(" ".join(words[:count])) or rest[:1] == ["of"] or any(word in _WORDS for word in rest):
        return None
    total = part = 0
    for value in (_WORDS[word] for word in words[:count] if word != "and"):
        if value >= 1000:
            total, part = total + part * value, 0
        else:
            part = part * value if value == 100 else part + value
    return Fraction(sign * (total + part))


def _clause(text: str) -> str:
    """The first sentence, without an afterthought such as ", because 3 * 4 is 12"."""
    line = text.partition("\n")[0]
    sentence = re.split(r"[.!?;](?=\s|$)", line, maxsplit=1)[0]
    return re.split(r",\s+(?:because|since|as|so|which|that|where)\b", sentence, maxsplit=1)[0]


def _value(match: re.Match[str]) -> Fraction | None:
    digits = [part.replace(",", "") for part in match.group("whole", "under", "part", "of") if part]
    if any(len(part) > _LONGEST for part in digits):
        return None
    values = [Fraction(part) for part in digits]
    if any(value == 0 for value in (values[1:] if match["under"] else values[2:])):
        return None
    value = values[0]
    if match["under"]:
        value /= values[1]
    elif match["of"]:
        value += values[1] / values[2]
    value *= _SCALE[match["scale"]] * Fraction(10) ** int(match["e"] or match["power"] or 0)
    return -value if (match["sign"] or "").startswith("-") else value


def _shown(value: Fraction | None) -> str | None:
    """The shortest exact text: an integer, a decimal that ends, else a fraction."""
    if value is None or value.denominator == 1:
        return None if value is None else str(value.numerator)
    rest, places = value.denominator, {2: 0, 5: 0}
    for prime in places:
        while rest % prime == 0:
            rest, places[prime] = rest // prime, places[prime] + 1
    if rest != 1:
        return str(value)
    digits = max(places.values())
    scaled = f"{abs(value.numerator) * 10**digits // value.denominator:0{digits + 1}d}"
    return f"{'-' if value < 0 else ''}{scaled[:-digits]}.{scaled[-digits:]}"
