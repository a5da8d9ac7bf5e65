import json
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from lema.errors import RunError
from lema.recipe.schema import ContaminationSpec, QuestionsSpec
from lema.rows import Question, Record, Stratum
from lema.stages.questions import questions
from tests.stages.rows import task

RECORDS = [
    Record(f"r-{split}-{number:02d}", split, json.dumps({"q": f"{split} {number}?", "gold": "1"}))
    for split in ("train", "test")
    for number in range(20)
]


def ask(records: list[Record] = RECORDS, given: dict[str, Any] | None = None, **spec: Any) -> list[Question]:
    usual = {
        "contamination": ContaminationSpec(), "read_file": None, "log": lambda _: None, "tasks": defaultdict(task),
    }  # fmt: skip
    made = QuestionsSpec.model_validate({"task": "toy", **spec})
    return list(questions(records, spec=made, **{**usual, **(given or {})}))  # type: ignore[arg-type]


def test_a_question_is_what_the_task_reads() -> None:
    raw = {"q": "How many?", "gold": "3", "why": "1 + 2 = 3", "strata": {"type": "a", "level": "2"}}
    strata = (Stratum("level", "2"), Stratum("type", "a"))
    made = ask([Record("r-test-0", "test", json.dumps(raw))])
    assert made == [Question("r-test-0", "test", "How many?", "3", "1 + 2 = 3", strata)]


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


def test_all_when_no_number_is_given() -> None:
    assert [row.id for row in ask()] == [row.id for row in RECORDS]
    splits = [row.split for row in ask(dev=6)]
    assert [splits.count(split) for split in ("train", "dev", "test")] == [14, 6, 20]


def test_too_few_records() -> None:
    with pytest.raises(RunError, match="questions: 21 test questions wanted, the source has 20"):
        ask(test=21)
    with pytest.raises(RunError, match="questions: 21 train and dev questions wanted, the source has 20"):
        ask(train=18, dev=3)


def test_records_that_the_protocol_leaves_out_are_not_there() -> None:
    odd = replace(task(), counts=lambda record: record["q"].startswith("test") or int(record["q"][6:-1]) % 2 == 1)
    given = {"tasks": dict.fromkeys(("train", "test"), odd)}
    made = [row.text for row in ask(given=given, train=10) if row.split == "train"]
    assert made == [f"train {number}?" for number in range(1, 20, 2)]
    with pytest.raises(RunError, match="11 train questions wanted, the source has 10"):
        ask(given=given, train=11)


def test_unreadable_records_are_all_counted_and_ten_are_named() -> None:
    bad = [Record(f"bad-{number:02d}", "train", "{}") for number in range(12)]
    with pytest.raises(RunError) as caught:
        ask([*RECORDS, *bad])
    first, *lines = str(caught.value).splitlines()
    assert first == "questions: task toy cannot read 12 records:"
    assert lines == [f"  bad-{number:02d}: needs a text in `q`" for number in range(10)]


def test_a_record_that_makes_read_raise_anything_else_is_named() -> None:
    broken = replace(task(), read=lambda record: record["text"])
    tasks = dict.fromkeys(("train", "test"), broken)
    with pytest.raises(
        RunError, match=rf"task toy raised KeyError: 'text' for the record {RECORDS[0].id}; .*ValueError"
    ):
        list(questions(RECORDS, spec=QuestionsSpec(task="toy"), tasks=tasks, contamination=False, log=print))


def test_an_unreadable_record_that_is_not_asked_is_no_matter() -> None:
    assert len(ask([*RECORDS, Record("bad", "test", "{}")], train=3, test=0)) == 3


def test_a_transfer_set_is_read_by_its_own_task() -> None:
    shouting = replace(task(), name="loud", read=lambda record: replace(task().read(record), gold="LOUD"))
    records = [*RECORDS, *(Record(f"t-{number}", "far", json.dumps({"q": "?", "gold": "1"})) for number in range(5))]
    given = {"tasks": {"train": task(), "test": task(), "far": shouting}}
    far = {"source": {"file": "f.jsonl"}, "test": 3}
    made = ask(records, given, train=2, test=2, transfer={"far": far})
    assert [(row.split, row.gold) for row in made] == [("train", "1")] * 2 + [("test", "1")] * 2 + [("far", "LOUD")] * 3
    with pytest.raises(RunError, match="questions: task loud cannot read 1 records"):
        ask([*records, Record("t-9", "far", "{}")], given, transfer={"far": {**far, "test": None}})


