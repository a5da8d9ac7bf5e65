"""`lema plan` and `lema cost`: what they say before is what is then bought, and after what was paid."""

import shutil
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lema.cli import app
from lema.completions import ledger
from lema.compute import parquet
from lema.errors import RecipeError, RunError
from lema.pipeline.dry_run import MARK, DryRun, placeholder
from lema.pipeline.estimate import plan_table
from lema.pipeline.forecast import Lengths
from lema.pipeline.run import artifact_path, make
from lema.rows import Grade, Sample
from tests.fake_server import FakeServer
from tests.small_project import ROOT, enter_project, small_project

# Of the study, whose problems take long to make, the quickest; `make soak` plans all.
STUDY = "laptop-study"
RECIPES = sorted(
    name for name in (path.stem for path in (ROOT / "recipes").glob("*.yaml")) if not name.startswith(STUDY)
)
JUDGE = '    - judge: {model: strong, prompt: {user: "Fair? {{ explanation }}"}}\n'
PARAMS = """\
recipes: {}
runs: {}
run:
  executor: local
  endpoints:
    local: {url: URL, concurrency: 8}
  prices:
    strong-1: {input: 10, output: 20}
"""
CHAIN = ("source", "questions", "samples", "grades", "locations", "corrections", "verdicts", "evolved")


def answer(body: dict[str, Any]) -> str:
    """A path that is wrong for most questions, or a correction of it."""
    asked = body["messages"][-1]["content"]
    if asked.startswith("Fair?"):
        return "Yes."
    if "Step 1:" in asked:
        return "Incorrect Step: Step 1\nExplanation: It is not so.\nCorrect Solution:\nStep 1: 1 + 1 = 2.\nStep 2: Two."
    return f"{len(asked)} + 1 = 9.\nThe answer is {len(asked) % 7}."


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with FakeServer(answer=answer) as running:
        yield running


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory, server: FakeServer) -> Path:
    """A project of which nothing is made."""
    project = small_project(tmp_path_factory.mktemp("fresh"))
    judged = f"verdicts:\n  filters:\n    - has_fields\n{JUDGE}"
    project.edit("recipes/good.yaml", "model: base, prompt: solve", "model: strong, max_tokens: 40, prompt: solve")
    project.edit("recipes/good.yaml", "verdicts: {filters: [has_fields, max_tokens: {limit: 50}]}\n", judged)
    project.write("params.yaml", PARAMS.replace("URL", server.url))
    return project.root


