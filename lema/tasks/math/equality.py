"""When two mathematical answers are the same: by their text, as numbers, item by item, and by algebra at last."""

import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from lema.tasks import Undecided
from lema.tasks.math.latex import Items, canonical_latex, join_thousands, latex_number, split_items
from lema.tasks.math.symbolic import Comparison, compare
from lema.text.numbers import parse_number_words

_MOST = 12  # items that are compared in every order
_VARIABLE_NAME = r"(?:\\?[A-Za-z]+(?:_\w|_\{\w+\}|'+)?(?:\([A-Za-z,]+\))?)"
_GIVEN = re.compile(rf"^{_VARIABLE_NAME}=(?=[^=])")
_MEMBER = re.compile(rf"^{_VARIABLE_NAME}\\in(?![a-zA-Z])\s*")
_BASE = re.compile(r"([0-9A-F]+)_(?:(\d)|\{(\d+)\})")
_MODULUS = re.compile(r"(?:^[a-z]\\equiv|\\pmod.*$|\(mod\s*\d+\)$)")
_CLOCK = re.compile(r"(?<=:\d\d)\s*[ap]\.?m\.?$", re.IGNORECASE)
_ONLY_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]*")
_PROSE = re.compile(r"(?<![\\a-zA-Z{])[A-Za-z]{3,}")
_FUNCTIONS = frozenset(("sin", "cos", "tan", "cot", "sec", "csc", "log", "exp", "max", "min", "gcd", "lcm", "mod"))
_NONE = frozenset(("none", "zero", "undefined", "infinite", "infinitely", "nothing"))
_VERDICTS: Mapping[Comparison, bool | Undecided] = {
    "equal": True,
    "different": False,
    "unreadable": Undecided.UNPARSED,
    "timeout": Undecided.TIMEOUT,
}
_NEAR = Fraction(1, 2_000_000)
_RELATION = re.compile(r"[<>=]|\\(?:le|ge|ne|lt|gt)(?![a-zA-Z])")


def equal_math(answer: str, gold: str) -> bool | Undecided:
    r"""Whether two answers are mathematically the same.

    Equal texts are, after what only looks different is made alike (`\dfrac`, units, degrees, currency, `\left`).
    Numbers are compared exactly; a decimal equals what it differs from only beyond the sixth place. A percentage
    equals its number and its share of one. Tuples, intervals and matrices are compared item by item, sets and lists
    in any order. What is left goes to math-verify. Words are compared with words only.
    """
    (left, left_percent), (right, right_percent) = canonical_latex(answer), canonical_latex(gold)
    if left_percent != right_percent and (one := latex_number(left)) and (other := latex_number(right)):
        share, rest = (one.value, other.value) if left_percent else (other.value, one.value)
        return share in (rest, 100 * rest)
    return _equal(left, right)


def _equal(left: str, right: str) -> bool | Undecided:
    left, right = _alone(left, right), _alone(right, left)
    if left == right:
        return bool(left) or Undecided.UNPARSED
    if (one := latex_number(left)) and (other := latex_number(right)):
        # "120,135" and "135,120" are lists; read as numbers, both are not what is meant.
        as_list = "," in left and sorted(left.split(",")) == sorted(right.split(","))
        near = min(_NEAR, max(abs(one.value), abs(other.value)) / 1000) if one.rounded or other.rounded else 0
        return one.value == other.value or as_list or abs(one.value - other.value) < near
    left, right = join_thousands(left), join_thousands(right)
    if (same_numeral := _same_numeral(left, right)) is not None:
        return same_numeral
    if (found := _worded(left, right)) is not None:
        return found
    these, those = split_items(left), split_items(right)
    single = [bool(some and some.kind == "{}" and len(some.items) == 1) for some in (these, those)]
    if single[0] != single[1]:
        left = these.items[0] if these and single[0] else left
        return equal_math(left, those.items[0] if those and single[1] else right)
    if these and those and (found := _structured(these, those)) is not None:
        return found
    if (these and latex_number(right)) or (those and latex_number(left)):
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
    if not _MODULUS.search(other):
        text = _MODULUS.sub("", text)
    if "=" in text and not _RELATION.search(other):
        items = [re.split(r"(?<![<>!\\])=", item)[-1] if _GIVEN.match(item) else item for item in text.split(",")]
        return ",".join(items)
    return text


