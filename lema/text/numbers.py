"""Numbers in prose: found, read exactly and written. Nothing is ever evaluated.

`3 + 4` is no number, `3 + 4 = 7` is 7, `3/4` is a fraction, `2 x 10^3` and `2e3` are scientific. Units are dropped, the
percent sign among them: 50 % is 50, because gold answers are plain numbers. Text that leaves open which number is meant
("3 hours and 20 minutes") is none at all: a wrong reading could pass for a right answer.
"""

import re
from fractions import Fraction

MAX_DIGITS = 400  # of one number; Python refuses to read thousands of them
DIGITS = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9]|,[0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
FRACTION_SIGNS = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅛": "1/8"}
CURRENCY = "$€£¥₹"
ANNOTATION = re.compile(r"<<[^<>]*>>")  # GSM8K's calculator: `48/2 = <<48/2=24>>24`

_UNITS = "one two three four five six seven eight nine"
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
NUMBER_WORDS = {word: value for value, word in enumerate(f"zero {_UNITS} {_TEENS}".split())}
NUMBER_WORDS |= {word: 10 * value for value, word in enumerate(_TENS.split(), start=2)}
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9}
NUMBER_WORDS |= _SCALES
# Words that stand for an amount, whatever is counted.
AMOUNTS = {word: Fraction(value) for word, value in NUMBER_WORDS.items()}
AMOUNTS |= {word: Fraction(2) for word in ("couple", "twice", "double", "both")}
AMOUNTS |= {"half": Fraction(1, 2), "third": Fraction(1, 3), "quarter": Fraction(1, 4)}
AMOUNTS |= {"triple": Fraction(3), "dozen": Fraction(12)}
_UNIT, _TEEN, _TEN = (words.replace(" ", "|") for words in (_UNITS, _TEENS, _TENS))
_BELOW_100 = rf"(?:(?:{_TEN})(?: (?:{_UNIT}))?|{_TEEN}|{_UNIT})"
_BELOW_1000 = rf"(?:{_BELOW_100} hundred(?: (?:and )?{_BELOW_100})?|{_BELOW_100})"
_SPELT = re.compile(rf"zero|{_BELOW_1000}(?: (?:thousand|million|billion)(?: (?:and )?{_BELOW_1000})?)*")
# What makes another number of the one before it.
_PART = r"(?:half|halves|thirds?|quarters?|fourths?|fifths?|tenths?|hundredths?|dozens?|score|lakhs?|crores?|k|M)"

_DASHES = str.maketrans({"−": "-", "–": "-", "\u00a0": " ", "\u202f": " ", "\u2009": " "})
_SIGNED = re.compile(rf"(-)?[{CURRENCY}]?\s?({DIGITS})")
_ONE_NUMBER = re.compile(
    rf"(?<![A-Za-z\d_.])(?P<sign>[-+](?:\s(?=[{CURRENCY}]?[\d.]))?)?(?P<whole>{DIGITS})(?!\d|\.\d)"
    r"(?:[eE](?P<e>[-+]?\d{1,2})(?![\dA-Za-z])|\s?(?:[×x*·]|times)\s?10\s?(?:\^|\*\*)\s?(?P<power>-?\d{1,2})(?!\d))?"
    rf"(?:\s?/\s?(?P<under>{DIGITS})|\s(?P<part>\d+)/(?P<of>\d+))?"
    r"(?:\s?(?P<scale>hundred|thousand|million|billion)\b)?"
)
_NUMBER_MARKUP = re.compile(
    rf"\\(?:boxed|text|mathrm|left|right|[,;!() \[\]])|(?<!\d)[*]|[*](?!\d)|[_`{{}}{CURRENCY}\\]"
)
_LATEX_FRACTION = re.compile(r"\\[dtc]?frac\{([^{}]*)\}\{([^{}]*)\}")
# "not 12", "3 -", "3 x 0", "√0", "0 dozen": the number is a part of something else.
_NOT_ALONE = re.compile(rf"\bnot\b|√|\\sqrt|\d\s*[-+*/×÷^:]\s*$|\d[×÷^:e]\d|\dπ|\d\s?\\pi|\d\s?{_PART}\b")


