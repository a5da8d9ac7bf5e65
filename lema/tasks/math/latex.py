"""Mathematical answers as MATH has them: one way to write each, exact numbers, and the items of lists, tuples,
intervals, sets, unions and matrices, so that most answers need no algebra."""

import re
from fractions import Fraction
from itertools import accumulate
from typing import NamedTuple

_UNICODE_SIGNS = str.maketrans(
    {"−": "-", "–": "-", "\u00a0": " ", "\u202f": " ", "π": "\\pi ", "×": "\\times ", "·": "\\cdot ",
     "∞": "\\infty ", "≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "∪": "\\cup ", "∩": "\\cap ", "±": "\\pm ",
     "°": "^\\circ ", "½": "\\frac{1}{2}", "¼": "\\frac{1}{4}", "¾": "\\frac{3}{4}", "²": "^2", "³": "^3",
     "θ": "\\theta ", "∅": "\\emptyset ", "ℝ": "\\mathbb{R}", "∈": "\\in ", "’": "'", "€": "", "£": "", "¥": ""}
)  # fmt: skip
_DELIMITERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("`", "`"), ("*", "*"))
_TEXTS = "mbox|text(?:bf|it|rm|normal|sf)|math(?:rm|bf|it|sf)|boldsymbol|operatorname"
_FUNCTION_NAMES = "(?:arc)?(?:sin|cos|tan)|cot|sec|csc|ln|log|exp|alpha|beta|gamma|theta|lambda|infty"
_DEGREES = re.compile(r"(\\?(?:sin|cos|tan)\s*\(?\s*)(\d+)\s*\^\s*(?:\\circ(?![a-zA-Z])|\{\s*\\circ\s*\})")
_THIN = r"(?:\\[,!]|\\thinspace|[ ~])"
_SAME = (
    (re.compile(r"(?<![\\a-zA-Z])sqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<![\\a-zA-Z])(pi|infinity)(?![a-zA-Z])"), lambda m: {"pi": "\\pi ", "infinity": "\\infty "}[m[1]]),
    (re.compile(r"√\s*(?:(\d+)|\(([^()]*)\))"), r"\\sqrt{\1\2}"),
    (re.compile(r"(?<=\d)[eE]([-+]?\d{1,3})(?![\d.])"), r"\\times10^{\1}"),
    (re.compile(rf"(?<=\d){_THIN}(?=\d{{3}}(?!\d))"), ""),
    (_DEGREES, r"\1{\\frac{\2\\pi}{180}}"),
    (re.compile(r"(?<=\d)(?:,\\!|\{,\}(?:\\!)?)(?=\d{3})"), ","),
    (re.compile(r"\\(?:left|right|[bB]igg?[lrm]?)(?=\s*[^a-zA-Z\s])"), ""),
    (re.compile(r"\\(?:text|mathrm|operatorname)\{(" + _FUNCTION_NAMES + r")\}"), r"\\\1 "),
    (re.compile(rf"(?<![\\a-zA-Z])({_FUNCTION_NAMES})(?![a-zA-Z])"), r"\\\1 "),
    (re.compile(r"\\displaystyle(?![a-zA-Z])|\\[,;:!>]|\\q?quad(?![a-zA-Z])|(?<!\\)~"), " "),
    (re.compile(r"(?<!\\)\\ "), " "),
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\(?:leqslant|leq)(?![a-zA-Z])"), r"\\le"),
    (re.compile(r"\\(?:geqslant|geq)(?![a-zA-Z])"), r"\\ge"),
    (re.compile(r"\\neq(?![a-zA-Z])"), r"\\ne"),
    (re.compile(r"\\varnothing(?![a-zA-Z])"), r"\\emptyset"),
    (re.compile(rf"\\(?:{_TEXTS})(?![a-zA-Z])"), r"\\text"),
    (re.compile(r"\\begin\{[bp]matrix\}"), r"\\begin{pmatrix}"),
    (re.compile(r"\\end\{[bp]matrix\}"), r"\\end{pmatrix}"),
    (re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|\\degree(?![a-zA-Z])|\bdegrees?\b"), ""),
    (re.compile(r"\\\$|(?<!\\)\$"), ""),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\s*,?\s*\\text\s*\{\s*,?\s*(?:and|or)\s*\}"), ","),
    (re.compile(r"(?<=[\d)}\]])\s*,?\s+(?:and|or)\s+(?=[-\d\\(a-z])"), ", "),
)  # fmt: skip
# `\frac12`, `\frac1{72}`, `\frac{29}4`, `\sqrt2`, `x^{2}`.
_BARE_FRACTION = re.compile(r"\\frac\s*(?:(\d)|(\{[^{}]*\}))\s*(?:(\d)|(\{[^{}]*\}))")
_BARE_ROOT = re.compile(r"\\sqrt\s*(\d|[a-z](?![a-z]))")
_HEDGE = re.compile(r"^(?:(?:approximately|about|roughly|around|nearly|exactly|simply|just)\s+|~\s*)+", re.IGNORECASE)
_TRAILING_UNIT = re.compile(
    r"(?<=[\d)}.])\s*(?:\\text\s*\{[^{}]*\}|\sof\s(?:the|a|an|all)\s[a-z]+|\s(?:square|cubic|sq\.?|cu\.?)\s[a-z]+|\s(?:[a-z]{3,}|cm|mm|km|ft|in|kg|mi|mL|ml|lb|oz|hr|m|g))"
    r"(?:\s+[a-z]{2,})*\.?(?:\s*\^\s*\{?[23]\}?)?$"
)
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_INTEGER = r"\d{1,40}"
_LATEX_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)(?:(?P<decimal>{_INTEGER}\.\d{{0,40}}|\.\d{{1,40}}|{_INTEGER})"
    r"(?:\\(?:times|cdot)10\^(?:\{(?P<power>-?\d{1,3})\}|(?P<digit>\d)))?"
    rf"|(?P<whole>{_INTEGER})?\\frac\{{(?P<minus>-?)(?P<over>{_INTEGER})\}}\{{(?P<under>{_INTEGER})\}}"
    rf"|(?:(?P<mixed>{_INTEGER}) )?(?P<top>{_INTEGER})/(?P<low>{_INTEGER}))"
)
_MATRIX = re.compile(r"\\begin\{([a-zA-Z]*matrix)\}(.*)\\end\{\1\}", re.DOTALL)


