import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from lema.errors import RunError
from lema.recipe import QuestionsSpec
from lema.rows import Question, Record, Stratum
from lema.stages.questions import questions
from tests.stages.rows import task

RECORDS = [
    Record(f"r-{split}-{number:02d}", split, json.dumps({"q": f"{split} {number}?", "gold": "1"}))
    for split in ("train", "test")
    for number in range(20)
]


def ask(records: list[Record] = RECORDS, **spec: Any) -> list[Question]:
    return list(questions(records, spec=QuestionsSpec(task="toy", **spec), task=task()))


def test_a_question_is_what_the_task_reads() -> None:
    record = Record("r-test-0", "test", json.dumps({"q": "How many?", "gold": "3", "why": "1 + 2 = 3"}))
    assert ask([record]) == [Question("r-test-0", "test", "How many?", "3", "1 + 2 = 3")]


def test_strata_are_kept_by_name() -> None:
    raw = {"q": "How many?", "gold": "3", "strata": {"type": "a", "level": "2"}}
    (row,) = ask([Record("r-test-0", "test", json.dumps(raw))])
    assert row.strata == (Stratum("level", "2"), Stratum("type", "a"))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_choices_are_nested(seed: int) -> None:
    sizes = (0, 1, 5, 15, 20)
    chosen = [{row.id for row in ask(train=size, test=size, seed=seed)} for size in sizes]
    assert [len(ids) for ids in chosen] == [2 * size for size in sizes]
    assert all(small < large for small, large in pairwise(chosen))


def test_a_seed_decides_the_choice_and_not_the_order() -> None:
    few = [[row.id for row in ask(train=10, test=0, seed=seed)] for seed in (0, 0, 1)]
    assert few[0] == few[1] != few[2]
    assert few[2] == sorted(few[2])


def test_all_when_no_number_is_given() -> None:
    assert [row.id for row in ask()] == [row.id for row in RECORDS]


def test_too_few_records() -> None:
    with pytest.raises(RunError, match="questions: 21 test questions wanted, the source has 20"):
        ask(test=21)


def test_records_that_the_protocol_leaves_out_are_not_there() -> None:
    odd = replace(task(), counts=lambda record: record["q"].startswith("test") or int(record["q"][6:-1]) % 2 == 1)
    made = list(questions(RECORDS, spec=QuestionsSpec(task="toy", train=10), task=odd))
    assert [row.text for row in made if row.split == "train"] == [f"train {number}?" for number in range(1, 20, 2)]
    with pytest.raises(RunError, match="11 train questions wanted, the source has 10"):
        list(questions(RECORDS, spec=QuestionsSpec(task="toy", train=11), task=odd))


def test_unreadable_records_are_all_counted_and_ten_are_named() -> None:
    bad = [Record(f"bad-{number:02d}", "train", "{}") for number in range(12)]
    with pytest.raises(RunError) as caught:
        ask([*RECORDS, *bad])
    first, *lines = str(caught.value).splitlines()
    assert first == "questions: task toy cannot read 12 records:"
    assert lines == [f"  bad-{number:02d}: needs a text in `q`" for number in range(10)]


def test_an_unreadable_record_that_is_not_asked_is_no_matter() -> None:
    assert len(ask([*RECORDS, Record("bad", "test", "{}")], train=3, test=0)) == 3
