"""A mistake put into a right path by program: one step is changed, and what follows from its figure follows.

Nothing of the words is understood. A figure is changed only where no other quantity has the same value, so that what
is replaced further on is what was computed; every other equation of the spoilt path holds, all figures stay whole
where they were and above zero, and the last line gives the answer that the path now leads to.
"""

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from lema.recipe.sampler_schema import ErrorType
from lema.text.arithmetic import Equation, equations, evaluate, holds
from lema.text.final_answer import answer_sentence, drop_answer_step
from lema.text.numbers import DIGITS, format_number, numbers

# What a model that makes the mistake is told of its kind.
ERRORS: Mapping[ErrorType, str] = {
    "arithmetic slip": "a computation is set up rightly and its result is wrong",
    "wrong operation": "the right numbers are put together by another operation",
    "wrong operand": "one number is taken for another that the problem or an earlier step gives",
    "missing step": "a step that is needed is left out",
    "unit error": "units are converted wrongly, or not at all",
    "misread question": "a condition of the problem, or what it asks for, is misunderstood",
    "counting error": "something is counted once too often or too seldom",
    "contradicted step": "a value from an earlier step is taken over wrongly",
    "wrong formula": "a rule or formula is used that does not fit",
    "unsupported number": "a number or fact comes in that nothing in the problem gives",
}
_NUMBER = re.compile(rf"(?<![\w.,/]){DIGITS}(?![\d/]|,\d|\.\d|\s?%)")
_SIGN = re.compile(r"(?<=[\w)]) ?([-+*/×x]) ?(?=[$€£(]?\d)")
_OTHER = {"+": "-*", "-": "+", "*": "+/", "/": "*-"}
_SLIPS = (1, -1, 2, -2, 10, -10, 100, -100)
# Wrong notions of how many of one unit make another.
_FACTORS = {60: 100, 100: 10, 12: 10, 24: 12, 7: 5, 1000: 100, 52: 50, 365: 360, 16: 10, 3600: 60, 36: 30}
_LONGEST = 40  # steps; longer paths are no grade-school solutions


@dataclass(frozen=True, slots=True)
class Injected:
    """A spoilt path: its steps, the answer among them, the kind of error, and the incorrect step, counted from 1."""

    steps: tuple[str, ...]
    kind: ErrorType
    incorrect_step: int


@dataclass(frozen=True, slots=True)
class _Change:
    """Step `at` as it becomes, None when it goes. Its wrong equation stands from `start` to `end`; `values` change,
    by what they were, everywhere else from this step on."""

    at: int
    text: str | None
    start: int
    end: int
    values: dict[Fraction, Fraction]


def inject(
    question: str, path: Sequence[str], kinds: Sequence[ErrorType], draw: random.Random, wrong: Callable[[str], bool]
) -> Injected | None:
    """Spoil a right path by the first of `kinds` that can be made in it, in a step drawn at random.

    `wrong` tells whether a text ends in a wrong answer. None when no kind can be made so that all else fits.
    """
    steps = drop_answer_step(path)
    found = [equations(step) for step in steps]
    if not any(found) or len(steps) > _LONGEST or not all(holds(one) for line in found for one in line):
        return None
    last = next(evaluate(line[-1].right) for line in reversed(found) if line)
    for kind in kinds:
        changes = [change for at in range(len(steps)) for change in _CHANGES[kind](question, steps, at)]
        for change in draw.sample(changes, len(changes)):
            spoilt = _spoilt(question, steps, change, last)
            if spoilt and spoilt != tuple(steps) and wrong("\n".join(spoilt)):
                return Injected(spoilt, kind, change.at + 1)
    return None


def _spoilt(question: str, steps: Sequence[str], change: _Change, last: Fraction | None) -> tuple[str, ...] | None:
    """The whole path after a change, with its answer; None when something no longer fits."""
    values = dict(change.values)
    if _ambiguous(question, steps, change):
        return None
    head, tail = list(steps[: change.at]), list(steps[change.at + 1 :])
    made = list(head)
    if change.text is not None:
        before, equation = change.text[: change.start], change.text[change.start : change.end]
        rest = _carried(change.text[change.end :], values)
        if rest is None:
            return None
        made.append(_replaced(before, values) + equation + rest)
    for step in tail:
        carried = _carried(step, values)
        if carried is None:
            return None
        made.append(carried)
    if change.text is None and not tail:
        left = [one for step in made for one in equations(step)]
        answer = evaluate(left[-1].right) if left else None
    else:
        answer = values.get(last) if last is not None else None
    return None if answer is None else (*made, answer_sentence(format_number(answer)))


def _ambiguous(question: str, steps: Sequence[str], change: _Change) -> bool:
    """Whether a value that changes is also that of something else, which must stay as it is."""
    elsewhere = [*numbers(question), *(value for step in steps[: change.at] for value in numbers(step))]
    results = [evaluate(one.right) for step in steps for one in equations(step)]
    return any(value in elsewhere or results.count(value) > 1 for value in change.values)


