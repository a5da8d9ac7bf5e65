import json
from collections import defaultdict
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
    return list(questions(records, spec=QuestionsSpec(task="toy", **spec), tasks=defaultdict(task)))


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


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_dev_questions_are_held_out_of_train_and_nested(seed: int) -> None:
    chosen = [ask(train=8, dev=size, test=0, seed=seed) for size in (0, 1, 5, 12)]
    dev = [{row.id for row in rows if row.split == "dev"} for rows in chosen]
    train = [{row.id for row in rows if row.split == "train"} for rows in chosen]
    assert [len(ids) for ids in dev] == [0, 1, 5, 12]
    assert all(small < large for small, large in pairwise(dev))
    assert train[0] == train[1] == train[2] == train[3]
    assert len(train[0]) == 8
    assert not train[0] & dev[3]


def test_without_a_number_train_is_all_that_dev_leaves() -> None:
    splits = [row.split for row in ask(dev=6)]
    assert [splits.count(split) for split in ("train", "dev", "test")] == [14, 6, 20]


def test_all_when_no_number_is_given() -> None:
    assert [row.id for row in ask()] == [row.id for row in RECORDS]


def test_too_few_records() -> None:
    with pytest.raises(RunError, match="questions: 21 test questions wanted, the source has 20"):
        ask(test=21)
    with pytest.raises(RunError, match="questions: 21 train and dev questions wanted, the source has 20"):
        ask(train=18, dev=3)


def test_records_that_the_protocol_leaves_out_are_not_there() -> None:
    odd = replace(task(), counts=lambda record: record["q"].startswith("test") or int(record["q"][6:-1]) % 2 == 1)
    made = list(
        questions(RECORDS, spec=QuestionsSpec(task="toy", train=10), tasks=dict.fromkeys(("train", "test"), odd))
    )
    assert [row.text for row in made if row.split == "train"] == [f"train {number}?" for number in range(1, 20, 2)]
    with pytest.raises(RunError, match="11 train questions wanted, the source has 10"):
        list(questions(RECORDS, spec=QuestionsSpec(task="toy", train=11), tasks=dict.fromkeys(("train", "test"), odd)))


def test_unreadable_records_are_all_counted_and_ten_are_named() -> None:
    bad = [Record(f"bad-{number:02d}", "train", "{}") for number in range(12)]
    with pytest.raises(RunError) as caught:
        ask([*RECORDS, *bad])
    first, *lines = str(caught.value).splitlines()
    assert first == "questions: task toy cannot read 12 records:"
    assert lines == [f"  bad-{number:02d}: needs a text in `q`" for number in range(10)]


def test_an_unreadable_record_that_is_not_asked_is_no_matter() -> None:
    assert len(ask([*RECORDS, Record("bad", "test", "{}")], train=3, test=0)) == 3


def test_a_transfer_set_is_read_by_its_own_task() -> None:
    shouting = replace(task(), name="loud", read=lambda record: replace(task().read(record), gold="LOUD"))
    records = [*RECORDS, *(Record(f"t-{number}", "far", json.dumps({"q": "?", "gold": "1"})) for number in range(5))]
    spec = QuestionsSpec.model_validate(
        {"task": "toy", "train": 2, "test": 2, "transfer": {"far": {"source": {"file": "f.jsonl"}, "test": 3}}}
    )
    made = list(questions(records, spec=spec, tasks={"train": task(), "test": task(), "far": shouting}))
    assert [(row.split, row.gold) for row in made] == [("train", "1")] * 2 + [("test", "1")] * 2 + [("far", "LOUD")] * 3
    with pytest.raises(RunError, match="questions: task loud cannot read 1 records"):
        list(
            questions(
                [*records, Record("t-9", "far", "{}")],
                spec=spec.model_copy(
                    update={"transfer": {"far": spec.transfer["far"].model_copy(update={"test": None})}}
                ),
                tasks={"train": task(), "test": task(), "far": shouting},
            )
        )