def parse_number(text: str) -> Fraction | None:
    """The one number in a short text, exactly; None when there is none, or more than one without an "=".

    >>> parse_number("about $1,234.50 in all"), parse_number("3 * 4 = 12 apples"), parse_number("3 or 4")
    (Fraction(2469, 2), Fraction(12, 1), None)
    """
    text = _LATEX_FRACTION.sub(r" \1/\2", _spell_fractions(text.translate(_DASHES)))
    text = _NUMBER_MARKUP.sub("", text).rpartition("=")[2].strip()
    outside = re.sub(r"\([^()]*\)", " ", text)
    text = outside if re.search(r"\w", outside) else text
    found = list(_ONE_NUMBER.finditer(text))
    if len(found) != 1 or _NOT_ALONE.search(f"{text[: found[0].start()]}0{text[found[0].end() :]}"):
        return None
    return _value(found[0])


def parse_number_words(text: str) -> Fraction | None:
    """A number in English words at the beginning of a text, "twenty-five apples"; None for "one of them", "two dozen",
    and where another number follows."""
    words = re.findall("[a-z]+", text.lower())
    sign = -1 if words[:1] in (["minus"], ["negative"]) else 1
    words = words[sign < 0 :]
    count = next((at for at, word in enumerate(words) if word not in NUMBER_WORDS and word != "and"), len(words))
    rest = words[count:]
    if not _SPELT.fullmatch(" ".join(words[:count])) or any(word in NUMBER_WORDS for word in rest):
        return None
    if rest and re.fullmatch(f"of|{_PART}", rest[0]):
        return None
    total = part = 0
    for value in (NUMBER_WORDS[word] for word in words[:count] if word != "and"):
        if value >= 1000:
            total, part = total + part * value, 0
        else:
            part = part * value if value == 100 else part + value
    return Fraction(sign * (total + part))


def numbers(text: str) -> list[Fraction]:
    """All numbers in a text as written, in order: "3/4" is 3 and 4, "15%" is 15, "5-3" is 5 and 3, "-3" is -3."""
    text = ANNOTATION.sub(" ", text.translate(_DASHES))
    found = []
    for match in _SIGNED.finditer(text):
        digits = match[2].replace(",", "")
        # A minus, not a sign, where a number or a word stands before it: "16 -3", "mid-90".
        before = text[max(0, match.start() - 4) : match.start()]
        negative = match[1] == "-" and not (before[-1:].isalpha() or before.rstrip()[-1:] in tuple("0123456789)%"))
        if len(digits) <= MAX_DIGITS:
            found.append(-Fraction(digits) if negative else Fraction(digits))
    return found


def format_exact(value: Fraction) -> str:
    """The shortest exact text: an integer, a decimal that ends, else a fraction.

    >>> format_exact(Fraction(5, 4)), format_exact(Fraction(1, 3))
    ('1.25', '1/3')
    """
    places = _decimal_places(value)
    return str(value) if places is None else _format_decimal(value, places)


def format_number(value: Fraction) -> str:
    """The shortest decimal: exact up to six decimals, else rounded to four, or to four significant digits.

    >>> format_number(Fraction(7, 2)), format_number(Fraction(10, 3)), format_number(Fraction(1200))
    ('3.5', '3.3333', '1200')
    """
    places = _decimal_places(value)
    if places is None or places > 6:
        places = 4
        while abs(value) * 10**places < 1000 and places < 12:
            places += 1
    return _format_decimal(value, places)


def _decimal_places(value: Fraction) -> int | None:
    """How many decimals write a number exactly; None where no number of them does."""
    return next((n for n in range(value.denominator.bit_length()) if 10**n % value.denominator == 0), None)


def _format_decimal(value: Fraction, places: int) -> str:
    digits = str(abs(round(value * 10**places))).rjust(places + 1, "0")
    whole, part = digits[: len(digits) - places], digits[len(digits) - places :].rstrip("0")
    sign = "-" if value < 0 and digits.strip("0") else ""
    return f"{sign}{whole}.{part}" if part else f"{sign}{whole}"


def _spell_fractions(text: str) -> str:
    """Fraction signs in digits: "5½" as "5 1/2"."""
    for sign, fraction in FRACTION_SIGNS.items():
        text = text.replace(sign, f" {fraction}")
    return text


def _value(match: re.Match[str]) -> Fraction | None:
    digits = [part.replace(",", "") for part in match.group("whole", "under", "part", "of") if part]
    if any(len(part) > MAX_DIGITS // 10 for part in digits):
        return None
    values = [Fraction(part) for part in digits]
    if any(value == 0 for value in (values[1:] if match["under"] else values[2:])):
        return None
    value = values[0]
    if match["under"]:
        value /= values[1]
    elif match["of"]:
        value += values[1] / values[2]
    value *= _SCALES.get(match["scale"], 1) * Fraction(10) ** int(match["e"] or match["power"] or 0)
    return -value if (match["sign"] or "").startswith("-") else value
