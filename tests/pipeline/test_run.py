"""`make` gives filters what they ask for: a judge its model, the check for test questions the recipe's questions."""

import json
import re
from pathlib import Path

import pytest

from lema.compute import parquet
from lema.errors import RunError
from lema.models.types import Model
from lema.pipeline.run import artifact_path, make
from lema.pipeline.stage_runner import StageRunner
from lema.recipe.load import load_recipe
from lema.recipe.params import Run
from lema.rows import Correction, Grade, Location, Question, Sample, Verdict
from tests.small_project import Project, enter_project, small_project
from tests.stages.rows import correction, graded, sample

FILTERS = """\
verdicts:
  filters:
    - answer_matches
    - judge: {model: strong, prompt: {user: "Fair? {{ explanation }}"}}
    - majority: {of: question}
    - gold_leak
"""
STRONG = """\
  strong:
    backend: scripted
    options:
      rules:
        - {when: Because, reply: "Yes."}
        - {when: Magic, reply: "no"}
        - {when: Odd, reply: perhaps}
        - {when: Lost, fail: timed out}
"""
PARAMS = "recipes: {}\nruns: {}\nrun: {executor: local, max_failures: 1.0}\n"
TEXT = "Zoe has seven pens and buys five more at the shop, then loses three of them on the way home. How many?"
QUESTIONS = [
    Question("q1", "train", "Ann has 2 and 3. How many?", "5", None),
    Question("q2", "train", f"Read this. {TEXT}", "9", None),
    Question("q3", "test", TEXT, "9", None),
]
PATHS = [*(sample("q1", "The answer is 6.", index=at) for at in range(4)), sample("q2", "The answer is 8.")]
SAID = ["Because 2 + 3 is 5.", "Magic.", "Odd.", "Lost.", "Because."]
ROWS = [
    correction(path, f"The answer is {5 if path.question_id == 'q1' else 9}.", explanation=text)
    for path, text in zip(PATHS, SAID, strict=True)
]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    project = small_project(tmp_path)
    project.edit("recipes/good.yaml", "  strong: {backend: openai, endpoint: local, name: strong-1}\n", STRONG)
    project.edit("recipes/good.yaml", "verdicts: {filters: [has_fields, max_tokens: {limit: 50}]}\n", FILTERS)
    project.write("params.yaml", PARAMS)
    enter_project(tmp_path, monkeypatch)
    make("plan", "good")
    parquet.write_rows(artifact_path("questions", "good"), Question, QUESTIONS)
    parquet.write_rows(artifact_path("samples", "good"), Sample, PATHS)
    parquet.write_rows(artifact_path("corrections", "good"), Correction, ROWS)
    return project


