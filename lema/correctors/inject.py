"""A mistake put into a right path by program: one step is changed, and what follows from its figure follows.

Nothing of the words is understood. A figure is changed only where no other quantity has the same value, so that what
is replaced further on is what was computed; every other equation of the spoilt path holds, all figures stay whole
where they were and above zero, and the last line gives the answer that the path now leads to.
"""

import operator
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate

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
_OTHER = {"+": "-*", "-": "+", "*": "+/", "×": "+/", "x": "+/", "/": "*-"}
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
    """A step as it becomes, None when it goes. Its wrong equation stands from `start` to `end`; `values` change, by
    what they were, everywhere else from this step on."""

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
    found = [one for step in steps for one in equations(step)]
    if not found or len(steps) > _LONGEST or not all(map(holds, found)):
        return None
    results = [evaluate(one.right) for one in found]
    said = list(accumulate(map(numbers, steps), operator.add, initial=numbers(question)))  # before each step
    for kind in kinds:
        changes = [(at, one) for at in range(len(steps)) for one in _CHANGES[kind](steps, at, said[at])]
        for at, change in draw.sample(changes, len(changes)):
            # A value that is also that of something else must stay as it is there.
            if any(value in said[at] or results.count(value) > 1 for value in change.values):
                continue
            spoilt = _spoilt(steps, at, change, results[-1])
            if spoilt and spoilt != tuple(steps) and wrong("\n".join(spoilt)):
                return Injected(spoilt, kind, at + 1)
    return None


def _spoilt(steps: Sequence[str], at: int, change: _Change, last: Fraction | None) -> tuple[str, ...] | None:
    """The whole path after a change, with its answer; None when something no longer fits."""
    values, made = dict(change.values), list(steps[:at])
    if change.text is not None:
        rest = _carried(change.text[change.end :], values)
        if rest is None:
            return None
        made.append(_replaced(change.text[: change.start], values) + change.text[change.start : change.end] + rest)
    for step in steps[at + 1 :]:
        carried = _carried(step, values)
        if carried is None:
            return None
        made.append(carried)
    answer = values.get(last) if last is not None else None
    if change.text is None and at == len(steps) - 1:
        answer = next((evaluate(found[-1].right) for step in reversed(made) if (found := equations(step))), None)
    return None if answer is None else (*made, answer_sentence(format_number(answer)))


def _carried(text: str, values: dict[Fraction, Fraction]) -> str | None:
    """A text with changed values in place of what they were, and its equations solved again; more values change with
    them. None when a result is no longer whole, or not above zero."""
    text = _replaced(text, values)
    for _ in range(8):
        broken = next((one for one in equations(text) if not holds(one)), None)
        if broken is None:
            return text
        solved, old = _solved(text, broken), evaluate(broken.right)
        if solved is None or old is None:
            return None
        text, values[old], end = solved
        # "She has 48 because 32 + 16 = 48" says it before, too.
        text = _replaced(text[: broken.start], values) + text[broken.start : end] + _replaced(text[end:], values)
    return None


def _replaced(text: str, values: Mapping[Fraction, Fraction]) -> str:
    """A text with changed values in place of what they were."""

    def swapped(match: re.Match[str]) -> str:
        value = _to_number(match[0])
        return format_number(values[value]) if value in values else match[0]

    return _NUMBER.sub(swapped, text)


def _to_number(text: str) -> Fraction:
    return Fraction(text.replace(",", ""))


def _solved(text: str, equation: Equation, value: Fraction | None = None) -> tuple[str, Fraction, int] | None:
    """A text with another right side of an equation, the value of its left side unless one is given; that value, and
    where the equation ends. None where the right side is not one number, or the value is no figure like it."""
    value, old = evaluate(equation.left) if value is None else value, evaluate(equation.right)
    if value is None or "=" not in equation.text:
        return None
    places = 1 if old is None or old.denominator == 1 else 100
    found = list(_NUMBER.finditer(text, equation.start + equation.text.rindex("=") + 1, equation.end))
    if value <= 0 or (value * places).denominator != 1 or len(found) != 1:
        return None
    before = text[: found[0].start()] + format_number(value)
    return before + text[found[0].end() :], value, len(before)


def _slips(steps: Sequence[str], at: int, _said: Sequence[Fraction]) -> Iterator[_Change]:
    for equation in equations(steps[at]):
        old = evaluate(equation.right)
        for by in _SLIPS:
            # A slip of half the result or more is no slip.
            if old is not None and abs(by) * 2 <= old and (solved := _solved(steps[at], equation, old + by)):
                yield _Change(solved[0], equation.start, solved[2], {old: solved[1]})


def _swaps(step: str, pattern: re.Pattern[str], others: Callable[[str], Iterable[str]]) -> Iterator[_Change]:
    """What putting something else in place of a sign or a number on an equation's left side makes."""
    for equation in equations(step):
        old, end = evaluate(equation.right), equation.start + max(0, equation.text.find("="))
        place = len(equations(step[: equation.start]))
        for match in pattern.finditer(step, equation.start, end):
            for other in others(match[pattern.groups]):
                text = step[: match.start(pattern.groups)] + other + step[match.end(pattern.groups) :]
                after = equations(text)[place:]
                if old is None or not after or after[0].left == equation.left:
                    continue
                if (solved := _solved(text, after[0])) and solved[1] != old:
                    yield _Change(solved[0], after[0].start, solved[2], {old: solved[1]})


def _operations(steps: Sequence[str], at: int, _said: Sequence[Fraction]) -> Iterator[_Change]:
    return _swaps(steps[at], _SIGN, lambda sign: _OTHER[sign])


def _operands(steps: Sequence[str], at: int, said: Sequence[Fraction]) -> Iterator[_Change]:
    positive = dict.fromkeys(value for value in said if value > 0)
    return _swaps(
        steps[at], _NUMBER, lambda own: (format_number(other) for other in positive if other != _to_number(own))
    )


def _units(steps: Sequence[str], at: int, said: Sequence[Fraction]) -> Iterator[_Change]:
    wrong = {Fraction(factor): str(other) for factor, other in _FACTORS.items() if factor not in said}
    return _swaps(steps[at], _NUMBER, lambda own: [wrong[_to_number(own)]] if _to_number(own) in wrong else [])


def _missing(steps: Sequence[str], at: int, _said: Sequence[Fraction]) -> Iterator[_Change]:
    """A step that is left out; what needs its result takes a number that it began with."""
    found = equations(steps[at])
    old = evaluate(found[-1].right) if found else None
    if old is None or len(steps) < 2:
        return
    if at == len(steps) - 1:
        yield _Change(None, 0, 0, {})
        return
    for value in dict.fromkeys(numbers(found[-1].left)):
        if value > 0 and value != old:
            yield _Change(None, 0, 0, {old: value})


_CHANGES: Mapping[ErrorType, Callable[[Sequence[str], int, Sequence[Fraction]], Iterator[_Change]]] = {
    "arithmetic slip": _slips,
    "wrong operation": _operations,
    "wrong operand": _operands,
    "missing step": _missing,
    "unit error": _units,
}