@pytest.fixture(scope="module")
def made(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same project with its dataset made."""
    folder = tmp_path_factory.mktemp("made") / "project"
    shutil.copytree(fresh, folder)
    with pytest.MonkeyPatch.context() as patch:
        enter_project(folder, patch)
        build(*CHAIN)
    return folder


@pytest.fixture
def empty(fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: FakeServer) -> Path:
    """A copy of the project of which nothing is made."""
    shutil.copytree(fresh, tmp_path / "project")
    enter_project(tmp_path / "project", monkeypatch)
    server.requests.clear()
    return tmp_path / "project"


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: FakeServer) -> Path:
    """A copy of the project that is made."""
    shutil.copytree(made, tmp_path / "project")
    enter_project(tmp_path / "project", monkeypatch)
    server.requests.clear()
    return tmp_path / "project"


def build(*artifacts: str) -> None:
    artifact_path("base", "good").mkdir(parents=True, exist_ok=True)
    (artifact_path("base", "good") / "base.json").write_text(
        '{"kind": "hub", "name": "x", "revision": "y", "identity": "x", "chat": true}'
    )
    for artifact in ("plan", *artifacts):
        make(artifact, "good")


def counts(found: DryRun) -> dict[str, tuple[int, int, int]]:
    """Requests, cached ones and those to be bought of what is asked at an endpoint, by stage."""
    return {one.stage: (one.requests, one.cached, one.missing) for one in found.asked() if one.model.endpoint}


def reasons(found: DryRun) -> dict[str, list[str]]:
    return {stage.artifact: list(stage.reasons) for stage in found.stages if stage.reasons}


def edit(path: str, old: str, new: str) -> None:
    text = Path(path).read_text(encoding="utf-8")
    assert old in text
    Path(path).write_text(text.replace(old, new), encoding="utf-8")


def test_before_anything_is_made_the_first_stage_is_exact(empty: Path, server: FakeServer) -> None:
    found = DryRun("good")
    assert counts(found)["samples"] == (60, 0, 60)
    assert counts(found)["corrections"][2] == 24  # 40 % of 60, a guess
    assert server.requests == []
    assert not (empty / "data").exists()
    assert not (empty / ".lema").exists()
    build(*CHAIN[:3])
    bought = [line for line in ledger.read_ledger(ledger.ledger_folder()) if line["kind"] == "request"]
    assert len(bought) == len(server.requests) == 60
    assert sum(line["characters"] for line in bought) == found.asked()[0].sure[1]


def test_what_follows_from_replies_that_are_there_is_exact(empty: Path, server: FakeServer) -> None:
    build(*CHAIN[:3])
    found = DryRun("good")
    stages = {stage.artifact: stage for stage in found.stages}
    assert not stages["samples"].reasons
    wrong = counts(found)["corrections"]
    server.requests.clear()
    build(*CHAIN[3:6])
    assert wrong == (len(server.requests), 0, len(server.requests))
    judged = counts(DryRun("good"))["verdicts"]
    server.requests.clear()
    build("verdicts")
    assert judged[2] == len(server.requests) > 0


def test_when_all_is_made_nothing_is_stale_and_nothing_is_bought(project: Path) -> None:
    found = DryRun("good")
    assert not set(reasons(found)) & set(CHAIN)
    assert counts(found) == {}
    assert "Nothing to buy." in plan_table(found)


def test_an_edit_of_a_format_is_free_and_one_of_a_prompt_is_paid(project: Path) -> None:
    edit("recipes/prompts/correct.yaml", "{{ path }}", "Look: {{ path }}")
    found = DryRun("good")
    assert reasons(found)["corrections"] == ["the prompt has changed"]
    assert "corrections stale, paid" in plan_table(found)
    assert reasons(found)["verdicts"] == ["corrections will be made again"]
    assert "samples" not in reasons(found)
    edit("recipes/good.yaml", "- has_fields\n", "- has_fields\n    - max_tokens: {limit: 500}\n")
    edit("recipes/prompts/correct.yaml", "Look: {{ path }}", "{{ path }}")
    found = DryRun("good")
    assert reasons(found)["verdicts"] == ["filters has changed", "the code has changed"]
    assert counts(found)["verdicts"][2] == 0
    assert "verdicts    stale, free: filters has changed; the code has changed" in plan_table(found)


def test_more_paths_buy_the_new_ones_only(project: Path, server: FakeServer) -> None:
    edit("recipes/good.yaml", "paths: 2", "paths: 3")
    found = DryRun("good")
    assert counts(found)["samples"] == (90, 60, 30)
    assert "samplers.student.paths: 2 -> 3" in reasons(found)["samples"]
    server.requests.clear()
    build("samples")
    assert len(server.requests) == 30
    # The share of wrong paths is that of the 60 that are known.
    grades = parquet.read_rows(artifact_path("grades", "good"), Grade)
    share = sum(row.outcome == "incorrect" for row in grades) / 60
    assert any(note.startswith(f"{share:.0%} of student's paths are wrong, as of 60") for note in found.notes)
    assert counts(found)["corrections"][2] == pytest.approx(30 * share, abs=1)


def test_rows_that_come_out_as_they_are_touch_nothing_else(project: Path) -> None:
    edit("recipes/good.yaml", "task: word_problems, train: 30", "task: word_problems, dev: 0, seed: 0, train: 30")
    assert "questions" not in reasons(DryRun("good"))
    edit("recipes/good.yaml", "prompt: correct}", "prompt: correct, samplers: [student]}")
    found = {stage.artifact: stage for stage in DryRun("good").stages}
    assert (found["corrections"].reasons, found["corrections"].same) == (["samplers is new"], True)
    assert "corrections will be made again" not in found["verdicts"].reasons


def test_the_estimate_of_lengths_is_that_of_past_replies(project: Path) -> None:
    before = DryRun("good")
    edit("recipes/prompts/solve.yaml", "{{ question }}", "Q: {{ question }}")
    found = DryRun("good")
    (asked,) = (one for one in found.asked() if one.stage == "samples")
    lines = [line for line in ledger.read_ledger(ledger.ledger_folder()) if line["stage"] == "samples"]
    prompts, replies = asked.tokens()
    assert replies[1:] == [pytest.approx(sum(line["completion_tokens"] for line in lines)), 60 * 40]
    assert before.past.reply("strong-1", "samples") == found.past.reply("strong-1", "samples")
    low, expected, high = asked.dollars() or (0, 0, 0)
    assert low < expected < high
    assert prompts[1] == asked.sure[1] / found.past.ratio("strong-1")[1]
    assert expected == pytest.approx((Decimal(prompts[1]) * 10 + Decimal(replies[1]) * 20) / 1_000_000)


def test_with_too_few_replies_the_guess_stays() -> None:
    past = Lengths()
    for _ in range(19):
        past.add("m", "samples", 400, 50, 10)
    assert (past.ratio("m")[1], past.reply("m", "samples")) == (4.0, None)
    past.add("m", "verdicts", 400, 50, 10)
    assert (past.ratio("m")[1], past.reply("m", "samples")) == (8.0, 10)


def test_a_placeholder_is_nothing_to_calculate() -> None:
    """Of dashes, `arithmetic` takes a tenth of a second for each: 40 for the plan of a hundred questions."""
    assert len(placeholder(7, 500)) > 400
    assert not set(placeholder(7, 500)) & set("+-*/=^")


OWN = "{backend: 'recipes.lema_test_backend:own'}"
BACKEND = """\
from lema.models.types import Completion

def own(model, run):
    return lambda requests: [Completion("It is 2.", "stop") for _ in requests]
"""


@pytest.mark.parametrize("own", [False, True])
def test_an_unknown_price_is_said_and_not_zero_and_refused_with_a_budget(
    empty: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    """Of an endpoint, and of a backend of the user's, which may ask whom it likes."""
    monkeypatch.syspath_prepend(str(empty))
    name = "strong" if own else "strong-1"
    if own:
        (empty / "recipes/lema_test_backend.py").write_text(BACKEND, encoding="utf-8")
        edit("recipes/good.yaml", "{backend: openai, endpoint: local, name: strong-1}", OWN)
    else:
        edit("params.yaml", "    strong-1: {", "    other: {")
    said = plan_table(DryRun("good"))
    assert f"Not counted, the price is unknown: {name};" in said
    assert " ?  " in said
    assert "replies, the price is unknown." in said
    assert not any(words in said for words in ("$0 expected", "for nothing", "budget"))
    edit("params.yaml", "  prices:", "  budget: {total: 5}\n  prices:")
    with pytest.raises(RecipeError, match=f"the price of {name} is unknown, and the recipe good needs it"):
        DryRun("good")
    edit("params.yaml", "  prices:", f"  prices:\n    {name}: {{input: 0, output: 0}}")
    assert ("Made here, for nothing:" in plan_table(DryRun("good"))) is own


def test_a_budget_is_held_against_the_estimate(empty: Path) -> None:
    edit("params.yaml", "  prices:", "  budget: {total: 0.001, recipes: {good: 100}}\n  prices:")
    said = plan_table(DryRun("good"))
    assert "run.budget.total has $0.0010 left, too little." in said
    assert "run.budget.recipes.good has $100.00 left." in said


def test_a_budget_stops_a_stage_of_a_recipe(empty: Path, server: FakeServer) -> None:
    edit("params.yaml", "  prices:", "  budget: {recipes: {good: 0.01}}\n  prices:")
    with pytest.raises(
        RunError, match=r"To go on, raise run\.budget\.recipes\.good in params\.yaml.*lema make samples good"
    ):
        build(*CHAIN[:3])
    sent = len(server.requests)
    assert 0 < sent < 60
    assert not artifact_path("samples", "good").exists()
    edit("params.yaml", "good: 0.01", "good: 10")
    build("samples")
    assert len(server.requests) == 60


def test_cost_is_what_the_ledger_and_the_rows_say(project: Path, server: FakeServer) -> None:
    runner = CliRunner()
    rows = parquet.read_rows(artifact_path("samples", "good"), Sample)
    paid = sum(row.prompt_tokens * 10 + row.completion_tokens * 20 for row in rows)
    spent = [
        line
        for line in ledger.read_ledger(ledger.ledger_folder())
        if line["stage"] == "samples" and line["kind"] == "request"
    ]
    assert sum(Decimal(line["cost"]) for line in spent) == Decimal(paid) / 1_000_000
    for artifact in CHAIN[2:]:
        artifact_path(artifact, "good").unlink()
    build(*CHAIN[2:])
    said = runner.invoke(app, ["cost", "good"]).output
    lines = {line.split()[0]: line.split() for line in said.splitlines() if line.startswith("  ")}
    assert list(lines) == ["requests", "samples", "corrections", "verdicts", "in"]
    assert lines["samples"][1] == "60"
    bought = [line for line in ledger.read_ledger(ledger.ledger_folder()) if line["kind"] == "request"]
    assert (lines["in"][2], server.requests) == (str(len(bought)), [])
    assert lines["samples"][6] == lines["samples"][8] != "$0"  # bought once, and saved once
    assert "an accepted correction" in said
    assert "strong " in runner.invoke(app, ["cost", "--by", "model"]).output
    assert "correct " in runner.invoke(app, ["cost", "good", "--by", "prompt"]).output
    assert "2" in runner.invoke(app, ["cost", "good", "--by", "day"]).output


def test_cost_of_nothing_is_a_message(empty: Path) -> None:
    with pytest.raises(RunError, match="no request of the recipe good yet"):
        raise CliRunner().invoke(app, ["cost", "good"]).exception or AssertionError


@pytest.mark.parametrize("recipe", [*RECIPES, f"{STUDY}-short"])
def test_every_shipped_recipe_has_a_plan(recipe: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Offline, without a key, with nothing made; hub data sets are unknown until they are fetched."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    for name in ("params.yaml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "LEMA_HOME"):
        monkeypatch.delenv(name, raising=False)
    said = CliRunner().invoke(app, ["plan", recipe])
    assert said.exception is None
    assert "samples" in said.output
    assert MARK not in said.output
    assert not (tmp_path / "data").exists()
