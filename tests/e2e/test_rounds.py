"""Two rounds in one `dvc repro`: the second draws its questions from the first and samples from its adapters."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from lema.compute import parquet
from lema.rows import Evolved, Grade, Location, Question, Record, Sample
from tests.e2e.project import Project, params

pytestmark = pytest.mark.slow

STUDENT = {
    "task": "word_problems", "options": {"seed": 99, "steps": [1], "largest": 20}, "format": "cot",
    "width": 32, "layers": 1, "heads": 2, "vocabulary": 300, "context": 256, "steps": 4, "batch": 8,
}  # fmt: skip
LAST = "samples@two"
NEW = ["Ada has 3 pens and finds 5. How many has she?", "Bo eats 2 of 9 figs. How many are left?", "Cy sighs. Why?"]
SOLVED = [
    {"when": "Ada", "reply": "3 + 5 = 8 pens.\nThe answer is 8."},
    {"when": "Bo", "reply": "9 - 2 = 7 figs.\nThe answer is 7."},
    {"when": "Cy", "reply": "Nobody knows."},
]


def first() -> dict[str, Any]:
    """Injected mistakes only: corrections whatever the student has learnt in four steps, and no model to load."""
    return {
        "extends": "smoke.yaml",
        "source": {"train": 20, "test": 6},
        "questions": {"train": 12, "test": 4},
        "base": {"pretrain": STUDENT},
        "models": {
            "writer": {"backend": "scripted", "options": {"replies": NEW}},
            "solver": {"backend": "scripted", "options": {"rules": SOLVED}},
        },
        "samples": {"samplers": {"student": None, "slips": {"inject": {}, "paths": 2}}},
        "locations": {"model": "reference", "prompt": "correct_reference", "hint": "rationale"},
        "evolved": {
            "questions": 12,
            "write": {"model": "writer", "prompt": "evolve"},
            "solve": {"model": "solver", "prompt": "cot"},
        },
        "mix": {"arms": {"cot": None, "lema": {"cot": {"rows": 4}, "corrections": {"rows": 4}}}},
        "answers": {"max_tokens": 4},
    }


def second() -> dict[str, Any]:
    return {
        "extends": "one.yaml",
        "source": {"generator": None, "options": None, "train": None, "test": None,
                   "evolved": "one", "originals": True},
        "questions": {"train": None},
        "base": {"pretrain": None, "folder": "data/one/base"},
        "models": {"round-one": {"backend": "transformers", "adapter": "one/lema"}},
        "samples": {"samplers": {"round-one": {"model": "round-one", "prompt": "cot", "max_tokens": 8}}},
        "locations": None,
        "evolved": None,
    }  # fmt: skip


@pytest.fixture(scope="session")
def rounds(once: Callable[..., Project]) -> Project:
    """The first round and what the second takes from it, after one `dvc repro`; only to be read."""
    pytest.importorskip("torch", reason="needs the extra `train`")

    def make(project: Project) -> None:
        runs = {f"{name}-lema": {"recipe": name, "arm": "lema"} for name in ("one", "two")}
        recipes = {"one": "constraints.txt", "two": "data/one"}
        project.write("params.yaml", params() | {"recipes": recipes, "runs": runs})
        project.write("recipes/one.yaml", first())
        project.write("recipes/two.yaml", second())
        project.run("dvc", "repro", LAST)

    return once("rounds", make)


def rows(project: Project, name: str, row_type: type) -> Any:
    return parquet.read_rows(project.root / "data" / f"{name}.parquet", row_type)


def test_a_second_run_runs_nothing(rounds: Project) -> None:
    assert rounds.run("dvc", "repro", LAST).ran == []


def test_new_questions_are_accepted_once_and_the_others_kept_with_a_reason(rounds: Project) -> None:
    made = rows(rounds, "one/evolved", Evolved)
    assert len(made) == 12
    assert sorted(row.text for row in made if row.accepted) == NEW[:2]
    assert {(row.reason or "").partition(" one-")[0].partition(" smoke")[0] for row in made if not row.accepted}
    assert all((row.record is None) == (not row.accepted) == (row.reason is not None) for row in made)


def test_the_second_round_asks_new_and_old_questions_and_tests_on_the_same(rounds: Project) -> None:
    old, new = (rows(rounds, f"{name}/source", Record) for name in ("one", "two"))

    def records(found: Any, split: str) -> set[str]:
        return {row.record for row in found if row.split == split}

    assert records(new, "test") == records(old, "test")
    added = {json.loads(text)["question"] for text in records(new, "train") - records(old, "train")}
    assert added == set(NEW[:2])
    asked = [rows(rounds, f"{name}/questions", Question) for name in ("one", "two")]
    assert {row.gold for row in asked[1] if row.text in NEW} == {"8", "7"}
    tested = [[row for row in found if row.split == "test"] for found in asked]
    assert len(tested[0]) == 4
    assert tested[0] == tested[1]


def test_the_second_round_samples_from_an_adapter_of_the_first(rounds: Project) -> None:
    asked = {row.model for row in rows(rounds, "two/samples", Sample) if row.sampler == "round-one"}
    assert len(asked) == 1
    assert " adapter " in asked.pop()


def test_injected_mistakes_are_located_where_they_were_put(rounds: Project) -> None:
    samples = {row.id: row for row in rows(rounds, "one/samples", Sample)}
    wrong = {row.id for row in rows(rounds, "one/grades", Grade) if row.outcome == "incorrect"}
    slips = {row.id for row in samples.values() if row.sampler == "slips"} & wrong
    where = {row.id: row for row in rows(rounds, "one/locations", Location)}
    assert slips
    assert where.keys() == wrong
    assert all(where[name].incorrect_step == samples[name].incorrect_step for name in slips)


def test_what_the_first_round_makes_is_followed_by_the_second(rounds: Project, tmp_path: Any) -> None:
    project = rounds.copy(tmp_path / "edited")
    project.edit("recipes/one.yaml", '"questions": 12,\n  "write"', '"questions": 1,\n  "write"')
    ran = project.run("dvc", "repro", "questions@two").ran
    assert {"evolved@one", "source@two", "questions@two"} <= set(ran)
    assert not {"samples@one", "corrections@one", "adapter@one-lema"} & set(ran)
