"""Arithmetic in prose: find it, compute it, check it. Nothing is ever executed: this grammar is all there is.

    sum     := product (("+" | "-") product)*
    product := sign (("*" | "/") sign | "(" sum ")")*       "4(43)" is a product
    sign    := "-" sign | power
    power   := atom ("^" sign)?
    atom    := number "%"* | "(" sum ")" "%"*
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

# Bounds on what a stranger's text may make us compute.
MAX_LENGTH = 400
MAX_DEPTH = 40
MAX_EXPONENT = 32
MAX_BITS = 2048

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+)(?:\.\d+)?|\.\d+"
_GLYPHS = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅛": "1/8"}
_SIGNS = str.maketrans(dict(zip("×·∗⋅÷−–≈\u00a0\u2009", "****/--=  ", strict=True)))
_ANNOTATION = re.compile(r"<<[^<>]*>>")
_MIXED = re.compile(r"(?<![\d.,/])(\d+) ([1-9]/\d+)(?![\d.,/])")
_LEXEME = re.compile(rf"\s*(?:({_NUMBER})|(\*\*|[-+*/^()%]))")
_SIGNED = re.compile(rf"(-\s?)?[$€£¥₹]?\s?({_NUMBER})")
_TOKEN = re.compile(
    r"(?P<clock>\d+:\d+)"
    rf"|(?P<number>(?<=/ )\d+/\d+(?!\d)|(?<![\d.,/])\d+ [1-9]/\d+(?![\d.,/])|\d*[{''.join(_GLYPHS)}]|{_NUMBER})"
    r"|(?P<times>(?<=[\d)%\s])[xX](?=[\s\d($]))|(?P<mark>\*\*|[-+*/^()=%])|(?P<blank>[\s$€£¥₹¢]+)"
    r"|(?P<word>\([^()\d]*\)|[^\W\d_]+(?:['’&-][^\W\d_]+)*(?:(?<=[a-z]{2})(?<=oz|lb|hr|ft|yd|bs|rs|in|ns)\.(?=\s*[-+*/=x]))?)|(?P<other>.)",
    re.DOTALL,
)
_SPOKEN = {"plus": "+", "minus": "-", "times": "*", "multiplied by": "*", "divided by": "/",
           "equals": "=", "is equal to": "="}  # fmt: skip
# "half of 20 - 3", "twice 5 + 1", "√16 + 3": what comes first is not the number that stands there.
_HIDDEN = re.compile(
    r"(?:(?:half|thirds?|quarters?|[a-z]+ths?) of (?:the |her |his )?|(?:twice|double|half|triple) |\b[b-z] ?|[\w√\\{])\$?$", re.IGNORECASE
)
# Units of one family in their smallest: "1 hour - 20 minutes = 40 minutes" holds.
_UNITS = {"second": 1, "minute": 60, "min": 60, "hour": 3600, "hr": 3600, "day": 86400, "week": 604800,
          "cent": 1, "dollar": 100, "inch": 1, "inche": 1, "foot": 12, "feet": 12, "yard": 36}  # fmt: skip
_UNIT = re.compile(rf"\s?({'|'.join(_UNITS)})s?\b", re.IGNORECASE)
_MEASURE = re.compile(rf"({_NUMBER}){_UNIT.pattern}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Equation:
    """`left = right` as found in a text: `text` is the text from `start` to `end`, `left` and `right` are bare
    expressions for `evaluate`, without units, currency and thousands separators."""

    text: str
    left: str
    right: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int


def equations(text: str) -> list[Equation]:
    """Every "a op b [op c] = d" in a prose text, in order; "a + b = c * d = e" gives two.

    Numbers may have currency, thousands separators, percent signs, and units between them and the operators;
    "x", "×", "·", "÷", "plus", "times" and, after a fraction or a percentage, "of" are operators. GSM8K's
    `<<a=b>>` are skipped. What contains an unknown is not arithmetic and is not found.

    >>> [(e.left, e.right) for e in equations("He pays 3 shirts x $20/shirt = $60.")]
    [('3 * 20', '60')]
    """
    found = []
    for run in _runs(text):
        cuts = [index for index, token in enumerate(run) if token.text == "="]
        sides = [run[start + 1 : end] for start, end in zip([-1, *cuts], [*cuts, len(run)], strict=True)]
        sides[0], sides[-1] = _trimmed(sides[0], 0, "(-"), _trimmed(sides[-1], -1, ")-")
        for left, right in itertools.pairwise(sides):
            if sum(token.kind == "number" for token in left) < 2 or None in (_value(left), _value(right)):
                continue
            if left is sides[0] and _HIDDEN.search(text[: left[0].start]):
                continue
            start, end = left[0].start, right[-1].end
            if unit := _UNIT.match(text, end):
                end = unit.end()
            found.append(Equation(text[start:end], _join(left), _join(right), start, end))
    return found


def evaluate(expression: str) -> Fraction | None:
    """The exact value of an expression of numbers, + - * / ^ % and brackets; None when it is anything else,
    divides by zero or is larger than the bounds of this module."""
    if len(expression) > MAX_LENGTH:
        return None
    expression = _MIXED.sub(r"(\1+\2)", expression.translate(_SIGNS).strip())
    lexemes, at = [], 0
    while at < len(expression):
        lexeme = _LEXEME.match(expression, at)
        if lexeme is None:
            return None
        lexemes.append((lexeme[1] or lexeme[2]).replace(",", ""))
        at = lexeme.end()
    try:
        return _Parser(lexemes).value()
    except (ValueError, ZeroDivisionError):
        return None


def holds(equation: Equation) -> bool:
    """Is the right side the value of the left one, to the digits shown?

    Decimals may be rounded or cut off. A whole number may stand only for a value of more than two decimals, so
    10 / 3 = 3 holds and 7 / 2 = 3 does not. Percentages are read as fractions or as plain numbers, whichever
    holds ("30% + 20% = 50", "40 + 10% = 44"), and mixed units of time, money and length are converted.
    """
    left, right = equation.left, equation.right
    rise = re.fullmatch(r"([^%]*[^%\s])\s*([+-])\s*([\d.]+%)", left)
    readings = [(left, right), (left, right.replace("%", "")), (left.replace("%", ""), right.replace("%", ""))]
    if rise:
        readings.append((f"({rise[1]}) * (1 {rise[2]} {rise[3]})", right))
    # Only sums mix units: in a product they are not scales of one thing.
    if not re.search(r"[*/^]", left):
        text = re.sub(rf"\$\s?({_NUMBER})", r"\1 dollars", equation.text)
        base = _MEASURE.sub(lambda measure: f"({measure[1]} * {_UNITS[measure[2].lower()]})", text)
        readings += [(other.left, other.right) for other in equations(base)[:1]]
    return any(_close(evaluate(one), evaluate(other), right) for one, other in readings)


def number(text: str) -> Fraction | None:
    """The one number in a text, whatever stands around it ("$1,250.50", "15%" → 15, "12 apples", "3/4", "1 1/2");
    None when there is none, or more than one."""
    bare = _spelt(text.translate(_SIGNS).strip(" .$"))
    if re.fullmatch(r"-?(?:\d+ )?\d+ ?/ ?\d+|\(\d+\+\d/\d\)", bare):
        return evaluate(bare)
    found = numbers(text)
    return found[0] if len(found) == 1 else None


def numbers(text: str) -> list[Fraction]:
    """All numbers in a text as written, in order: "3/4" is 3 and 4, "15%" is 15, "5-3" is 5 and 3, "-3" is -3."""
    text = _ANNOTATION.sub(" ", text.translate(_SIGNS))
    found = []
    for match in _SIGNED.finditer(text):
        digits = match[2].replace(",", "")
        before = text[: match.start()].rstrip()[-1:]
        minus = bool(match[1]) and not (before.isalnum() and before == text[match.start() - 1 :][:1])
        negative = minus and not (before.isdigit() or before in (")", "%")) and not match[1].endswith(" ")
        if len(digits) <= MAX_LENGTH:
            found.append(-Fraction(digits) if negative else Fraction(digits))
    return found


def show(value: Fraction) -> str:
    """The shortest decimal: exact up to six decimals, else rounded to four, or to four significant digits.

    >>> show(Fraction(7, 2)), show(Fraction(10, 3)), show(Fraction(1200))
    ('3.5', '3.3333', '1200')
    """
    decimals = next((d for d in range(7) if (value * 10**d).denominator == 1), None)
    if decimals is None:
        decimals = 4
        while abs(value) * 10**decimals < 1000 and decimals < 12:
            decimals += 1
    digits = str(abs(round(value * 10**decimals))).rjust(decimals + 1, "0")
    sign = "-" if value < 0 and digits.strip("0") else ""
    whole, part = digits[: len(digits) - decimals], digits[len(digits) - decimals :].rstrip("0")
    return f"{sign}{whole}.{part}" if part else f"{sign}{whole}"


def _spelt(text: str) -> str:
    """Fraction glyphs and mixed numbers as sums: "1½" and "1 1/2" as "(1+1/2)"."""
    for glyph, fraction in _GLYPHS.items():
        text = re.sub(rf"(\d+){glyph}", rf"(\1+{fraction})", text).replace(glyph, fraction)
    return _MIXED.sub(r"(\1+\2)", text)


def _close(exact: Fraction | None, shown: Fraction | None, as_written: str) -> bool:
    if exact is None or shown is None or exact == shown:
        return exact is not None and exact == shown
    written = re.fullmatch(r"-?\d+(?:\.(\d+))?%?", as_written)
    if written is None:
        return False
    decimals = len(written[1] or "")
    unit = Fraction(1, 10**decimals) / (100 if as_written.endswith("%") and abs(shown) * 100 != 0 else 1)
    if decimals:
        return abs(exact - shown) < unit
    return (exact * 100 / unit).denominator != 1 and abs(exact - shown) <= unit / 2


def _value(tokens: Sequence[_Token]) -> Fraction | None:
    return evaluate(_join(tokens))


def _join(tokens: Sequence[_Token]) -> str:
    joined = " ".join(token.text for token in tokens)
    return re.sub(r" ?%", "%", joined.replace("( ", "(").replace(" )", ")"))


def _trimmed(side: list[_Token], end: int, marks: str) -> list[_Token]:
    """A side without the brackets and dashes of the prose around it."""
    while side and side[end].text in marks and _value(side) is None:
        side = side[1:] if end == 0 else side[:-1]
    return side


def _runs(text: str) -> Iterator[list[_Token]]:
    """Stretches of numbers and signs, each with an equals sign in it; units are left out, spoken signs read."""
    blanked = _ANNOTATION.sub(lambda note: " " * len(note.group()), text.translate(_SIGNS))
    blanked = blanked.replace(" percent", " %      ")
    tokens = [_Token(str(m.lastgroup), m.group(), m.start(), m.end()) for m in _TOKEN.finditer(blanked)]
    tokens = [token for token in tokens if token.kind != "blank"]
    run: list[_Token] = []
    at = 0
    while at < len(tokens):
        token, after = tokens[at], tokens[at + 1 : at + 2]
        operand = bool(run) and (run[-1].kind == "number" or run[-1].text in ")%")
        at += 1
        if token.text == "/" and operand and after and after[0].kind == "word" and len(after[0].text) > 1:
            at += 1
        elif token.kind == "word":
            words = [token]
            while at < len(tokens) and tokens[at].kind == "word":
                words.append(tokens[at])
                at += 1
            sign = _read_words(words, run, tokens[at : at + 1]) if operand else None
            if sign is None:
                yield run[:-1] if operand and _unknown(token, run) else run
                run = []
            elif sign:
                run.append(_Token("mark", sign, token.start, words[-1].end))
        elif token.kind in ("number", "times", "mark"):
            # "12 (3 + 4 = 7)" is not a product, "4(43)" is.
            if operand and (token.kind == "number" or (token.text == "(" and token.start > run[-1].end)):
                yield run
                run = []
            written = "*" if token.kind == "times" else _spelt(token.text).replace(",", "")
            if token.kind == "number" and "/" in written and written[0] != "(":
                written = f"({written})"
            run.append(_Token(token.kind, written, token.start, token.end))
        else:
            yield run
            run = []
    yield run


def _read_words(words: Sequence[_Token], run: Sequence[_Token], after: Sequence[_Token]) -> str | None:
    """What words after an operand mean: a sign, "" for a unit, None for prose."""
    if _unknown(words[0], run) or not after:
        return None
    if after[0].kind in ("mark", "times") and after[0].text not in ("(", "%"):
        return "" if len(words) <= 5 else None
    said = [word.text.lower() for word in words]
    if said in (["of"], ["of", "the"]):
        part = run[-1].text == "%" or (len(run) > 1 and run[-2].text == "/") or run[-1].text.startswith(("0.", ".", "("))
        return "*" if part else None
    return next((sign for end, sign in _SPOKEN.items() if said[-len(end.split()) :] == end.split() and len(said) < 5), None)


def _unknown(word: _Token, run: Sequence[_Token]) -> bool:
    """Is the word the letter in "2y"?"""
    return len(word.text) == 1 and word.start == run[-1].end


class _Parser:
    """Recursive descent over lexemes; raises ValueError for what is not in the grammar or beyond the bounds."""

    def __init__(self, lexemes: Sequence[str]) -> None:
        self.lexemes, self.at, self.depth = lexemes, 0, 0

    def value(self) -> Fraction:
        value = self.sum()
        if self.at != len(self.lexemes):
            raise ValueError("more than an expression")
        return value

    def peek(self) -> str:
        return self.lexemes[self.at] if self.at < len(self.lexemes) else ""

    def take(self, *options: str) -> str:
        found = self.peek() if self.peek() in options else ""
        self.at += bool(found)
        return found

    def sum(self) -> Fraction:
        value = self.product()
        while sign := self.take("+", "-"):
            other = self.product()
            value = _bounded(value + other if sign == "+" else value - other)
        return value

    def product(self) -> Fraction:
        value = self.sign()
        while (sign := self.take("*", "/")) or self.peek() == "(":
            other = self.sign()
            value = _bounded(value / other if sign == "/" else value * other)
        return value

    def sign(self) -> Fraction:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ValueError("too deep")
        value = -self.sign() if self.take("-") else self.power()
        self.depth -= 1
        return value

    def power(self) -> Fraction:
        value = self.atom()
        if self.take("^", "**"):
            exponent = self.sign()
            if exponent.denominator != 1 or abs(exponent) > MAX_EXPONENT:
                raise ValueError("exponent out of bounds")
            value = _bounded(value ** int(exponent))
        return value

    def atom(self) -> Fraction:
        if self.take("("):
            value = self.sum()
            if not self.take(")"):
                raise ValueError("bracket left open")
        elif self.peek()[:1].isdigit() or self.peek()[:1] == ".":
            value = _bounded(Fraction(self.peek()))
            self.at += 1
        else:
            raise ValueError("no number")
        while self.take("%"):
            value /= 100
        return value


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise ValueError("number out of bounds")
    return value
