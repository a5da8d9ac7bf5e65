"""MATH: 7,500 training and 5,000 test questions of competition mathematics (Hendrycks et al., arXiv 2103.03874).

A record holds `problem`, `solution` with the answer in `\\boxed{...}`, `level` and `type`, as at
https://github.com/hendrycks/math. Where it has an `answer` too, the one in the solution counts: published copies have
lost backslashes in theirs.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from lema.tasks import Reading, Task, Undecided
from lema.tasks.math.latex import Parts, clean, joined, number, parts
from lema.tasks.math.symbolic import Finding, compare
from lema.text.final_answer import boxed, conclusion, last_statement, unboxed
from lema.text.numbers import parse_number_words
from lema.text.records import text_field

_MOST = 12  # items that are compared in every order
_LONGEST = 400  # characters of an answer; longer ones are prose
_INSTRUCTION = re.compile(r"\s*Let's think step by step and output the final answer within \\boxed\{\}\.\s*$")
_FIGURE = re.compile(r"\[asy\].*?\[/asy\]", re.DOTALL)
_DISPLAY = re.compile(r"\\\[.*?\\\]|\$\$.*?\$\$|\\begin\{(\w+\*?)\}.*?\\end\{\1\}", re.DOTALL)
_MATH = re.compile(r"\$\$(.+?)\$\$|(?<!\\)\$(.+?)(?<!\\)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_NAME = r"(?:\\?[A-Za-z]+(?:_\w|_\{\w+\}|'+)?(?:\([A-Za-z,]+\))?)"
_GIVEN = re.compile(rf"^{_NAME}=(?=[^=])")
_MEMBER = re.compile(rf"^{_NAME}\\in(?![a-zA-Z])\s*")
_BASE = re.compile(r"([0-9A-F]+)_(?:(\d)|\{(\d+)\})")
_CLOCK = re.compile(r"(?<=:\d\d)\s*[ap]\.?m\.?$", re.IGNORECASE)
_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]*")
_PROSE = re.compile(r"(?<![\\a-zA-Z{])[A-Za-z]{3,}")
_FUNCTIONS = frozenset(("sin", "cos", "tan", "cot", "sec", "csc", "log", "exp", "max", "min", "gcd", "lcm", "mod"))
_NONE = frozenset(("none", "zero", "undefined", "infinite", "infinitely", "nothing"))
_VERDICTS: Mapping[Finding, bool | Undecided] = {
    "equal": True,
    "different": False,
    "unreadable": Undecided.UNPARSED,
    "timeout": Undecided.TIMEOUT,
}
_NEAR = Fraction(1, 2_000_000)
_RELATION = re.compile(r"[<>=]|\\(?:le|ge|ne|lt|gt)(?![a-zA-Z])")


def extract(text: str) -> str | None:
    r"""The final answer in a model's text, as LaTeX or words, or None.

    It stands after the last "The answer is", or in the last `\boxed{}` or `\fbox{}` where none comes after it;
    without either, after the last "Answer:". What follows an invented next "Question:" does not count.
    """
    found = last_statement(conclusion(text))
    if found is None:
        return None
    inner = found.text if found.kind == "box" else boxed(found.text)
    answer = _stated(found.text) if inner is None else inner
    return answer if answer and len(answer) <= _LONGEST else None


def _stated(rest: str) -> str | None:
    """The answer at the beginning of what follows "The answer is"."""
    if not rest.strip():
        return None
    rest = rest.strip()
    if rest.startswith(("\\[", "$$")):
        clause = rest[: match.end()] if (match := _MATH.match(rest)) else rest
    else:
        clause = _sentence(rest.partition("\n")[0])
    clause = clause.strip().strip("*_").strip()
    formulas = [str(next(filter(None, match.groups()))) for match in _MATH.finditer(clause)]
    # "$x = 2$ and $x = 3$", "$5$ dollars": formulas, and words that say nothing more.
    between = _MATH.sub(" ", clause)
    if formulas and re.fullmatch(r"(?:\s|,|;|\.|\band\b|\bor\b|\\?%)*", between):
        return ", ".join(one.strip() for one in formulas) + ("\\%" if "%" in between else "")
    if len(formulas) == 1 and clause.startswith(("$", "\\(")) and re.fullmatch(r"[\s.]*[a-z ]+[\s.]*", between):
        return formulas[0].strip()
    return clause.rstrip(".,; ") or None


def _sentence(line: str) -> str:
    """A line up to the full stop that ends its first sentence; those within formulas and numbers do not."""
    formulas = [match.span() for match in _MATH.finditer(line)]
    for match in re.finditer(r"[.!?;](?=[\s*]|$)|,\s+(?=(?:because|since|as|so|which|that|where|when)\b)", line):
        before = line[: match.start()]
        if before.count("{") <= before.count("}") and not any(start < match.start() < end for start, end in formulas):
            return before
    return line


def equal(answer: str, gold: str) -> bool | Undecided:
    r"""Whether two answers are mathematically the same.

    Equal texts are, after what only looks different is made alike (`\dfrac`, units, degrees, currency, `\left`).
    Numbers are compared exactly; a decimal equals what it differs from only beyond the sixth place. A percentage
    equals its number and its share of one. Tuples, intervals and matrices are compared item by item, sets and lists
    in any order. What is left goes to math-verify. Words are compared with words only.
    """
    (left, left_percent), (right, right_percent) = clean(answer), clean(gold)
    if left_percent != right_percent and (one := number(left)) and (other := number(right)):
        share, rest = (one.value, other.value) if left_percent else (other.value, one.value)
        return share in (rest, 100 * rest)
    return _equal(left, right)


def _equal(left: str, right: str) -> bool | Undecided:
    left, right = _alone(left, right), _alone(right, left)
    if left == right:
        return bool(left) or Undecided.UNPARSED
    if (one := number(left)) and (other := number(right)):
        near = (one.rounded or other.rounded) and abs(one.value - other.value) < _NEAR
        return one.value == other.value or near
    left, right = joined(left), joined(right)
    if based := _based(left, right):
        return based == "equal"
    if (found := _worded(left, right)) is not None:
        return found
    these, those = parts(left), parts(right)
    single = [bool(some and some.kind == "{}" and len(some.items) == 1) for some in (these, those)]
    if single[0] != single[1]:
        return equal(these.items[0] if these and single[0] else left, those.items[0] if those and single[1] else right)
    if these and those and (found := _structured(these, those)) is not None:
        return found
    if (these and number(right)) or (those and number(left)):
        return False
    return _VERDICTS[compare(left, right)]


def _alone(text: str, other: str) -> str:
    """A text without what only introduces the answer, where the other one has none of it: "x=", "x\\in"."""
    if not other.startswith("\\approx"):
        text = re.sub(r"^\\approx|(?<=.)\\approx.*$", "", text)
    if not _CLOCK.search(other):
        text = _CLOCK.sub("", text)
    if not _MEMBER.match(other):
        text = _MEMBER.sub("", text)
    if "=" in text and not _RELATION.search(other):
        items = [re.split(r"(?<![<>!\\])=", item)[-1] if _GIVEN.match(item) else item for item in text.split(",")]
        return ",".join(items)
    return text


def _based(left: str, right: str) -> str | None:
    """Numerals of another base: the base may be left out on one side, as the question states it."""
    one, other = _BASE.fullmatch(left), _BASE.fullmatch(right)
    if one and other:
        return "equal" if one[1] == other[1] and (one[2] or one[3]) == (other[2] or other[3]) else "different"
    numeral, bare = (one, right) if one else (other, left)
    if numeral and re.fullmatch(r"[0-9A-F]+", bare):
        return "equal" if numeral[1] == bare else "different"
    return None


def _worded(left: str, right: str) -> bool | Undecided | None:
    """Answers in words, and the letters of choices; None where neither side is one."""
    if re.fullmatch("[A-Z]", right):
        if re.fullmatch("[A-Za-z]", left):
            return left.upper() == right
        letters = re.findall(r"(?<![A-Za-z\\])[A-Z](?![A-Za-z])", left)
        return Undecided.UNPARSED if right in letters else False
    words, gold_words = ({word.lower() for word in _PROSE.findall(text)} - _FUNCTIONS for text in (left, right))
    only_words = _WORDS.fullmatch(left) is not None and bool(words)
    if _WORDS.fullmatch(right) and gold_words:
        same = only_words and left.casefold() == right.casefold()
        return same or (Undecided.UNPARSED if gold_words <= words else False)
    if not only_words:
        return Undecided.UNPARSED if len(words - gold_words) > 1 else None
    if (wanted := number(right)) and not words & _NONE:
        return parse_number_words(left) == wanted.value
    # "all real numbers" may well be the gold set: only a reader could tell.
    return Undecided.UNPARSED if " " in left or words & _NONE else False


def _structured(these: Parts, those: Parts) -> bool | Undecided | None:
    """Two answers made of items; None where only algebra can tell."""
    kinds = {these.kind, those.kind}
    if kinds & {"cup"}:
        if these.kind != those.kind or len(these.items) != len(those.items):
            return None
    elif len(these.items) != len(those.items):
        return False
    elif len(kinds) > 1:
        column = any(re.fullmatch(r"pmatrix 1(x1)*", kind) for kind in kinds) and bool(kinds & {"()", ","})
        if not column and not ("," in kinds and kinds & {"()", "[]", "{}"}):
            return False
    ordered = these.ordered or those.ordered
    pairs = list(zip(these.items, those.items, strict=True))
    in_order = _all(equal(item, gold) for item, gold in pairs)
    if ordered or in_order is True:
        return in_order
    return _matched(these.items, those.items) if len(pairs) <= _MOST else None


def _all(findings: Iterable[bool | Undecided]) -> bool | Undecided:
    """True if all are, False if one is, else why it is open. What once took too long is not tried again."""
    reason: Undecided | None = None
    for finding in findings:
        if finding is False or finding is Undecided.TIMEOUT:
            return finding
        if isinstance(finding, Undecided):
            reason = finding
    return True if reason is None else reason


def _matched(items: Sequence[str], golds: Sequence[str]) -> bool | Undecided:
    """Is there an item for every gold one, in any order? Equality is transitive, so the first that fits will do."""
    left = list(items)
    reason: Undecided | None = None
    for gold in golds:
        findings = [equal(item, gold) for item in left]
        if True in findings:
            left.pop(findings.index(True))
            continue
        reason = next((finding for finding in findings if isinstance(finding, Undecided)), None)
        if reason is None:
            return False
    return True if reason is None else reason


def read_math(record: Mapping[str, Any]) -> Reading:
    problem, solution, answer = text_field(record, "problem"), record.get("solution"), record.get("answer")
    gold = boxed(solution) if isinstance(solution, str) else None
    if not gold and isinstance(answer, str | int | float) and not isinstance(answer, bool):
        gold = str(answer).strip()
    if not gold:
        raise ValueError("needs a `solution` with the answer in \\boxed{...}, or an `answer`")
    strata = {name: str(record[name]) for name in ("level", "type") if record.get(name)}
    rationale = _math_rationale(solution) if isinstance(solution, str) else None
    return Reading(_INSTRUCTION.sub("", problem).strip(), gold, rationale, strata)


def _math_rationale(solution: str) -> str | None:
    """A solution as steps, one a line: formulas that stand alone stay with the text before them, figures are left
    out, and so are the boxes, as the format of the training examples states the answer in its own way."""
    text = unboxed(_FIGURE.sub(" ", solution))
    text = _DISPLAY.sub(lambda match: " ".join(match[0].split()), text)
    text = re.sub(r"\s*\n\s*(?=\\\[|\$\$|\\begin)", " ", text)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return "\n".join(line for line in lines if line) or None


def counts_math(record: Mapping[str, Any]) -> bool:
    """A few published solutions end in an empty box: nothing can be compared with those."""
    solution = record.get("solution")
    return not isinstance(solution, str) or boxed(solution) != "" or bool(record.get("answer"))


def write_math(reading: Reading) -> dict[str, Any]:
    """A rationale may be a model's path with boxes of its own, so the answer stands apart from it."""
    record = {"problem": reading.text, "solution": unboxed(reading.rationale or ""), "answer": reading.gold}
    return {**record, **reading.strata}


math = Task("math", read_math, extract, equal, counts=counts_math, write=write_math)