def test_filters_are_given_what_they_ask_for(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    make("verdicts", "good")
    assert "5 requests, 0 hits, 4 bought" in capsys.readouterr().err
    rows = parquet.read_rows(artifact_path("verdicts", "good"), Verdict)
    assert [[finding.filter for finding in row.findings] for row in rows] == [
        ["answer_matches", "judge", "majority", "gold_leak", "contamination"]
    ] * 5
    assert [(row.accepted, row.reason) for row in rows] == [
        (True, None),
        (False, "the judge says no"),
        (False, "the judge says neither yes nor no"),
        (False, "the judge did not reply: timed out"),
        (False, "holds the test question q3"),
    ]
    assert [row.findings[2].value for row in rows] == [1.0] * 5


def test_the_log_counts_the_requests_of_all_judges(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    other = '    - judge: {model: strong, prompt: {user: "True? {{ explanation }}"}}\n'
    project.edit("recipes/good.yaml", "    - majority", f"{other}    - majority")
    make("plan", "good")
    make("verdicts", "good")
    assert "10 requests, 0 hits, 8 bought, 2 failed" in capsys.readouterr().err


def test_a_judge_is_paid_once_and_equal_verdicts_are_equal_bytes(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    make("verdicts", "good")
    before = artifact_path("verdicts", "good").read_bytes()
    make("verdicts", "good")
    assert "0 bought" in capsys.readouterr().err.splitlines()[-1]
    assert artifact_path("verdicts", "good").read_bytes() == before
    prompts = [row.findings[1].reason for row in parquet.read_rows(artifact_path("verdicts", "good"), Verdict)]
    assert not any("Fair?" in (reason or "") for reason in prompts)


MENDED = (
    "Incorrect Step: Step 1.\nExplanation: {why}\nCorrect Solution:\nStep 1: 2 + 3 = 5.\nStep 2: The answer is {is_}."
)
ASKED = "corrections: {model: strong, prompt: correct}\n"
FEW = """\
corrections: {model: corrector, prompt: correct, want: 4, max_candidates: 18}
verdicts:
  filters:
    - answer_matches
    - judge: {model: strong, prompt: {user: "{{ explanation }} {{ path }}"}}
"""


def test_corrections_stop_where_the_verdicts_will_accept_enough(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [{"why": "Because.", "is_": 5}, {"why": "Because.", "is_": 7}, {"why": "Lost.", "is_": 5}]
    replies = [MENDED.format(**one) for one in said]
    corrector = f"  corrector: {{backend: scripted, options: {{replies: {json.dumps(replies)}}}}}\n"
    for old, new in ((FILTERS, ""), ("models:\n", f"models:\n{corrector}"), (ASKED, FEW)):
        project.edit("recipes/good.yaml", old, new)
    paths = [sample("q1", f"{at} + 1 = 6.\nThe answer is 6.", index=at) for at in range(20)]
    parquet.write_rows(artifact_path("samples", "good"), Sample, paths)
    parquet.write_rows(artifact_path("grades", "good"), Grade, [graded(row, "incorrect") for row in paths])
    parquet.write_rows(artifact_path("locations", "good"), Location, [])
    monkeypatch.setattr("lema.pipeline.providers.base_model", lambda folder: Model("base", "transformers", "base"))
    artifact_path("base", "good").mkdir(parents=True)
    (artifact_path("base", "good") / "base.json").write_text("{}", encoding="utf-8")

    make("plan", "good")
    make("corrections", "good")
    log = capsys.readouterr().err
    rows = parquet.read_rows(artifact_path("corrections", "good"), Correction)
    before = artifact_path("corrections", "good").read_bytes()
    make("verdicts", "good")
    judged = parquet.read_rows(artifact_path("verdicts", "good"), Verdict)
    assert sum(row.accepted for row in judged) == 4
    lost = sum("Lost" in (row.explanation or "") for row in rows)
    assert 0 < lost < len(rows) < 18
    # A judge that fails is asked once by this stage, and again by the next: its failure is in no store.
    assert f"corrections good: {2 * len(rows)} requests, 0 hits, {2 * len(rows) - lost} bought, {lost} failed" in log
    assert f"{len(rows)} requests, {len(rows) - lost} hits, 0 bought, {lost} failed" in capsys.readouterr().err
    make("corrections", "good")
    assert f"{2 * len(rows) - lost} hits, 0 bought" in capsys.readouterr().err
    assert artifact_path("corrections", "good").read_bytes() == before

    project.edit("recipes/good.yaml", "want: 4", "want: 18")
    make("plan", "good")
    make("corrections", "good")
    log = capsys.readouterr().err
    assert "corrections good: wanted 18 accepted corrections, got" in log
    assert f"corrections good: 36 requests, {2 * len(rows) - lost} hits, " in log
    more = parquet.read_rows(artifact_path("corrections", "good"), Correction)
    assert {row.id for row in rows} < {row.id for row in more}
    assert len(more) == 18


def test_a_model_is_one_training_of_an_arm_with_several_seeds(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("recipes/one.yaml", "extends: good.yaml\nadapter: {seeds: [7, 8]}\n")
    models = "models: {first: {backend: transformers, adapter: one/lema/8}}\n"
    project.write("recipes/two.yaml", f"extends: good.yaml\n{models}")
    make("plan", "two")
    monkeypatch.setattr(
        "lema.pipeline.providers.base_model", lambda folder, backend: Model("base", backend, f"of {folder}")
    )
    artifact_path("base", "one").mkdir(parents=True)
    (artifact_path("base", "one") / "base.json").write_text("{}", encoding="utf-8")
    loaded = load_recipe(project.root / "recipes/two.yaml", project.root)
    for seed in ("7", "8"):
        with pytest.raises(RunError, match=r"^no adapter one/lema/8 yet"):
            StageRunner("samples", loaded, Run()).provide("models")
        folder = artifact_path("adapter", "one", "lema") / seed
        folder.mkdir(parents=True)
        for name in ("training.json", "adapter_model.safetensors"):
            (folder / name).write_text(seed, encoding="utf-8")
    model = StageRunner("samples", loaded, Run()).provide("models")["first"]
    assert model.adapter == str(artifact_path("adapter", "one", "lema") / "8")
    assert model.identity.startswith("of data/one/base adapter ")


def test_a_plan_of_other_settings_is_refused_and_one_of_other_code_unless_dvc_made_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = artifact_path("plan", "good")
    made = path.read_text(encoding="utf-8")
    advice = r"lema make plan good, or lema repro good for everything$"
    stale = rf"^the recipe or the code of verdicts has changed since the plan was made: {advice}"
    path.write_text(re.sub(r"code: \w+", "code: another", made), encoding="utf-8")
    with pytest.raises(RunError, match=stale):
        make("verdicts", "good")
    monkeypatch.setenv("DVC_STAGE", "verdicts@good")
    with pytest.raises(RunError, match=stale):
        make("verdicts", "good")  # DVC runs something in another project
    monkeypatch.setenv("DVC_ROOT", str(project.root))
    make("verdicts", "good")
    path.write_text(made.replace("strong", "weak"), encoding="utf-8")
    with pytest.raises(RunError, match=stale):
        make("verdicts", "good")
    path.unlink()
    with pytest.raises(RunError, match=rf"^no plan yet: {advice}"):
        make("verdicts", "good")
