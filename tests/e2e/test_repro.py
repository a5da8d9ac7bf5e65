"""What `dvc repro` runs after an edit: what the edit concerns, and nothing else; and what it buys: what is new."""

from typing import Any

import pytest

from tests.e2e.project import CANARY, MIX, SECRET, Project

pytestmark = pytest.mark.slow

CORRECT = "recipes/prompts/correct_reference.yaml"
BOUGHT_FROM = ["verdicts@tiny", *MIX]


def test_a_second_run_runs_nothing(project: Project) -> None:
    assert sorted(path.name for path in (project.root / "data" / "tiny" / "mix").iterdir()) == [
        "cot.parquet",
        "lema.parquet",
    ]
    assert project.repro().ran == []


def test_comments_and_docstrings_run_only_the_plan(project: Project) -> None:
    project.edit("recipes/tiny.yaml", '"epochs": 1', '"epochs": 1 # once is enough')
    project.edit("lema/stages/grades.py", '"""`grades`:', '"""The grades:')
    assert project.repro().ran == ["plan@tiny"]


def test_code_of_a_stage_runs_that_stage_and_its_equal_bytes_stop_there(project: Project) -> None:
    project.edit(
        "lema/stages/grades.py",
        "    outcome, answer = grade_text(",
        "    assert sample\n    outcome, answer = grade_text(",
    )
    assert project.repro().ran == ["plan@tiny", "grades@tiny"]


def test_a_correction_prompt_runs_corrections_and_what_follows_and_going_back_runs_nothing(project: Project) -> None:
    before = {name: project.read(name) for name in ("samples.parquet", "corrections.parquet", "mix/lema.parquet")}
    text = (project.root / CORRECT).read_text(encoding="utf-8")
    (project.root / CORRECT).write_text(f"{text}system: Be brief.\n", encoding="utf-8")
    edited = project.repro()
    assert sorted(edited.ran) == sorted(["plan@tiny", "corrections@tiny", *BOUGHT_FROM])
    assert list(edited.bought) == ["corrections"]
    assert project.read("corrections.parquet") != before["corrections.parquet"]
    (project.root / CORRECT).write_text(text, encoding="utf-8")
    back = project.repro()
    assert (back.ran, back.bought) == ([], {})
    assert {name: project.read(name) for name in before} == before


def test_going_back_without_the_run_cache_buys_nothing(project: Project) -> None:
    text = (project.root / CORRECT).read_text(encoding="utf-8")
    for system in ("system: Be brief.\n", ""):
        (project.root / CORRECT).write_text(f"{text}{system}", encoding="utf-8")
        project.make("plan")
        made = project.make("corrections")
    ((total, hits, new),) = made.bought.values()
    assert total == hits > 0 == new


def test_only_new_requests_are_bought(project: Project) -> None:
    def sampler(recipe: dict[str, Any]) -> None:
        recipe["samples"]["samplers"]["late"] = {"model": "hasty", "prompt": "cot", "seed": 9}

    def questions(recipe: dict[str, Any]) -> None:
        recipe["questions"]["train"] += 10

    def paths(recipe: dict[str, Any]) -> None:
        recipe["samples"]["samplers"]["hasty"]["paths"] = 3

    # 20 questions of 1 + 2 paths were asked; then of 1 + 2 + 1; then 30 of them; then of 1 + 3 + 1.
    for change, expected in ((sampler, (80, 60, 20)), (questions, (120, 80, 40)), (paths, (150, 120, 30))):
        project.change("recipes/tiny.yaml", change)
        assert project.repro("samples@tiny").bought == {"samples": expected}, change.__name__


def test_a_stale_plan_is_refused(project: Project) -> None:
    project.edit("recipes/tiny.yaml", '"paths": 2', '"paths": 3')
    before = project.read("samples.parquet")
    refused = project.make("samples", code=1)
    assert "the recipe or the code of samples has changed since the plan was made: lema make plan tiny" in refused.text
    assert "Traceback" not in refused.text
    assert project.read("samples.parquet") == before
    project.make("grades")  # its own part of the plan is as it was


@pytest.mark.parametrize("secret", [CANARY, SECRET, "root"])
def test_what_is_versioned_holds_no_prompt_no_key_and_no_absolute_path(template: Project, secret: str) -> None:
    texts = template.versioned()
    assert {"plan.yaml", "dvc.lock", "samples.parquet", "base.json"} <= {path.name for path in texts}
    assert any("No idea." in text for text in texts.values())  # rows are read, not compressed bytes
    wanted = str(template.root.resolve()) if secret == "root" else secret
    assert [path.name for path, text in texts.items() if wanted in text] == []