class LatexNumber(NamedTuple):
    """An exact number; `rounded` when it was written as a decimal."""

    value: Fraction
    rounded: bool


class Items(NamedTuple):
    """What an answer is made of: `kind` is "(]" and the like for what stands in brackets, "{}" for a set, "," for a
    bare list, "cup" for a union, "matrix" and its shape for a matrix; `ordered` when the order counts."""

    kind: str
    items: tuple[str, ...]
    ordered: bool


def canonical_latex(latex: str) -> tuple[str, bool]:
    """An answer in the one way in which it is compared, and whether it was a percentage."""
    text = latex.translate(_UNICODE_SIGNS).strip()
    text = _outer(text)
    for pattern, same in _SAME:
        text = pattern.sub(same, text)
    text = _outer(_HEDGE.sub("", text.strip()).rstrip(".,;").strip())
    bare = re.sub(r"\s*(?:\\?%|\\?\bpercent\b)\s*$", "", text)
    percent, text = bare != text, bare
    text = _TRAILING_UNIT.sub("", text) if not re.match(r"\\?[a-zA-Z]*\s*\\text", text) else text
    text = _TEXT.sub(r" \1 ", text).strip()
    text = _BARE_FRACTION.sub(lambda m: f"\\frac{_braced(m[1], m[2])}{_braced(m[3], m[4])}", text)
    text = _BARE_ROOT.sub(r"\\sqrt{\1}", text)
    text = re.sub(r"([\^_])\{(\w)\}", r"\1\2", text)
    text = re.sub(r"^\\\{\s*\\\}$", r"\\emptyset", re.sub(r"^\{([^{}]*)\}$", r"\1", text).strip())
    text = re.sub(r"^\(\s*([A-Za-z]|[-+]?[\d.]+)\s*\)$", r"\1", text)
    # A space counts between two words, and after a command before a letter.
    text = re.sub(r"(?<![a-zA-Z\d])\s+|\s+(?![a-zA-Z\d])", "", text)
    return re.sub(r"\s+", " ", re.sub(r"(?<=[a-zA-Z])\s+(?=\d)|(?<=\d)\s+(?=[a-zA-Z])", "", text)), percent


