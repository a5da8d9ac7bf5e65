"""The examples of CONTRIBUTING.md, in a project of a user's: checked, planned and run as they stand there."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import yaml

from lema.compute import parquet
from lema.filters import Candidate, Finding
from lema.models.types import Completion, Model, Request, Sampling
from lema.recipe import part_loader
from lema.recipe.params import Run
from lema.rows import Correction, Message, Question, Sample
from lema.tasks import Task
from lema.text.correction_format import Parsed, parse_correction, parse_correction_json

ROOT = Path(__file__).parents[1]
LEMA = Path(sys.executable).with_name("lema")
BLOCK = re.compile(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCKS = dict(BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
TASK, FILTER, BACKEND = (f"recipes.parts.{name}:{name}" for name in ("sums", "shorter", "careless"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's project with the examples in it."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "recipes", root / "recipes", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "constraints.txt"):
        shutil.copy(ROOT / name, root / name)
    for name, text in BLOCKS.items():
        assert not (root / name).exists(), f"{name} is there already"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def parts(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The project's parts can be imported, as they can be from the command line."""
    monkeypatch.syspath_prepend(str(project))
    forget_parts()
    yield
    forget_parts()


def forget_parts() -> None:
    """Parts of another test's project have the same names."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "recipes"]:
        del sys.modules[name]
    importlib.invalidate_caches()


def lema(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "LEMA_HOME"}
    return subprocess.run(
        [str(LEMA), *arguments], cwd=project, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_there_is_an_example_of_everything_and_the_recipe_names_it() -> None:
    parts = {f"recipes/parts/{name}.py" for name in ("sums", "shorter", "careless")}
    assert set(BLOCKS) == parts | {"recipes/prompts/add.yaml", "recipes/sums.yaml"}
    assert all(part in BLOCKS["recipes/sums.yaml"] for part in (TASK, FILTER, BACKEND, "prompt: add"))


@pytest.mark.parametrize("name", [name for name in BLOCKS if name != "recipes/sums.yaml"])
def test_a_part_is_under_twenty_lines(name: str) -> None:
    assert len([line for line in BLOCKS[name].splitlines() if line.strip()]) < 20


def test_the_recipe_is_without_mistakes(project: Path) -> None:
    done = lema(project, "check", "recipes/sums.yaml")
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


def test_mistakes_in_the_use_of_parts_are_found(project: Path) -> None:
    mistakes = {
        (TASK, "recipes.parts.sums:sum"): "has no 'sum'; did you mean 'sums'?",
        ("largest: 60", "large: 60"): "unknown option 'large'; did you mean 'largest'?",
        ("times: 3.0", "times: many"): "option 'times' needs a number, got 'many'",
        ("every: 2", "evry: 2"): "unknown option 'evry'; did you mean 'every'?",
        ("prompt: add,", "prompt: ad,"): "there is no prompt 'ad' in recipes/prompts; did you mean 'add'?",
    }
    for at, (old, new) in enumerate(mistakes):
        assert old in BLOCKS["recipes/sums.yaml"]
        text = BLOCKS["recipes/sums.yaml"].replace(old, new)
        (project / "recipes" / f"wrong{at}.yaml").write_text(text, encoding="utf-8")
    wrong = sorted(path.relative_to(project).as_posix() for path in (project / "recipes").glob("wrong*.yaml"))
    done = lema(project, "check", *wrong)
    for name in wrong:
        (project / name).unlink()
    assert done.returncode == 2
    for name, message in zip(wrong, mistakes.values(), strict=True):
        assert any(message in line for line in done.stderr.splitlines() if line.startswith(name))
    assert "Traceback" not in done.stderr


def test_the_prompt_is_listed_with_its_comment(project: Path) -> None:
    done = lema(project, "ls", "prompts")
    assert re.search(r"^  add +One line of arithmetic, then the answer\.$", done.stdout, re.MULTILINE)


def test_the_task_makes_questions_in_the_pipeline(project: Path) -> None:
    for artifact in ("plan", "source", "questions"):
        done = lema(project, "make", artifact, "sums")
        assert done.returncode == 0, done.stderr
    questions = parquet.read_rows(project / "data/sums/questions.parquet", Question)
    train, test = ([row for row in questions if row.split == split] for split in ("train", "test"))
    assert (len(train), len(test)) == (60, 40)
    assert not {row.text for row in train} & {row.text for row in test}
    assert all(row.rationale and row.rationale.endswith(f"= {row.gold}.") for row in questions)


def test_an_edit_of_a_part_concerns_the_stages_that_use_it(project: Path) -> None:
    assert lema(project, "make", "plan", "sums").returncode == 0
    path = project / "data/sums/plan.yaml"
    before = yaml.safe_load(path.read_text(encoding="utf-8"))
    part = project / "recipes/parts/shorter.py"
    text = part.read_text(encoding="utf-8")
    try:
        part.write_text(text.replace("ratio > times", "ratio >= times"), encoding="utf-8")
        assert lema(project, "make", "plan", "sums").returncode == 0
        after = yaml.safe_load(path.read_text(encoding="utf-8"))
    finally:
        part.write_text(text, encoding="utf-8")
    assert [key for key in before if before[key] != after[key]] == ["verdicts"]


@pytest.mark.usefixtures("parts")
def test_task() -> None:
    task = part_loader.load_part("tasks", TASK)
    assert isinstance(task, Task)
    assert task.generate is not None
    made = list(islice(task.generate(seed=1, largest=60), 50))
    assert made == list(islice(task.generate(seed=1, largest=60), 50))
    for _, record in made:
        reading = task.read(record)
        answer = task.extract(f"The answer is 7? No: {reading.rationale}\nThe answer is {reading.gold}.")
        assert answer is not None
        assert task.equal(answer, reading.gold)
    assert task.extract("No idea.") is None
    assert not task.equal("41", "42")
    with pytest.raises(ValueError, match="needs `question` and `answer`"):
        task.read({"text": "What is 1 + 2?"})


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize(
    ("options", "reasons"),
    [
        ({}, [None, "2.25 times as long, limit is 2"]),
        ({"times": 3.0}, [None, None]),
        ({"times": 0.5}, ["1 times as long, limit is 0.5", "2.25 times as long, limit is 0.5"]),
    ],
)
def test_filter(options: dict[str, Any], reasons: list[str | None]) -> None:
    shorter = part_loader.load_part("filters", FILTER)
    candidates = [candidate("The answer is 42."), candidate("7 + 5 = 12.\nThe answer is 42.")]
    assert list(shorter(candidates, **options)) == [Finding(1, reasons[0]), Finding(2.25, reasons[1])]


@pytest.mark.usefixtures("parts")
def test_backend() -> None:
    model = Model("careless", BACKEND, "careless")
    worker = part_loader.load_part("models", BACKEND)(model, Run(), every=2)
    asked = [("What is 17 + 25?", 0), ("What is 17 + 25?", 1), ("What is 11 + 22?", 1), ("Hello?", 0)]
    requests = [Request(model, (Message("user", text),), Sampling(), index) for text, index in asked]
    assert worker(requests) == [
        Completion("17 + 25 = 42.\nThe answer is 42.", "stop"),
        Completion("17 + 25 = 32.\nThe answer is 32.", "stop"),
        Completion("11 + 22 = 33.\nThe answer is 33.", "stop"),
        Completion("", "failed", "needs a question with two numbers"),
    ]


def test_the_replies_of_a_corrector_are_read() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    texts = re.findall(r"^```text\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    steps, whole = (parse_correction(one) for one in texts)
    (reply,) = re.findall(r'^`(\{"incorrect_step.*\})`', text, re.MULTILINE)
    assert parse_correction_json(reply) == replace(steps, error_type=None, explanation="...")
    assert (steps.incorrect_step, steps.error_type) == (2, "wrong operation")
    assert whole == Parsed(None, None, "One or more sentences.", ("The answer is bank.",))


def candidate(solution: str) -> Candidate:
    """A correction of a wrong path of four words."""
    path = Sample("q/s/0", "q", "s", 0, "The answer is 32.", "stop", None, "m", "p", "c", 0, 0)
    row = Correction(
        "q/s/0/c0", "q/s/0", "q", 0, "parsed", None, solution, 1, None, "Forgot the carry.", solution, "42",
        "m", "p", "c", 0, 0,
    )  # fmt: skip
    return Candidate(Question("q", "train", "What is 17 + 25?", "42", None), path, row, True)
