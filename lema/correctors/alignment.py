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

from lema.text.arithmetic import Equation, equations, evaluate, holds
from lema.text.final_answer import states_answer
from lema.text.numbers import AMOUNTS, numbers, parse_number

Kind = Literal["slip", "computed", "repeated", "unknown", "stated", "extra", "final", "missing"]

_BARE_NUMBER = re.compile(r"\W*-?[\d.,/%]+\W*")
# Numbers of calendars, clocks and measures that a step may bring in without being told.
_COMMON = frozenset(Fraction(value) for value in (0, 1, 2, 7, 10, 12, 24, 30, 52, 60, 100, 365, 1000, 3600))
_RANGE = re.compile(r"\d+\s?[-–:]\s?\d+")
# A fraction that stands for itself: "1/3 of a barrel", not "12/4 = 3".
_SHARE = re.compile(r"(?<![\d./ ])\s(\d+)/(\d+)(?![\d./])(?!\s*[=x*+\-/])")
_FRACTION = re.compile(r"(?<![\d./])(\d+)/(\d+)(?![\d./])")
_TIMES = re.compile(r"(?<=[\d)%])\s+x\s+(?=[\d($])")
_FORMULA = re.compile(r"[^;=]+=[^;=]+")


@dataclass(frozen=True, slots=True)
class Misstep:
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
    return bool(states_answer(step) or _BARE_NUMBER.fullmatch(step)) and not equations(step)


@dataclass(frozen=True, slots=True)
class _Claim:
    """An equation of a path, looked at once."""

    equation: Equation
    value: Fraction
    operands: tuple[Fraction, ...]
    true: bool


@dataclass(frozen=True, slots=True)
class _Path:
    """The steps of a path without its answer line, what each claims, and the figures that stand before each."""

    steps: Sequence[str]
    claims: Sequence[Sequence[_Claim]]
    before: Sequence[frozenset[Fraction]]


def first_fault(path: Sequence[str], gold: Rationale) -> Misstep | None:
    """The first mistake of a path, or None where every step and the answer fit the rationale."""
    steps = path[:-1] if path and is_answer(path[-1]) else path
    before = [frozenset[Fraction]()]
    for step in steps:
        before.append(before[-1] | set(figures(step)))
    body = _Path(steps, [[_claim(equation) for equation in equations(step)] for step in steps], before)
    faults = (_fault(at, body, gold) for at in range(len(steps)))
    first = next((fault for fault in faults if fault is not None), None)
    return _introduced(first, body) if first is not None else _ending(path, body, gold)


def _claim(equation: Equation) -> _Claim:
    operands = tuple(sorted(abs(value) for value in numbers(equation.left)))
    return _Claim(equation, result(equation), operands, holds(equation))


def _fault(at: int, path: _Path, gold: Rationale) -> Misstep | None:
    step, claims, seen = path.steps[at], path.claims[at], path.before[at]
    earlier = {claim.value: claim.operands for line in reversed(path.claims[:at]) for claim in reversed(line)}
    for claim in claims:
        if not claim.true:
            return Misstep(at, "slip", claim.equation, claim.value)
        if evaluate(claim.equation.right) == -claim.value != 0 and not gold.below_zero:
            return Misstep(at, "computed", claim.equation, -claim.value)
        if not _among(claim.value, gold.values, step):
            if not _leads_back(at, claim.value, path, gold):
                return Misstep(at, "computed", claim.equation, claim.value)
        elif earlier.get(claim.value, claim.operands) != claim.operands and not _within(claim.operands, gold):
            return Misstep(at, "repeated", claim.equation, claim.value)
    solved, unsolved = _formulas(step, gold.values | gold.given | seen)
    if unsolved is not None:
        return Misstep(at, "unknown", unsolved)
    own = {abs(value) for claim in claims for value in (*numbers(claim.equation.text), claim.value)}
    known = gold.values | gold.mentioned | gold.given | _COMMON | seen | own | set(_spoken(step)) | solved
    for value in [*map(abs, numbers(_RANGE.sub(" ", step))), *_quotients(_SHARE.findall(step))]:
        if not _among(value, known, step) and 1 - value not in known:
            return Misstep(at, "stated", None, value)
    finished = gold.gold in seen and gold.results <= seen | {gold.gold}
    if finished and claims and claims[-1].value not in seen:
        return Misstep(at, "extra", claims[-1].equation, claims[-1].value)
    return None


def _ending(whole: Sequence[str], path: _Path, gold: Rationale) -> Misstep | None:
    """What is wrong when no step is: the path goes on after the answer, miscopies it, or stops before it."""
    last, answered = len(whole) - 1, len(whole) > len(path.steps)
    answer = parse_number(whole[-1].rpartition("is")[2]) if answered else None
    if answer == gold.gold or not whole:
        return None
    working = [at for at, claims in enumerate(path.claims) if claims]
    reached = [at for at in working if any(claim.value == gold.gold for claim in path.claims[at])]
    if reached and reached[-1] == working[-1]:
        return Misstep(last, "final", None, answer)
    if reached:
        further = next(at for at in working if at > reached[-1])
        claim = path.claims[further][-1]
        return Misstep(further, "extra", claim.equation, claim.value)
    # "So Ann earned 124 in all", or a sum of only some of the parts, is a conclusion drawn too early.
    fits = bool(path.steps and path.claims[-1]) and path.claims[-1][-1].value in gold.results
    return Misstep(last - 1 if answered and path.steps and not fits else last, "missing", None, answer)


def _introduced(fault: Misstep, path: _Path) -> Misstep:
    """A step that ends in a colon and only announces what comes next is where the mistake begins."""
    at = fault.step - 1
    announced = at >= 0 and path.steps[at].rstrip().endswith(":") and "=" not in path.steps[at]
    if announced and fault.kind in ("unknown", "computed"):
        return Misstep(at, fault.kind, fault.equation, fault.value)
    return fault


def _leads_back(at: int, value: Fraction, path: _Path, gold: Rationale) -> bool:
    """Does right arithmetic lead from this value to a value of the rationale that was not there before?"""
    to_follow, met = [(at, value)], {(at, value)}
    while to_follow:
        start, used = to_follow.pop()
        for later in range(start, len(path.steps)):
            for claim in path.claims[later]:
                if claim.value == used or used not in claim.operands or not claim.true:
                    continue
                if _among(claim.value, gold.values - path.before[later], path.steps[later]):
                    return True
                if later > at and (later, claim.value) not in met:
                    met.add((later, claim.value))
                    to_follow.append((later, claim.value))
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
    return (AMOUNTS[word] for word in re.findall(r"[a-z]+", text.lower()) if word in AMOUNTS)


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
