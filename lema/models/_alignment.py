"""Where a wrong path leaves its gold rationale: the first step that cannot be right, judged by its figures alone.

A figure that a step computes is right when the arithmetic holds and the rationale comes to the same value, whole
or as a part of one of its expressions, or when later steps lead from it to a value of the rationale, so another
order or grouping of the same work is no mistake. Words are not understood: a right figure about the wrong thing
passes, and a right detour that the path never comes back from does not.
"""

import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from lema.arithmetic import Equation, equations, evaluate, holds, number, numbers

Kind = Literal["slip", "computed", "repeated", "unknown", "stated", "extra", "final", "missing"]

_ANSWER = re.compile(r"\banswer\s+is\b|^\W*-?[\d.,/%]+\W*$", re.IGNORECASE)
_WORDS = {
    **dict(zip(("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
                "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
               map(Fraction, range(21)), strict=True)),
    **{"thirty": Fraction(30), "forty": Fraction(40), "fifty": Fraction(50), "sixty": Fraction(60)},
    **{"hundred": Fraction(100), "thousand": Fraction(1000), "dozen": Fraction(12), "couple": Fraction(2)},
    **{"twice": Fraction(2), "double": Fraction(2), "both": Fraction(2), "triple": Fraction(3)},
    **{"half": Fraction(1, 2), "third": Fraction(1, 3), "quarter": Fraction(1, 4)},
}  # fmt: skip
# Numbers of calendars, clocks and measures that a step may bring in without being told.
_COMMON = frozenset(Fraction(value) for value in (0, 1, 2, 7, 10, 12, 24, 30, 52, 60, 100, 365, 1000, 3600))
_RANGE = re.compile(r"\d+\s?[-–:]\s?\d+")
# A fraction that stands for itself: "1/3 of a barrel", not "12/4 = 3".
_SHARE = re.compile(r"(?<![\d./ ])\s(\d+)/(\d+)(?![\d./])(?!\s*[=x*+\-/])")
_FRACTION = re.compile(r"(?<![\d./])(\d+)/(\d+)(?![\d./])")
_TIMES = re.compile(r"(?<=[\d)%])\s+x\s+(?=[\d($])")
_FORMULA = re.compile(r"[^;=]+=[^;=]+")
_DEEPEST = 4


@dataclass(frozen=True, slots=True)
class Fault:
    """The first mistake: the step (from 0), how it shows, the step's own equation, and the value that is wrong."""

    step: int
    kind: Kind
    equation: Equation | None = None
    value: Fraction | None = None


@dataclass(frozen=True, slots=True)
class Rationale:
    """A gold rationale: its steps, their equations, the values it comes to on the way, and all its numbers."""

    steps: tuple[str, ...]
    equations: tuple[tuple[Equation, ...], ...]
    gold: Fraction
    given: frozenset[Fraction]
    results: frozenset[Fraction]
    values: frozenset[Fraction]
    mentioned: frozenset[Fraction]
    below_zero: bool


def rationale(question: str, steps: Sequence[str], gold: Fraction) -> Rationale:
    """Read a rationale; a last step that only gives the answer is left out."""
    if steps and is_answer(steps[-1]):
        steps = steps[:-1]
    found = tuple(tuple(equations(step)) for step in steps)
    sides = [side for line in found for equation in line for side in (equation.left, equation.right)]
    given = frozenset(figures(question))
    reached = [value for value in map(evaluate, sides) if value is not None]
    results = frozenset(map(abs, reached)) | {gold}
    parts = frozenset(value for side in sides for value in _parts(side))
    mentioned = frozenset(value for step in steps for value in figures(step))
    # Numbers that only the rationale brings in ("3 hours are 180 minutes") are as good as computed.
    values = results | parts | (mentioned - given)
    return Rationale(tuple(steps), found, gold, given, results, values, mentioned, min(reached, default=0) < 0)


def is_answer(step: str) -> bool:
    """Does the step give the final answer and compute nothing?"""
    return bool(_ANSWER.search(step)) and not equations(step)


def first_fault(path: Sequence[str], gold: Rationale) -> Fault | None:
    """The first mistake of a path, or None where every step and the answer fit the rationale."""
    body = path[:-1] if path and is_answer(path[-1]) else path
    lines = [equations(step) for step in body]
    seen: set[Fraction] = set()
    computed: dict[Fraction, list[Fraction]] = {}
    for at, step in enumerate(body):
        fault = _fault(at, body, lines, gold, seen, computed)
        if fault is not None:
            return _introduced(fault, body, lines)
        seen |= set(figures(step))
        for equation in lines[at]:
            computed.setdefault(result(equation), sorted(numbers(equation.left)))
    return _ending(path, body, lines, gold)


def _fault(
    at: int,
    body: Sequence[str],
    lines: Sequence[Sequence[Equation]],
    gold: Rationale,
    seen: set[Fraction],
    computed: dict[Fraction, list[Fraction]],
) -> Fault | None:
    step = body[at]
    for equation in lines[at]:
        value, operands = result(equation), sorted(numbers(equation.left))
        if not holds(equation):
            return Fault(at, "slip", equation, value)
        if evaluate(equation.right) == -value != 0 and not gold.below_zero:
            return Fault(at, "computed", equation, -value)
        if not _among(value, gold.values, step):
            if not _leads_back(at, value, body, lines, gold):
                return Fault(at, "computed", equation, value)
        elif value in computed and computed[value] != operands and not _within(operands, gold):
            return Fault(at, "repeated", equation, value)
    solved, unsolved = _formulas(step, gold.values | gold.given | seen)
    if unsolved is not None:
        return Fault(at, "unknown", unsolved)
    own = {abs(value) for equation in lines[at] for value in (*numbers(equation.text), result(equation))}
    known = gold.values | gold.mentioned | gold.given | _COMMON | seen | own | set(_spoken(step)) | solved
    for value in [*map(abs, numbers(_RANGE.sub(" ", step))), *_quotients(_SHARE.findall(step))]:
        if not _among(value, known, step) and 1 - value not in known:
            return Fault(at, "stated", None, value)
    finished = gold.gold in seen and gold.results <= seen | {gold.gold}
    if finished and lines[at] and result(lines[at][-1]) not in seen:
        return Fault(at, "extra", lines[at][-1], result(lines[at][-1]))
    return None


def _ending(
    path: Sequence[str], body: Sequence[str], lines: Sequence[Sequence[Equation]], gold: Rationale
) -> Fault | None:
    """What is wrong when no step is: the path goes on after the answer, miscopies it, or stops before it."""
    last = len(path) - 1
    answer = number(path[-1].rpartition("is")[2]) if len(path) > len(body) else None
    if answer == gold.gold or not path:
        return None
    working = [at for at, line in enumerate(lines) if line]
    reached = [at for at in working if any(result(equation) == gold.gold for equation in lines[at])]
    if reached and reached[-1] == working[-1]:
        return Fault(last, "final", None, answer)
    if reached:
        further = next(at for at in working if at > reached[-1])
        return Fault(further, "extra", lines[further][-1], result(lines[further][-1]))
    # "So Ann earned 124 in all", or a sum of only some of the parts, is a conclusion drawn too early.
    early = len(path) > len(body) > 0 and not (lines[-1] and result(lines[-1][-1]) in gold.results)
    return Fault(last - 1 if early else last, "missing", None, answer)


def _introduced(fault: Fault, body: Sequence[str], lines: Sequence[Sequence[Equation]]) -> Fault:
    """A step that ends in a colon and only announces what comes next is where the mistake begins."""
    before = fault.step - 1
    announced = before >= 0 and body[before].rstrip().endswith(":") and not lines[before] and "=" not in body[before]
    if announced and fault.kind in ("unknown", "computed"):
        return Fault(before, fault.kind, fault.equation, fault.value)
    return fault


def _leads_back(
    at: int, value: Fraction, body: Sequence[str], lines: Sequence[Sequence[Equation]], gold: Rationale, depth: int = 0
) -> bool:
    """Does right arithmetic lead from this value to a value of the rationale that was not there before?"""
    for later in range(at, len(lines)):
        before = {figure for step in body[:later] for figure in figures(step)}
        for equation in lines[later]:
            own = result(equation)
            if own == value or value not in map(abs, numbers(equation.left)) or not holds(equation):
                continue
            if _among(own, gold.values - before, body[later]):
                return True
            if depth < _DEEPEST and later > at and _leads_back(later, own, body, lines, gold, depth + 1):
                return True
    return False


def _formulas(step: str, values: Set[Fraction]) -> tuple[set[Fraction], Equation | None]:
    """The numbers of equations in one unknown that some value of the problem solves, and the first that none does."""
    masked = re.sub(r"[^\W\d_]{2,}", lambda word: ";" * len(word.group()), _TIMES.sub(" * ", step))
    solved: set[Fraction] = set()
    for formula in _FORMULA.finditer(masked):
        sides = [re.sub(r"[$\s]|[.,](?!\d)", "", side) for side in formula.group().split("=")]
        letters = {mark for side in sides for mark in side if mark.isalpha()}
        if len(letters) != 1:
            continue
        letter = letters.pop()
        pairs = [[evaluate(side.replace(letter, f"({value})")) for side in sides] for value in sorted(values)]
        known = [(left, right) for left, right in pairs if left is not None and right is not None]
        if any(abs(left - right) * 1000 <= max(Fraction(1), abs(left)) for left, right in known):
            solved |= {abs(value) for value in numbers(formula.group())}
        elif known:
            return solved, Equation(formula.group().strip(" .,"), sides[0], sides[1], formula.start(), formula.end())
    return solved, None


def _among(value: Fraction, values: Set[Fraction], text: str) -> bool:
    """Is the value there, but for rounding, and for cents and per cent where the text speaks of them?"""
    scales = (1, 100, Fraction(1, 100)) if "%" in text or "cent" in text else (1, 100) if value <= 1 else (1,)
    for scaled in (value * scale for scale in scales):
        if scaled in values:
            return True
        if scaled.denominator != 1 and any(abs(scaled - other) * 200 <= other for other in values):
            return True
    return False


def result(equation: Equation) -> Fraction:
    return abs(evaluate(equation.right) or Fraction(0))


def _within(operands: Sequence[Fraction], gold: Rationale) -> bool:
    """Does one expression of the rationale hold all these operands?"""
    return any(set(operands) <= set(numbers(equation.left)) for line in gold.equations for equation in line)


def figures(text: str) -> list[Fraction]:
    """All numbers in a text, in digits, as fractions and in words."""
    return [*(abs(value) for value in numbers(text)), *_quotients(_FRACTION.findall(text)), *_spoken(text)]


def _quotients(pairs: Sequence[tuple[str, str]]) -> list[Fraction]:
    values = (evaluate(f"{over}/{under}") for over, under in pairs)
    return [value for value in values if value is not None]


def _spoken(text: str) -> Iterator[Fraction]:
    return (_WORDS[word] for word in re.findall(r"[a-z]+", text.lower()) if word in _WORDS)


def _parts(expression: str) -> list[Fraction]:
    """The values of the parts of an expression: of "3 + (30 + 58)" also 88."""
    tokens = re.findall(r"\d[\d.]*%?|\.\d+%?|\*\*|[-+*/^()]", expression)[:24]
    values = []
    for start in range(len(tokens)):
        for end in range(start + 3, len(tokens) + 1):
            before, span, after = tokens[start - 1 : start], tokens[start:end], tokens[end : end + 1]
            loose = "+" in span or "-" in span
            tight = before in (["/"], ["^"], ["**"]) or after in (["^"], ["**"])
            if tight or (loose and (before in (["-"], ["*"]) or after in (["*"], ["/"]))):
                continue
            values.append(evaluate(" ".join(span)))
    return [abs(value) for value in values if value is not None]