def _carried(text: str, values: dict[Fraction, Fraction]) -> str | None:
    """A text with changed values in place of what they were, and its equations solved again; more values change with
    them. None when a result is no longer whole, or not above zero."""
    text = _replaced(text, values)
    for _ in range(8):
        broken = next((one for one in equations(text) if not holds(one)), None)
        if broken is None:
            return text
        solved = _solved(text, broken)
        old = evaluate(broken.right)
        if solved is None or old is None:
            return None
        text, value, end = solved
        values[old] = value
        # "She has 48 because 32 + 16 = 48" says it before, too.
        start = broken.start
        text = _replaced(text[:start], values) + text[start:end] + _replaced(text[end:], values)
    return None


def _replaced(text: str, values: Mapping[Fraction, Fraction]) -> str:
    """A text with changed values in place of what they were."""

    def swapped(match: re.Match[str]) -> str:
        value = Fraction(match[0].replace(",", ""))
        return format_number(values[value]) if value in values else match[0]

    return _NUMBER.sub(swapped, text)


def _solved(text: str, equation: Equation) -> tuple[str, Fraction, int] | None:
    """A text with the right side of an equation computed from its left one, the value, and where the equation ends."""
    value, old = evaluate(equation.left), evaluate(equation.right)
    return None if value is None or not _fits(value, old) else _answered(text, equation, value)


def _fits(value: Fraction, old: Fraction | None) -> bool:
    whole = old is None or old.denominator == 1
    return value > 0 and (value.denominator == 1 if whole else (value * 100).denominator == 1)


def _answered(text: str, equation: Equation, value: Fraction) -> tuple[str, Fraction, int] | None:
    """A text in which an equation has another right side, which must be one number."""
    at = equation.start + equation.text.rindex("=") + 1 if "=" in equation.text else None
    found = list(_NUMBER.finditer(text, at, equation.end)) if at is not None else []
    if len(found) != 1:
        return None
    written = format_number(value)
    return text[: found[0].start()] + written + text[found[0].end() :], value, found[0].start() + len(written)


def _slips(question: str, steps: Sequence[str], at: int) -> Iterator[_Change]:
    del question
    for equation in equations(steps[at]):
        old = evaluate(equation.right)
        for by in _SLIPS:
            value = old + by if old is not None else Fraction(0)
            # A slip of half the result or more is no slip.
            if old is None or abs(by) * 2 > old or not _fits(value, old):
                continue
            if answered := _answered(steps[at], equation, value):
                yield _Change(at, answered[0], equation.start, answered[2], {old: value})


def _again(step: str, equation: Equation, start: int, end: int, instead: str, at: int) -> Iterator[_Change]:
    """The change that putting something else between two places of an equation's left side makes."""
    old, before = evaluate(equation.right), len(equations(step[: equation.start]))
    text = step[:start] + instead + step[end:]
    after = equations(text)
    if old is None or before >= len(after) or after[before].left == equation.left:
        return
    solved = _solved(text, after[before])
    if solved and solved[1] != old:
        yield _Change(at, solved[0], after[before].start, solved[2], {old: solved[1]})


def _left(equation: Equation) -> int:
    """Where the left side of an equation ends."""
    return equation.start + equation.text.find("=") if "=" in equation.text else equation.start


def _operations(question: str, steps: Sequence[str], at: int) -> Iterator[_Change]:
    del question
    for equation in equations(steps[at]):
        for sign in _SIGN.finditer(steps[at], equation.start, _left(equation)):
            for other in _OTHER[{"×": "*", "x": "*"}.get(sign[1], sign[1])]:
                yield from _again(steps[at], equation, sign.start(1), sign.end(1), other, at)


def _operands(question: str, steps: Sequence[str], at: int) -> Iterator[_Change]:
    said = dict.fromkeys([*numbers(question), *(value for step in steps[:at] for value in numbers(step))])
    for equation in equations(steps[at]):
        for number in _NUMBER.finditer(steps[at], equation.start, _left(equation)):
            own = Fraction(number[0].replace(",", ""))
            for other in said:
                if other > 0 and other != own:
                    yield from _again(steps[at], equation, number.start(), number.end(), format_number(other), at)


def _units(question: str, steps: Sequence[str], at: int) -> Iterator[_Change]:
    given = [*numbers(question), *(value for step in steps[:at] for value in numbers(step))]
    for equation in equations(steps[at]):
        for number in _NUMBER.finditer(steps[at], equation.start, _left(equation)):
            factor = Fraction(number[0].replace(",", ""))
            if factor.denominator == 1 and int(factor) in _FACTORS and factor not in given:
                instead = str(_FACTORS[int(factor)])
                yield from _again(steps[at], equation, number.start(), number.end(), instead, at)


def _missing(question: str, steps: Sequence[str], at: int) -> Iterator[_Change]:
    """A step that is left out; what needs its result takes a number that it began with."""
    del question
    found = equations(steps[at])
    if not found or len(steps) < 2:
        return
    old = evaluate(found[-1].right)
    if old is None:
        return
    if at == len(steps) - 1:
        yield _Change(at, None, 0, 0, {})
        return
    for value in dict.fromkeys(numbers(found[-1].left)):
        if value > 0 and value != old:
            yield _Change(at, None, 0, 0, {old: value})


_CHANGES: Mapping[ErrorType, Callable[[str, Sequence[str], int], Iterator[_Change]]] = {
    "arithmetic slip": _slips,
    "wrong operation": _operations,
    "wrong operand": _operands,
    "missing step": _missing,
    "unit error": _units,
}
