"""Arithmetic in prose: find it, compute it, check it. Nothing is ever executed: expressions of numbers with
+ - * / ^ % and brackets are all there is, "4(43)" being a product and "-2^2" minus four.
"""

import itertools
import operator
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from lema.text.numbers import ANNOTATION, DIGITS, FRACTION_SIGNS, MAX_DIGITS
from lema.text.units import ANY_UNIT, SCALES

# Bounds on what a stranger's text may make us compute.
MAX_LENGTH, MAX_DEPTH, MAX_EXPONENT, MAX_BITS = MAX_DIGITS, 40, 32, 2048

_BINDING = {"+": 1, "-": 1, "*": 2, "/": 2, "(": 2, "^": 3, "**": 3, "%": 4}
_BINARY_OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}

_ASCII_SIGNS = str.maketrans(dict(zip("×·∗⋅÷−–≈\u00a0\u2009", "****/--=  ", strict=True)))
_MIXED = re.compile(r"(?<![\d.,/])(\d+) ([1-9]/\d+)(?![\d.,/])")
_LEXEME = re.compile(rf"\s*(?:({DIGITS})|(\*\*|[-+*/^()%]))")
_TOKEN = re.compile(
    r"(?P<clock>\d+:\d+)"
    rf"|(?P<number>(?<=/ )\d+/\d+(?!\d)|(?<![\d.,/])\d+ [1-9]/\d+(?![\d.,/])|\d*[{''.join(FRACTION_SIGNS)}]|{DIGITS})"
    r"|(?P<times>(?<=[\d)%\s])[xX](?=[\s\d($]))|(?P<mark>\*\*|[-+*/^()=%])|(?P<blank>[\s$€£¥₹¢]+)"
    r"|(?P<word>\([^()\d]*\)|(?:oz|lbs?|hrs?|ft|yd|mins?|sq|in)\.(?=\s*[-+*/=x])|[^\W\d_]+(?:['’&-][^\W\d_]+)*)"
    r"|(?P<other>.)",
    re.DOTALL,
)
_SPOKEN = {"plus": "+", "minus": "-", "times": "*", "multiplied by": "*", "divided by": "/",
           "equals": "=", "is equal to": "="}  # fmt: skip
# "half of 20 - 3", "twice 5 + 1", "√16 + 3": what comes first is not the number that stands there.
_HIDDEN = re.compile(
    r"(?:(?:half|thirds?|quarters?|[a-z]+ths?) of (?:the |her |his )?|(?:twice|double|half|triple) "
    r"|(?<![\w'’])[b-z] ?|[\w√\\{])\$?$",
    re.IGNORECASE,
)
_UNIT_AFTER = re.compile(rf"\s?({ANY_UNIT})s?\b", re.IGNORECASE)
_MEASURE = re.compile(rf"({DIGITS}){_UNIT_AFTER.pattern}", re.IGNORECASE)


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
            known = evaluate(_join_tokens(left)) is not None and evaluate(_join_tokens(right)) is not None
            if not known or sum(token.kind == "number" for token in left) < 2:
                continue
            if left is sides[0] and _HIDDEN.search(text[max(0, left[0].start - 40) : left[0].start]):
                continue
            start, end = left[0].start, right[-1].end
            start -= text[start - 1 : start] == "$"
            if unit := _UNIT_AFTER.match(text, end):
                end = unit.end()
            found.append(Equation(text[start:end], _join_tokens(left), _join_tokens(right), start, end))
    return found


def evaluate(expression: str) -> Fraction | None:
    """The exact value of an expression of numbers, + - * / ^ % and brackets; None when it is anything else,
    divides by zero or is larger than the bounds of this module."""
    if len(expression) > MAX_LENGTH:
        return None
    expression = _MIXED.sub(r"(\1+\2)", expression.translate(_ASCII_SIGNS).strip())
    lexemes, at = deque[str](), 0
    while at < len(expression):
        lexeme = _LEXEME.match(expression, at)
        if lexeme is None:
            return None
        lexemes.append((lexeme[1] or lexeme[2]).replace(",", ""))
        at = lexeme.end()
    try:
        value = _expression(lexemes)
    except (ValueError, ZeroDivisionError):
        return None
    return None if lexemes else value


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
        text = re.sub(rf"\$\s?({DIGITS})", r"\1 dollars", equation.text)
        base = _MEASURE.sub(lambda measure: f"({measure[1]} * {SCALES[measure[2].lower()]})", text)
        readings += [(other.left, other.right) for other in equations(base)[:1]]
    return any(_agree(one, other) for one, other in readings)