def _same_numeral(left: str, right: str) -> bool | None:
    """Whether numerals of another base are the same, None where neither side is one. The base may be left out on one
    side, as the question states it."""
    one, other = _BASE.fullmatch(left), _BASE.fullmatch(right)
    if one and other:
        return one[1] == other[1] and (one[2] or one[3]) == (other[2] or other[3])
    numeral, bare = (one, right) if one else (other, left)
    return numeral[1] == bare if numeral and re.fullmatch(r"[0-9A-F]+", bare) else None


def _worded(left: str, right: str) -> bool | Undecided | None:
    """Answers in words, and the letters of choices; None where neither side is one."""
    if re.fullmatch("[A-Z]", right):
        if re.fullmatch("[A-Za-z]", left):
            return left.upper() == right
        letters = re.findall(r"(?<![A-Za-z\\])[A-Z](?![A-Za-z])", left)
        return Undecided.UNPARSED if right in letters else False
    words, gold_words = ({word.lower() for word in _PROSE.findall(text)} - _FUNCTIONS for text in (left, right))
    only_words = _ONLY_WORDS.fullmatch(left) is not None and bool(words)
    if _ONLY_WORDS.fullmatch(right) and gold_words:
        same = only_words and left.casefold() == right.casefold()
        return same or (Undecided.UNPARSED if gold_words <= words else False)
    if not only_words:
        return Undecided.UNPARSED if len(words - gold_words) > 1 else None
    if (wanted := latex_number(right)) and not words & _NONE:
        return parse_number_words(left) == wanted.value
    # "all real numbers" may well be the gold set: only a reader could tell.
    return Undecided.UNPARSED if " " in left or words & _NONE else False


def _structured(these: Items, those: Items) -> bool | Undecided | None:
    """Two answers made of items; None where only algebra can tell."""
    kinds, as_many = {these.kind, those.kind}, len(these.items) == len(those.items)
    if "cup" in kinds and not (as_many and len(kinds) == 1):
        return None
    if not as_many:
        return False
    if len(kinds) > 1:
        column = any(re.fullmatch(r"pmatrix 1(x1)*", kind) for kind in kinds) and bool(kinds & {"()", ","})
        if not column and not ("," in kinds and kinds & {"()", "[]", "{}"}):
            return False
    ordered = these.ordered or those.ordered
    pairs = list(zip(these.items, those.items, strict=True))
    in_order = _all_equal(equal_math(item, gold) for item, gold in pairs)
    if ordered or in_order is True:
        return in_order
    return _match_in_any_order(these.items, those.items) if len(pairs) <= _MOST else None


def _all_equal(findings: Iterable[bool | Undecided]) -> bool | Undecided:
    """True if all are, False if one is, else why it is open. What once took too long is not tried again."""
    reason: bool | Undecided = True
    for finding in findings:
        if finding is False or finding is Undecided.TIMEOUT:
            return finding
        reason = reason if finding is True else finding
    return reason


def _match_in_any_order(items: Sequence[str], golds: Sequence[str]) -> bool | Undecided:
    """Is there an item for every gold one, in any order? Equality is transitive, so the first that fits will do."""
    left = list(items)
    reason: bool | Undecided = True
    for gold in golds:
        findings = [equal_math(item, gold) for item in left]
        if True in findings:
            left.pop(findings.index(True))
        elif (reason := next((one for one in findings if one is not False), False)) is False:
            return False
    return reason
