"""Which file of a source holds which split, and records that another recipe has made: the source of a second round."""

import json
from pathlib import Path
from typing import Any

import pytest

from lema.compute import parquet
from lema.recipe.schema import SourceSpec
from lema.rows import Evolved, Record
from lema.stages.source import read_split


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"file": "{split}.jsonl"}, {"train": "train", "test": "test"}),
        ({"file": "{split}.jsonl", "test_from": "validation"}, {"train": "train", "test": "validation"}),
        ({"file": "train.jsonl", "test_from": "train"}, {"train": "train", "test": None}),
    ],
)
def test_splits_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], found: dict[str, str | None]
) -> None:
    monkeypatch.chdir(tmp_path)
    for split in ("train", "validation", "test"):
        Path(f"{split}.jsonl").write_text(f'{{"of": "{split}"}}\n', encoding="utf-8")
    for split, name in found.items():
        assert list(read_split(SourceSpec(**given), split)) == ([{"of": name}] if name else [])


def new(name: str, record: str | None) -> Evolved:
    reason = None if record else "no majority"
    return Evolved(name, "q1", 0, "Q?", ("1",), 1, record is not None, reason, record, "m", "", "", "m", "", (), 0, 0)


@pytest.mark.parametrize(
    ("originals", "split", "expected"),
    [
        (False, "train", [(None, "new")]),
        (True, "train", [("q-train-0", "old"), (None, "new")]),
        (False, "test", [("q-test-0", "test")]),
        (True, "test", [("q-test-0", "test")]),
    ],
)
def test_accepted_questions_are_learnt_from_and_the_test_records_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, originals: bool, split: str, expected: list[tuple[str | None, str]]
) -> None:
    monkeypatch.chdir(tmp_path)
    old = [
        Record(f"q-{split}-0", split, json.dumps({"q": text})) for split, text in (("train", "old"), ("test", "test"))
    ]  # type: ignore[arg-type]
    parquet.write_rows(Path("data/one/source.parquet"), Record, old)
    made = [new("q1/e0", json.dumps({"q": "new"})), new("q1/e1", None)]
    parquet.write_rows(Path("data/one/evolved.parquet"), Evolved, made)
    spec = SourceSpec(evolved="one", originals=originals)
    assert [(row["id"], json.loads(row["record"])["q"]) for row in read_split(spec, split)] == expected