def _spelt(text: str) -> str:
    """Fraction glyphs and mixed numbers as sums: "1½" and "1 1/2" as "(1+1/2)"."""
    for glyph, fraction in FRACTION_SIGNS.items():
        text = re.sub(rf"(\d+){glyph}", rf"(\1+{fraction})", text).replace(glyph, fraction)
    return _MIXED.sub(r"(\1+\2)", text)


def _agree(exact: str, shown: str) -> bool:
    one, other = evaluate(exact), evaluate(shown)
    written = re.fullmatch(r"-? ?\d+(?:\.(\d+))?(%?)", shown)
    if one is None or other is None or one == other or written is None:
        return one is not None and one == other
    unit = Fraction(1, 10 ** len(written[1] or "") * (100 if written[2] else 1))
    if written[1]:
        return abs(one - other) < unit
    return (one / unit * 100).denominator != 1 and abs(one - other) <= unit / 2


def _join_tokens(tokens: Sequence[_Token]) -> str:
    joined = " ".join(token.text for token in tokens)
    return re.sub(r" ?%", "%", joined.replace("( ", "(").replace(" )", ")"))


def _trimmed(side: list[_Token], end: int, marks: str) -> list[_Token]:
    """A side without the brackets and dashes of the prose around it."""
    while len(side) <= MAX_LENGTH and side and side[end].text in marks and evaluate(_join_tokens(side)) is None:
        side = side[1:] if end == 0 else side[:-1]
    return side


def _runs(text: str) -> Iterator[list[_Token]]:
    """Stretches of numbers and signs, each with an equals sign in it; units are left out, spoken signs read."""
    blanked = ANNOTATION.sub(lambda note: " " * len(note.group()), text.translate(_ASCII_SIGNS))
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
            written = "*" if token.kind == "times" else _spelt(token.text[: MAX_LENGTH + 1]).replace(",", "")
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
    said = " ".join(word.text.lower() for word in words)
    if said in ("of", "of the"):
        part = run[-1].text == "%" or run[-1].text[0] in "0.(" or (len(run) > 1 and run[-2].text == "/")
        return "*" if part else None
    spoken = (sign for end, sign in _SPOKEN.items() if f" {said}".endswith(f" {end}") and len(words) < 5)
    return next(spoken, None)


def _unknown(word: _Token, run: Sequence[_Token]) -> bool:
    """Is the word the letter in "2y"?"""
    return len(word.text) == 1 and word.start == run[-1].end


def _expression(lexemes: deque[str], floor: int = 0, depth: int = 0) -> Fraction:
    """Take an expression off the front, as far as signs bind tighter than `floor`; ValueError where there is none."""
    if depth > MAX_DEPTH or not lexemes:
        raise ValueError("no expression, or too deep a one")
    head = lexemes.popleft()
    if head == "-":
        value = -_expression(lexemes, _BINDING["*"], depth + 1)
    elif head == "(":
        value = _expression(lexemes, 0, depth + 1)
        if not lexemes or lexemes.popleft() != ")":
            raise ValueError("bracket left open")
    else:
        value = _bounded(Fraction(head))
    while lexemes and (binding := _BINDING.get(lexemes[0], 0)) > floor:
        sign = "*" if lexemes[0] == "(" else lexemes.popleft()
        if sign == "%":
            value /= 100
        elif sign in ("^", "**"):
            exponent = _expression(lexemes, _BINDING["*"], depth + 1)
            if exponent.denominator != 1 or abs(exponent) > MAX_EXPONENT:
                raise ValueError("exponent out of bounds")
            value = _bounded(value ** int(exponent))
        else:
            other = _expression(lexemes, binding, depth + 1)
            value = _bounded(_BINARY_OPERATIONS[sign](value, other))
    return value


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise ValueError("number out of bounds")
    return value
