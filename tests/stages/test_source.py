import itertools
import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from lema.errors import RunError
from lema.recipe.schema import QuestionsSpec, SourceSpec
from lema.rows import Record
from lema.stages.questions import questions
from lema.stages.source import source
from tests.stages.rows import by_id, task

TOY = {"toy": task(lambda **options: two_thirds_train(**options))}


def records(read: Any = None, transfer: Any = (), generators: Any = TOY, **spec: Any) -> list[Record]:
    """What the stage makes of a source; `read` gives the records of a source and split, or is a list of them."""
    read_split = read if callable(read) else lambda *_: iter(read)
    return list(source(spec=SourceSpec(**spec), transfer=dict(transfer), generators=generators, read_split=read_split))


def two_thirds_train(*, first: int = 0, distinct: int = 10**6) -> Iterator[tuple[str, dict[str, Any]]]:
    """Numbers, every third of them for the test split; from `distinct` on, they come again."""
    for number in itertools.count(first):
        value = number % distinct
        yield ("test" if value % 3 == 2 else "train"), {"q": str(value)}


def generated(**spec: Any) -> list[tuple[str, str]]:
    return [(row.id, json.loads(row.record)["q"]) for row in by_id(records(generator="toy", **spec))]


def test_a_generator_fills_both_splits() -> None:
    assert generated(train=3, test=2, options={"first": 10}) == [
        ("toy-test-00000", "11"),
        ("toy-test-00001", "14"),
        ("toy-train-00000", "10"),
        ("toy-train-00001", "12"),
        ("toy-train-00002", "13"),
    ]


def test_more_records_begin_with_the_same_records() -> None:
    few, many = generated(train=3, test=2), generated(train=30, test=20)
    assert set(few) < set(many)


def test_a_record_is_not_taken_twice() -> None:
    rows = generated(train=4, test=2, options={"distinct": 6})
    assert sorted(text for _, text in rows) == ["0", "1", "2", "3", "4", "5"]


@pytest.mark.parametrize(("train", "test", "split"), [(5, 2, "train"), (1, 3, "test")])
def test_a_generator_that_has_no_more_ends(train: int, test: int, split: str) -> None:
    wanted, found = (train, 4) if split == "train" else (test, 2)
    with pytest.raises(RunError, match=f"^source: {wanted} {split} records wanted, {found} found"):
        generated(train=train, test=test, options={"distinct": 6})


def test_a_source_that_can_generate_nothing() -> None:
    with pytest.raises(RunError, match="say how many `train` and `test`"):
        generated(train=3)
    with pytest.raises(RunError, match="the task toy has no generator"):
        records(generators={"toy": task()}, generator="toy", train=1, test=1)


FILES = {"train": [{"q": name} for name in "abcde"], "test": [{"q": name} for name in "xyz"]}


def ids(**spec: Any) -> list[str]:
    rows = records(lambda _, split: iter(FILES[split]), **spec)
    assert {row.id.rsplit("-", 2)[1] == row.split for row in rows} == {True}
    return [f"{row.id} {json.loads(row.record)['q']}" for row in rows]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"train": 2, "test": 1}, ["f-train-00000 a", "f-train-00001 b", "f-test-00000 x"]),
        ({"train": 1, "test": 0}, ["f-train-00000 a"]),
        ({"train": 1}, ["f-train-00000 a", "f-test-00000 x", "f-test-00001 y", "f-test-00002 z"]),
        (
            {"train": 2, "test": 1, "test_from": "train"},
            ["f-train-00000 a", "f-train-00001 b", "f-test-00000 e"],
        ),
        (
            {"test": 3, "test_from": "train"},
            ["f-train-00000 a", "f-train-00001 b", "f-test-00000 c", "f-test-00001 d", "f-test-00002 e"],
        ),
    ],
)
def test_records_of_files(spec: dict[str, Any], expected: list[str]) -> None:
    assert ids(file="data/sources/f.jsonl", **spec) == expected


