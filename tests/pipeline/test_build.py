"""A recipe that params.yaml does not name: what is built of it, and why."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from lema.compute.artifacts import ARTIFACTS, artifact_path
from lema.errors import LemaError, RunError
from lema.pipeline.build import build, needed
from lema.pipeline.run import make
from tests.small_project import GOOD, PROMPTS

ROOT = Path(__file__).resolve().parents[2]
DATASET = ["source", "questions", "base", "samples", "grades", "locations", "corrections", "verdicts"]
STUDENT = {"config.json": "{}", "model.safetensors": "no weights"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe whose models are all scripted, and whose student is never asked."""
    recipe = GOOD.replace("{embedded: smollm2-135m-instruct}", "{folder: student, chat: false}")
    recipe = recipe.replace("{model: base,", "{model: strong,").replace("train: 40", "train: 12, options: {seed: 1}")
    scripted = "{backend: scripted, options: {replies: ['It is 2.']}}"
    recipe = recipe.replace("{backend: openai, endpoint: local, name: strong-1}", scripted)
    (tmp_path / "recipes/prompts").mkdir(parents=True)
    (tmp_path / "student").mkdir()
    (tmp_path / "recipes/good.yaml").write_text(recipe.replace("train: 30", "train: 8"), encoding="utf-8")
    for name, text in PROMPTS.items():
        (tmp_path / f"recipes/prompts/{name}.yaml").write_text(text, encoding="utf-8")
    for name, text in STUDENT.items():
        (tmp_path / "student" / name).write_text(text, encoding="utf-8")
    (tmp_path / "params.yaml").write_text("recipes: {}\nruns: {}\nrun: {executor: local}\n", encoding="utf-8")
    shutil.copy(ROOT / "constraints.txt", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LEMA_HOME", raising=False)
    monkeypatch.setattr("lema.compute.files.die_with_parent", lambda: None)
    return tmp_path


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


def edit(name: str, old: str, new: str) -> None:
    text = Path(name).read_text(encoding="utf-8")
    assert old in text
    Path(name).write_text(text.replace(old, new), encoding="utf-8")


def test_all_that_is_missing_is_made_once_and_what_has_equal_bytes_stops_there(project: Path) -> None:
    assert built() == DATASET
    assert built() == []
    edit("recipes/good.yaml", "limit: 50", "limit: 51")
    assert built() == ["verdicts"]
    edit("recipes/good.yaml", "task: word_problems, train: 8", "task: word_problems, dev: 0, train: 8")
    assert built() == []
    edit("recipes/good.yaml", "seed: 1", "seed: 2")
    assert built("questions") == ["source", "questions"]
    assert built("grades") == ["samples", "grades"]


def test_one_arm_needs_no_other(project: Path) -> None:
    assert built("mix", "cot") == [*DATASET, "mix/cot"]
    assert built("mix", "lema") == ["mix/lema"]
    assert built("mix") == []


def test_what_is_lost_edited_or_was_made_by_hand_is_known(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    (project / "student/config.json").write_text("{} ", encoding="utf-8")
    assert "base" in built("base")


def test_a_plan_made_by_hand_hides_no_edit(project: Path) -> None:
    built("grades")
    edit("recipes/good.yaml", "paths: 2", "paths: 3")
    make("plan", "good")
    assert built("grades") == ["samples", "grades"]


def test_a_stage_that_fails_ends_the_build_and_comes_again(project: Path) -> None:
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


def test_an_unknown_artifact_or_recipe_is_a_message(project: Path) -> None:
    with pytest.raises(RunError, match=r"^unknown artifact 'grade'; did you mean 'grades'\?"):
        built("grade")
    with pytest.raises(LemaError, match=r"recipes/nothing\.yaml"):
        build("nothing", lambda _: 0)
