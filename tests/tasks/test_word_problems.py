import re
import subprocess
import sys
from collections import Counter
from itertools import islice
from string import Formatter
from typing import Any

import pytest

from lema.tasks.stories import BEGINNINGS, BOYS, FOOD, GIRLS, MOVES, TOYS
from lema.tasks.word_problems import generate, split_of, word_problems

MANY = list(islice(generate(seed=3), 3000))
STEP = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")


def holds(left: str, operator: str, right: str, result: str) -> bool:
    a, b = int(left), int(right)
    return {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[operator] == int(result)


@pytest.mark.parametrize("record", [record for _, record in MANY[:200]], ids=lambda record: record["question"][:40])
def test_a_problem_can_be_read_and_its_rationale_leads_to_the_answer(record: dict[str, Any]) -> None:
    reading = word_problems.read(record)
    steps = [STEP.findall(line) for line in reading.rationale.splitlines()]
    assert reading.strata == {"steps": str(len(steps))} == {"steps": str(record["steps"])}
    assert all(len(found) == 1 and holds(*found[0]) for found in steps)
    assert steps[-1][0][3] == reading.gold
    assert word_problems.extract(f"{reading.rationale}\nThe answer is {reading.gold}.") == reading.gold


def test_the_numbers_of_a_rationale_come_from_the_question_or_from_earlier_steps() -> None:
    for _, record in MANY:
        known = set(re.findall(r"\d+", record["question"]))
        for left, _, right, result in STEP.findall(record["rationale"]):
            assert {left, right} <= known, record
            known.add(result)


def test_train_and_test_share_no_question_even_with_people_and_things_changed() -> None:
    def bare(text: str) -> str:
        text = re.sub(r"\b([Ss]?[Hh]e|[Hh]is|[Hh]er|him)\b", "_", text)
        return re.sub("|".join([*GIRLS, *BOYS, *FOOD, *TOYS]), "_", text)

    for seed in (1, 2):
        rows = [*MANY, *islice(generate(seed=seed, steps=[1], largest=20), 2000)]
        texts = {side: {bare(record["question"]) for of, record in rows if of == side} for side in ("train", "test")}
        assert not texts["train"] & texts["test"]
        assert all(split_of(record["question"]) == side for side, record in rows)
    assert 0.15 < Counter(side for side, _ in MANY)["test"] / len(MANY) < 0.25


def test_equal_seeds_give_equal_problems_in_any_process_and_a_longer_run_only_adds() -> None:
    code = "import itertools, lema.tasks.word_problems as w; print(list(itertools.islice(w.generate(seed=3), 50)))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert other.strip() == str(MANY[:50])
    assert list(islice(generate(seed=4), 50)) != MANY[:50]


def test_options_are_kept() -> None:
    rows = [record for _, record in islice(generate(steps=(2,), largest=30), 300)]
    assert {record["steps"] for record in rows} == {2}
    assert max(int(n) for record in rows for n in re.findall(r"\d+", record["question"] + record["rationale"])) <= 30


@pytest.mark.parametrize("operations", ["+-", "+-*", "+-/", "+-*/", "+", "-", "*", "/", "*/"])
def test_only_the_operations_that_are_wanted_are_needed(operations: str) -> None:
    steps = (1, 2, 3) if {"+", "-"} <= set(operations) else (1,)
    rows = [record for _, record in islice(generate(steps=steps, largest=30, operations=list(operations)), 400)]
    assert {sign for record in rows for _, sign, _, _ in STEP.findall(record["rationale"])} == set(operations)


def test_all_operations_are_what_there_is_without_the_option() -> None:
    assert list(islice(generate(seed=3, operations=["/", "*", "+", "-"]), 50)) == MANY[:50]


@pytest.mark.parametrize(
    "options",
    [
        *({"steps": ()}, {"steps": (7,)}, {"steps": (0, 1)}, {"largest": 19}),
        *({"operations": ["+", "*"]}, {"operations": ["+", "-", "^"]}, {"steps": [1], "operations": []}),
    ],
)
def test_options_that_cannot_be_kept_are_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match=r"steps are numbers from 1 to 6|largest is at least 20|operations are (\+ and -|some of)"
    ):
        generate(**options)


def test_long_problems_with_large_numbers() -> None:
    rows = [record for _, record in islice(generate(steps=(4, 5, 6), largest=1000), 300)]
    assert {record["steps"] for record in rows} == {4, 5, 6}
    for record in rows:
        lines = record["rationale"].split("\n")
        assert len(lines) == record["steps"]
        for line in lines:
            assert STEP.findall(line), line
            assert all(holds(*found) for found in STEP.findall(line))
        assert STEP.findall(lines[-1])[-1][-1] == record["answer"]


def test_every_beginning_and_every_move_is_told() -> None:
    assert len(BEGINNINGS) >= 25
    assert len({move.text for move in MOVES}) >= 60
    stories = " ".join(record["question"] for _, record in islice(generate(), 6000))
    blank = {"n", "o", "x", "v", "a", "b", "he", "him", "his", "He", "His"}
    for told in (*BEGINNINGS, *MOVES):
        parts = [(re.escape(text), name) for text, name, _, _ in Formatter().parse(told.text)]
        assert {name for _, name in parts if name} <= blank
        assert re.search("".join(text + (r"[\w]+" if name else "") for text, name in parts), stories), told.text


def test_texts_read_as_english() -> None:
    for _, record in MANY:
        text = record["question"] + "\n" + record["rationale"]
        assert not re.search(r"[{}]|  |\b[01] [a-z]", text), text
        assert re.fullmatch(r"([A-Z0-9][^.?]*\.\s)+([A-Z][^.?]*)\?", record["question"]), record["question"]