PENS = "Zoe has seven pens and buys five more at the shop, then loses three of them on the way home. How many?"
HENS = "Ravi's hens lay 11 eggs a day, and he packs the eggs of two days into boxes of 2. How many boxes are there?"


def planted(*train: dict[str, str], test: str = PENS, split: str = "test") -> list[Record]:
    """The records, before them some that hold test questions, and a test question."""
    rows = [Record(f"p-{at}", "train", json.dumps({"gold": "1", **raw})) for at, raw in enumerate(train)]
    return [*rows, *RECORDS, Record("t", split, json.dumps({"q": test, "gold": "1"}))]


def learnt(rows: list[Question]) -> list[str]:
    return [row.id for row in rows if row.split == "train"]


def test_a_training_record_that_holds_a_test_question_is_passed_over() -> None:
    said: list[str] = []
    records = planted(
        {"q": f"Read well. {PENS}"}, {"q": "test 7?"}, {"q": "Why?", "why": PENS}, {"q": HENS}, {"q": "train 3 and 4?"}
    )
    assert learnt(ask(records, {"log": said.append})) == ["p-3", "p-4", *(row.id for row in RECORDS[:20])]
    assert len(said) == 1
    assert said[0].startswith("3 training records passed over because of test questions, such as p-")
    assert len(learnt(ask(records, {"log": said.append, "contamination": False}))) == 25
    assert len(said) == 1


@pytest.mark.parametrize("seed", range(5))
def test_the_next_record_moves_up_and_choices_stay_nested(seed: int) -> None:
    copies = [{"q": f"{PENS} ({at})"} for at in range(10)]
    clean = [set(learnt(ask(planted(*copies), train=size, test=0, seed=seed))) for size in (1, 5, 15, 20)]
    assert [len(ids) for ids in clean] == [1, 5, 15, 20]
    assert all(small < large for small, large in pairwise(clean))
    before = learnt(ask(train=15, test=0, seed=seed))
    assert clean[2] == set(before)


def test_too_few_records_without_test_questions() -> None:
    copies = planted({"q": f"{PENS} Say."}, {"q": f"{PENS} Tell."})
    with pytest.raises(
        RunError,
        match=r"questions: 21 train questions wanted, 20 are left: 2 training records passed over because of test "
        r"questions, such as p-[01], which holds the test question t",
    ):
        ask(copies, train=21)
    with pytest.raises(RunError, match="questions: 1 train questions wanted, 0 are left: 20 training records"):
        ask([replace(row, id=f"{row.id}-{split}", split=split) for row in RECORDS[:20] for split in ("train", "test")])
    assert learnt(ask(RECORDS[20:], test=3)) == []


def test_dev_and_transfer_questions_and_those_of_files_are_not_learnt_from() -> None:
    spec = {"transfer": {"far": {"source": {"file": "f.jsonl"}}}}
    assert "p-0" not in learnt(ask(planted({"q": PENS}, split="far"), **spec))
    files = {"more.jsonl": [{"text": PENS}]}
    checked = {"contamination": ContaminationSpec(files=("more.jsonl",), field="text"), "read_file": files.__getitem__}
    assert "p-0" in learnt(ask(planted({"q": PENS}, test=HENS)))
    assert "p-0" not in learnt(ask(planted({"q": PENS}, test=HENS), checked))


def test_a_twin_of_a_dev_question_is_not_learnt_from() -> None:
    twins = {f"w-{at}" for at in range(2)}
    records = [*RECORDS, *(Record(name, "train", json.dumps({"q": PENS, "gold": "1"})) for name in twins)]
    made = [ask(records, dev=10, test=0, seed=seed) for seed in range(10)]
    held_out = [{row.id for row in rows if row.split == "dev"} & twins for rows in made]
    assert {len(names) for names in held_out} == {0, 1, 2}
    for rows, names in zip(made, held_out, strict=True):
        assert set(learnt(rows)) & twins == (set() if names else twins)


def test_a_dev_question_may_hold_a_test_question() -> None:
    rows = ask(planted({"q": PENS}), train=0, dev=21)
    assert "p-0" in {row.id for row in rows if row.split == "dev"}


def test_a_text_without_words_is_nobodys_test_question() -> None:
    assert learnt(ask([Record("a", "train", json.dumps({"q": "!", "gold": "1"})), *planted(test="?")]))[0] == "a"
