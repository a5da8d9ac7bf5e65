"""A recipe that params.yaml does not name: what is built of it, and why."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from lema.compute.artifacts import ARTIFACTS, artifact_path
from lema.errors import LemaError, RunError
from lema.pipeline.build import build, needed
from lema.pipeline.run import make
from tests.small_project import Project, enter_project, small_project

DATASET = ["source", "questions", "base", "samples", "grades", "locations", "corrections", "verdicts"]
SCRIPTED = "{backend: scripted, options: {replies: ['It is 2.']}}"
STUDENT = {"config.json": "{}", "model.safetensors": "no weights"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A recipe whose models are all scripted, and whose student is never asked."""
    project = small_project(tmp_path)
    for old, new in (
        ("{embedded: smollm2-135m-instruct}", "{folder: student, chat: false}"),
        ("{model: base,", "{model: strong,"),
        ("train: 40", "train: 12, options: {seed: 1}"),
        ("{backend: openai, endpoint: local, name: strong-1}", SCRIPTED),
        ("train: 30", "train: 8"),
    ):
        project.edit("recipes/good.yaml", old, new)
    for name, text in STUDENT.items():
        project.write(f"student/{name}", text)
    project.write("params.yaml", "recipes: {}\nruns: {}\nrun: {executor: local}\n")
    enter_project(tmp_path, monkeypatch)
    return project


def built(until: str = "verdicts", arm: str | None = None) -> list[str]:
    """What `build` makes, in this process; the plan is made anew each time."""
    made: list[str] = []

    def run(arguments: Sequence[str]) -> int:
        artifact, target = arguments
        recipe, _, of = target.partition("/")
        make(artifact, recipe, of or None)
        made.append(artifact + ("/" + of if of else ""))
        return 0

    assert build("good", run, until, arm) == 0
    assert made[0] == "plan"
    return made[1:]


def test_all_that_is_missing_is_made_once_and_what_has_equal_bytes_stops_there(project: Project) -> None:
    assert built() == DATASET
    assert built() == []
    project.edit("recipes/good.yaml", "limit: 50", "limit: 51")
    assert built() == ["verdicts"]
    project.edit("recipes/good.yaml", "task: word_problems, train: 8", "task: word_problems, dev: 0, train: 8")
    assert built() == []
    project.edit("recipes/good.yaml", "seed: 1", "seed: 2")
    assert built("questions") == ["source", "questions"]
    assert built("grades") == ["samples", "grades"]


def test_one_arm_needs_no_other(project: Project) -> None:
    assert built("mix", "cot") == [*DATASET, "mix/cot"]
    assert built("mix", "lema") == ["mix/lema"]
    assert built("mix") == []


def test_what_is_lost_edited_or_was_made_by_hand_is_known(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    make("plan", "good")
    make("source", "good")
    assert built("questions") == ["questions"]  # the source was made with this plan
    artifact_path("questions", "good").unlink()
    assert built("questions") == ["questions"]
    shutil.copy(artifact_path("questions", "good"), artifact_path("source", "good"))
    with pytest.raises(RunError, match="does not hold rows of Record"):
        built("grades")
    assert "questions good: source has changed since" in capsys.readouterr().err
    artifact_path("source", "good").unlink()
    assert built("questions") == ["source"]
    project.write("student/config.json", "{} ")
    assert "base" in built("base")


def test_a_plan_made_by_hand_hides_no_edit(project: Project) -> None:
    built("grades")
    project.edit("recipes/good.yaml", "paths: 2", "paths: 3")
    make("plan", "good")
    assert built("grades") == ["samples", "grades"]


def test_a_stage_that_fails_ends_the_build_and_comes_again(project: Project) -> None:
    asked: list[str] = []

    def fail(arguments: Sequence[str]) -> int:
        asked.append(arguments[0])
        if arguments[0] == "questions":
            return 3
        make(arguments[0], "good")
        return 0

    assert build("good", fail, "grades") == 3
    assert asked == ["plan", "source", "questions"]
    assert built("questions") == ["questions"]


def test_everything_is_in_the_order_of_the_flow() -> None:
    assert needed(None) == [one for one in ARTIFACTS if one != "plan"]
    assert needed("verdicts") == DATASET
    assert "evolved" not in needed("scores")


def test_an_unknown_artifact_or_recipe_is_a_message(project: Project) -> None:
    with pytest.raises(RunError, match=r"^unknown artifact 'grade'; did you mean 'grades'\?"):
        built("grade")
    with pytest.raises(LemaError, match=r"recipes/nothing\.yaml"):
        build("nothing", lambda _: 0)
