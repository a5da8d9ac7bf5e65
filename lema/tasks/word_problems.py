"""Word problems: endless generated grade-school problems of one to six steps, each with a gold rationale.

A story begins with a quantity and changes it by moves (`lema.tasks.stories`). Train and test are disjoint by
construction: the split is computed from the text alone, with people and things taken out, so not even the same
problem told of someone else is in both.
"""

import hashlib
import operator
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from lema.rows import Split
from lema.tasks import Reading, Task
from lema.tasks.numeric import equal_numbers, extract_number, gold_number
from lema.tasks.stories import BEGINNINGS, BOYS, FOOD, GIRLS, MOVES, TOYS, Beginning, Move
from lema.text.records import text_field

_OPERATORS: Mapping[str, Callable[[int, int], int | Fraction]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": Fraction
}  # fmt: skip
OPERATIONS = tuple(_OPERATORS)
MOST_STEPS = 6  # longer stories would tell the same move twice
_TEST_SHARE = 0.2
_FACTOR_RANGE = (2, 12)  # of new numbers that are multiplied or divided by
_DETAILS = re.compile(rf"\b(?:{'|'.join([*GIRLS, *BOYS, *FOOD, *TOYS])}|he|she|him|his|her)\b", re.IGNORECASE)
_PRONOUNS = {"he": ("he", "she"), "him": ("him", "her"), "his": ("his", "her")}


def generate(
    *, seed: int = 0, steps: Sequence[int] = (1, 2, 3), largest: int = 100, operations: Sequence[str] = OPERATIONS
) -> Iterator[tuple[Split, dict[str, Any]]]:
    """Yield (split, record) for ever; a record holds `question`, `answer`, `rationale` and `steps` (how many).

    `steps` are the numbers of steps to draw from, each from 1 to 6; no number exceeds `largest`. Every number in a
    question, and every result, is an integer of at least 2. Solutions are made of `operations` alone. Equal options
    give equal records, in equal order; a longer run only adds to a shorter one. A question may come twice; both are
    then in the same split.

    Raises ValueError for steps outside 1 to 6, `largest` under 20, unknown operations, and operations without both +
    and - for problems of more than one step.
    """
    wanted = tuple(steps)
    if not wanted or not set(wanted) <= set(range(1, MOST_STEPS + 1)):
        raise ValueError(f"steps are numbers from 1 to {MOST_STEPS}, not {list(wanted)}")
    if largest < 20:
        raise ValueError(f"largest is at least 20, not {largest}")
    if not operations or not set(operations) <= set(OPERATIONS):
        raise ValueError(f"operations are some of {', '.join(OPERATIONS)}, not {list(operations)}")
    # With one of them alone quantities soon run out, or out of bounds.
    if max(wanted) > 1 and not set("+-") <= set(operations):
        raise ValueError(f"operations are + and - and perhaps * and / for more than one step, not {list(operations)}")
    moves = [move for move in MOVES if {step[1] for step in move.steps} <= set(operations)]
    return _draw_records(random.Random(f"word_problems {seed}"), wanted, largest, moves)


def split_of(question: str) -> Split:
    """The split to which a question belongs: a pure function of its text without people and things."""
    digest = hashlib.sha256(_DETAILS.sub("_", question).encode()).digest()
    return "test" if int.from_bytes(digest[:8]) < _TEST_SHARE * 2**64 else "train"


def _draw_records(
    rng: random.Random, steps: tuple[int, ...], largest: int, moves: Sequence[Move]
) -> Iterator[tuple[Split, dict[str, Any]]]:
    while True:
        count = rng.choice(steps)
        while (record := _write_story(rng, *_draw_plot(rng, count, moves), largest)) is None:
            pass
        yield split_of(record["question"]), record | {"steps": count}


def _draw_plot(rng: random.Random, count: int, known: Sequence[Move]) -> tuple[Beginning, list[Move]]:
    """A beginning and moves of `count` steps in all, from those that are known."""
    while True:
        beginning = rng.choice(BEGINNINGS)
        kind, left, moves = beginning.kind, count, list[Move]()
        while left and (fitting := [m for m in known if m.kind == kind and len(m.lines) <= left and m not in moves]):
            moves.append(rng.choice(fitting))
            kind, left = moves[-1].to, left - len(moves[-1].lines)
        if not left:
            return beginning, moves


def _write_story(rng: random.Random, beginning: Beginning, moves: list[Move], largest: int) -> dict[str, Any] | None:
    """The problem with numbers, names and things drawn; None if no numbers were found that fit."""
    value = rng.randint(2, min(largest, beginning.largest))
    people = rng.sample([*GIRLS, *BOYS], max(5, len(moves) + 2))
    things = rng.choice(FOOD if any(move.food for move in moves) else [*FOOD, *TOYS])
    words = {"n": people.pop(), "o": people.pop(), "x": things, "v": str(value)}
    story, lines, question = [_fill_in(beginning.text, words)], list[str](), ""
    for move in moves:
        drawn = _draw_numbers(rng, move, value, largest)
        if drawn is None:
            return None
        numbers, equations, value = drawn
        words |= {name: str(number) for name, number in numbers.items()}
        lines += [_fill_in(line, words | {"eq": eq}) for line, eq in zip(move.lines, equations, strict=True)]
        story.append(_fill_in(move.text, words))
        question = _fill_in(move.question, words)
        words |= {"n": words["o"], "o": people.pop()} if move.swap else {"o": people.pop()}
    return {"question": " ".join([*story, question]), "answer": str(value), "rationale": "\n".join(lines)}


def _draw_numbers(
    rng: random.Random, move: Move, value: int, largest: int
) -> tuple[dict[str, int], list[str], int] | None:
    """The new numbers of a move, its equations and its result; None when no draw fits."""
    names = sorted({name for name in "".join(move.steps) if name in "ab"})
    factors = {name for step in move.steps if step[1] in "*/" for name in step[::2]}
    for _ in range(30):
        numbers = {name: rng.randint(*(_FACTOR_RANGE if name in factors else (2, largest))) for name in names}
        known, equations = {"v": value, **numbers}, list[str]()
        for step in move.steps:
            left, right = known[step[0]], known[step[2]]
            result = Fraction(_OPERATORS[step[1]](left, right))
            if result.denominator > 1 or not 2 <= result <= largest:
                break
            known["s"] = int(result)
            equations.append(f"{left} {step[1]} {right} = {result}")
        else:
            return numbers, equations, known["s"]
    return None


def _fill_in(template: str, words: Mapping[str, str]) -> str:
    pronouns = {name: forms[words["n"] in GIRLS] for name, forms in _PRONOUNS.items()}
    capitals = {name.capitalize(): form.capitalize() for name, form in pronouns.items()}
    return template.format(**words, **pronouns, **capitals)


def read_word_problems(record: Mapping[str, Any]) -> Reading:
    question, gold = text_field(record, "question"), gold_number(text_field(record, "answer"))
    strata = {"steps": str(record["steps"])} if record.get("steps") else {}
    return Reading(question, gold, record.get("rationale") or None, strata)


def write_word_problems(reading: Reading) -> dict[str, Any]:
    return {"question": reading.text, "answer": reading.gold, "rationale": reading.rationale}


word_problems = Task(
    "word_problems", read_word_problems, extract_number, equal_numbers, generate, write=write_word_problems
)
