"""Which file of a source holds which split."""

from pathlib import Path
from typing import Any

import pytest

from lema.engine.records import read_split
from lema.recipe import SourceSpec


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
