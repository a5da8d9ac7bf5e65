"""Why `dvc repro` would run a stage, read from what it ran with last."""

import json
from pathlib import Path
from typing import Any

import pytest

from lema.compute.artifacts import artifact_path
from lema.pipeline.status import Status, reads

PLAN: dict[str, Any] = {
    "recipe": "r",
    "source": {"train": 4, "code": "s1"},
    "questions": {"seed": 0, "stop": [], "code": "q1"},
    "base": {"code": "b1"},
    "samples": {"samplers": {"student": {"temperature": 0.7, "prompt": "a" * 64}}, "code": "p1"},
    "mix": {"cot": {"seed": 0, "code": "m1"}, "lema": {"seed": 0, "code": "m1"}},
    "report": {"code": "r1"},
}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is made with PLAN, by DVC."""
    monkeypatch.chdir(tmp_path)
    for artifact in ("source", "questions", "base", "samples", "report"):
        touch(artifact_path(artifact, "r"))
    for arm in ("cot", "lema"):
        touch(artifact_path("mix", "r", arm))
    write("data/r/plan.yaml", PLAN)
    lock({})


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")


def write(path: str, content: Any) -> None:
    Path(path).write_text(json.dumps(content))


def lock(read: dict[str, str], plan: dict[str, Any] = PLAN) -> None:
    """dvc.lock of stages that ran with a plan; `read` are hashes of questions that `samples` has read."""
    samples = {
        "params": {"data/r/plan.yaml": {"samples": plan["samples"]}},
        "deps": [{"path": path, "hash": "md5", "md5": digest} for path, digest in read.items()],
    }
    questions = {
        "params": {"data/r/plan.yaml": {"questions": plan["questions"]}},
        "outs": [{"path": "data/r/questions.parquet", "hash": "md5", "md5": "1234e567"}],
    }
    mixes = {f"mix@r-{arm}": {"params": {"data/r/plan.yaml": {f"mix.{arm}": own}}} for arm, own in plan["mix"].items()}
    write("dvc.lock", {"schema": "2.0", "stages": {"questions@r": questions, "samples@r": samples, **mixes}})


def why(artifact: str, plan: dict[str, Any] = PLAN, **again: str) -> list[str]:
    return Status("r", plan, ["cot", "lema"]).why(artifact, again)


def changed(*path: str, to: Any) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads(json.dumps(PLAN))
    at = plan
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = to
    return plan


def test_what_was_made_with_this_plan_is_up_to_date() -> None:
    assert {name: why(name) for name in ("source", "questions", "base", "samples", "mix", "report")} == {
        name: [] for name in ("source", "questions", "base", "samples", "mix", "report")
    }
    assert why("questions", changed("questions", "stop", to=())) == []


def test_what_is_missing_is_not_made_yet() -> None:
    artifact_path("samples", "r").unlink()
    artifact_path("mix", "r", "lema").unlink()
    assert why("samples") == ["not made yet"]
    assert why("mix") == ["lema: not made yet"]


@pytest.mark.parametrize(
    ("path", "to", "reason"),
    [
        (("samples", "samplers", "student", "temperature"), 0.8, "samplers.student.temperature: 0.7 -> 0.8"),
        (("samples", "samplers", "student", "prompt"), "b" * 64, "samplers.student.prompt: the prompt has changed"),
        (("samples", "samplers", "other"), {"paths": 2}, "samplers.other is new"),
        (("samples", "samplers"), {}, "samplers.student is gone"),
        (("samples", "code"), "p2", "the code has changed"),
    ],
)
def test_a_changed_part_of_the_plan_is_named(path: tuple[str, ...], to: Any, reason: str) -> None:
    plan = changed(*path, to=to)
    assert why("samples", plan) == [reason]
    assert why("questions", plan) == []
    assert why("report", plan) == ["the plan has changed"]


def test_dvc_lock_knows_better_than_a_plan_that_was_made_anew() -> None:
    plan = changed("samples", "code", to="p2")
    write("data/r/plan.yaml", plan)
    assert why("samples", plan) == ["the code has changed"]
    Path("dvc.lock").unlink()
    assert why("samples", plan) == []


def test_an_arm_is_named_where_only_one_is_concerned() -> None:
    assert why("mix", changed("mix", "lema", "seed", to=1)) == ["lema: seed: 0 -> 1"]
    both = changed("mix", to={arm: {"seed": 1, "code": "m1"} for arm in ("cot", "lema")})
    assert why("mix", both) == ["seed: 0 -> 1"]


def test_inputs_that_were_or_will_be_made_again_make_a_stage_stale() -> None:
    assert "questions" in reads("samples")
    lock({"data/r/questions.parquet": "1234e567"})
    assert why("samples") == []
    lock({"data/r/questions.parquet": "another"})
    assert why("samples") == ["questions has changed since"]
    assert why("samples", questions="will be made again") == ["questions will be made again"]