@pytest.mark.parametrize(
    ("origin", "name"),
    [
        ({"hub": "openai/gsm8k"}, "gsm8k"),
        ({"file": "data/sources/mine.csv"}, "mine"),
        ({"file": "data/sources/mine/{split}.csv"}, "mine"),
        ({"file": "data/sources/mine/train.csv"}, "mine"),
        ({"file": "train.csv"}, "file"),
    ],
)
def test_what_ids_begin_with(origin: dict[str, Any], name: str) -> None:
    assert ids(train=1, test=0, **origin) == [f"{name}-train-00000 a"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"train": 9}, "9 train records wanted, 5 found"),
        ({"test": 9}, "9 test records wanted, 3 found"),
        ({"test": 9, "test_from": "train"}, "9 test records wanted, 5 found"),
    ],
)
def test_too_few_records(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError, match=message):
        ids(file="f.jsonl", **spec)


def test_a_record_is_kept_as_canonical_json() -> None:
    (row,) = records([{"b": "é", "a": [1, None]}], file="f.jsonl", test=0)
    assert row.record == '{"a": [1, null], "b": "é"}'


def test_a_transfer_set_is_all_test_and_has_ids_of_its_own() -> None:
    files = {"one.jsonl train": [{"n": 1}, {"n": 2}, {"n": 3}], "two-{split}.jsonl test": [{"n": 4}, {"n": 5}]}
    transfer = {
        "one": SourceSpec(file="one.jsonl"),
        "two": SourceSpec(file="two-{split}.jsonl", test=1),
        "made": SourceSpec(generator="toy", test=2),
    }
    rows = records(
        lambda spec, split: iter(files.get(f"{spec.file} {split}", [{"n": 8}, {"n": 9}])),
        transfer, file="own.jsonl", test=1, test_from="train",
    )  # fmt: skip
    assert [(row.id, row.split, *json.loads(row.record).values()) for row in rows] == [
        ("own-train-00000", "train", 8),
        ("own-test-00000", "test", 9),
        ("one-transfer-00000", "one", 1),
        ("one-transfer-00001", "one", 2),
        ("one-transfer-00002", "one", 3),
        ("two-transfer-00000", "two", 4),
        ("made-transfer-00000", "made", "2"),
        ("made-transfer-00001", "made", "5"),
    ]
    with pytest.raises(RunError, match=r"^source: 3 more records wanted, 1 found"):
        records([{"n": 1}], {"more": SourceSpec(file="f.jsonl", test=3)}, file="f.jsonl")


def test_evolved_questions_are_named_after_the_recipe_that_made_them_and_others_as_they_were() -> None:
    rows = {"train": [("f-train-00007", '{"q": "é"}'), (None, '{"q": 1}')], "test": [("f-test-00003", '{"q": 2}')]}

    def read(_: SourceSpec, split: str) -> list[dict[str, Any]]:
        return [{"id": name, "record": record} for name, record in rows[split]]

    assert records(read, evolved="one", originals=True) == [
        Record("f-train-00007", "train", '{"q": "é"}'),
        Record("one-evolved-train-00001", "train", '{"q": 1}'),
        Record("f-test-00003", "test", '{"q": 2}'),
    ]


def test_two_rounds_choose_the_same_of_their_test_records() -> None:
    raw = [{"q": f"{number}?", "gold": "1"} for number in range(40)]
    first = records(raw, file="f.jsonl")
    own = [{"id": row.id, "record": row.record} for row in first if row.split == "test"]
    new = [{"id": None, "record": json.dumps(raw[0])}]
    second = records(lambda _, split: own if split == "test" else new, evolved="one")
    spec = QuestionsSpec(task="toy", train=1, test=4)
    usual = {"tasks": defaultdict(task), "contamination": False, "read_file": list, "log": print}
    asked = [[row for row in questions(rows, spec=spec, **usual) if row.split == "test"] for rows in (first, second)]
    assert len(asked[0]) == 4
    assert asked[0] == asked[1]


@pytest.mark.parametrize("test_from", ["test", "validation"])
def test_a_transfer_set_needs_no_training_records(test_from: Any) -> None:
    def read_split(spec: SourceSpec, split: str) -> Iterator[dict[str, Any]]:
        assert (spec.file, split) != ("more-{split}.jsonl", "train"), "there is no such file"
        yield {"q": split}

    more = SourceSpec(file="more-{split}.jsonl", test_from=test_from)
    rows = records(read_split, {"more": more}, file="f-{split}.jsonl")
    assert [row.id for row in rows] == ["file-train-00000", "file-test-00000", "more-transfer-00000"]