def latex_number(text: str) -> LatexNumber | None:
    """The number that a cleaned text is: an integer, a decimal, a fraction or a mixed number."""
    match = _LATEX_NUMBER.fullmatch(join_thousands(text))
    if match is None:
        return None
    if match["decimal"]:
        value = Fraction(match["decimal"].rstrip(".")) * Fraction(10) ** int(match["power"] or match["digit"] or 0)
    else:
        over, under = int(match["over"] or match["top"]), int(match["under"] or match["low"])
        if under == 0:
            return None
        value = Fraction(over, under) * (-1 if match["minus"] else 1) + int(match["whole"] or match["mixed"] or 0)
    return LatexNumber(-value if match["sign"] == "-" else value, "." in (match["decimal"] or ""))


def join_thousands(text: str) -> str:
    """A cleaned text with "1,234" as 1234, unless it stands in brackets: in those, a comma separates."""
    bracketed = text.startswith(("(", "[", "\\{"))
    return text if bracketed else _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)


def split_items(text: str) -> Items | None:
    """The items of a cleaned text that is a list, tuple, interval, set, union or matrix, each uncleaned."""
    if matrix := _MATRIX.fullmatch(text):
        rows = [row.split("&") for row in re.split(r"\\\\", matrix[2]) if row.strip()]
        shape = "x".join(str(len(row)) for row in rows)
        return Items(f"{matrix[1]} {shape}", tuple(item for row in rows for item in row), True)
    if len(union := _split_outside_brackets(text, "\\cup")) > 1:
        return Items("cup", tuple(union), False)
    for opening, first in (("\\{", "{"), ("(", "("), ("[", "[")):
        closing = next((mark for mark in ("\\}", ")", "]") if text.endswith(mark)), None)
        if text.startswith(opening) and closing and _whole(text):
            items = _split_outside_brackets(text[len(opening) : -len(closing)], ",")
            if len(items) > 1 or opening == "\\{":
                return Items(first + closing[-1], tuple(items), opening != "\\{")
    items = _split_outside_brackets(text, ",")
    if len(items) == 1 and "\\pm" in text and "=" not in text and text.count("\\pm") == 1 and "\\mp" not in text:
        plus = re.sub(r"^\+", "", text.replace("\\pm", "+", 1))
        items = [plus, text.replace("\\pm", "-", 1)]
    return Items(",", tuple(items), False) if len(items) > 1 else None


def _braced(digit: str | None, group: str | None) -> str:
    return group if group is not None else f"{{{digit}}}"


def _outer(text: str) -> str:
    """A text without the delimiters of mathematics and of Markdown that stand around all of it."""
    for opening, end in _DELIMITERS:
        inner = text[len(opening) : -len(end)].strip()
        around = text.startswith(opening) and text.endswith(end) and not inner.endswith("\\")
        if inner and around and opening not in inner and end not in inner:
            return _outer(inner)
    return text


def _depths(text: str) -> list[int]:
    """How many brackets are open after each character."""
    return list(accumulate((sign in "([{") - (sign in ")]}") for sign in text))


def _split_outside_brackets(text: str, separator: str) -> list[str]:
    """A text cut at the separators that stand in no brackets."""
    depths = [0, *_depths(text)]
    cuts = [match.start() for match in re.finditer(re.escape(separator), text) if not depths[match.start()]]
    starts = [0, *(cut + len(separator) for cut in cuts)]
    return [text[start:end].strip() for start, end in zip(starts, [*cuts, len(text)], strict=True)]


def _whole(text: str) -> bool:
    """Is the first bracket of a text closed by its last?"""
    return 0 not in (depths := _depths(text))[1:-1] and depths[-1] == 0
