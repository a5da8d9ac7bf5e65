"""Memory of every stage at 20,000 and at 100,000 questions: peak resident memory and seconds, and the ratio.

    python benchmarks/scale.py [--questions 20000,100000] [--stages verdicts,mix] [--keep FOLDER]

The recipe has four paths a question, 80,000 and 400,000 in all, and the corrector `reference`. Each stage runs in a
process of its own, in this process (`run.executor: local`), whose peak is VmHWM of /proc. Models are scripted. So that
the stages after `samples` have something to do, its rows, those of `corrections` and those of `answers` are replaced by
ones made of the gold rationales, some of them wrong. `corrections` itself runs on few of these, since the corrector
takes milliseconds a path. Writes benchmarks/results/scale.md when all stages were measured.
"""

import argparse
import hashlib
import json
import os
import platform
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks/results/scale.md"
NAME, TESTS = "scale", 1000
WRONG = {"a": 0.05, "b": 0.4}  # share of wrong paths, by sampler; `corrections` itself is given those of `a` alone
LIMIT_MB, LIMIT_RATIO = 600, 1.3
MEASURED = (
    *("source", "questions", "samples", "grades", "locations", "corrections", "verdicts", "evolved"),
    *("mix/cot", "mix/lema", "export", "answers", "scores", "report"),
)
REPLIES = ["He has 2 + 3 = 5.\nThe answer is 5.", "They are 4 * 3 = 12.\nThe answer is 12.", "The answer is 7."]
JUDGEMENTS = ["Yes.", "Yes, it is.", "No."]


def recipe(count: int) -> dict[str, Any]:
    """A recipe of so many training questions."""
    sampler = {"model": "paths", "prompt": {"user": "{{ question }}"}, "max_tokens": 64}
    write = {"model": "paths", "prompt": {"user": "Like: {{ question }}"}}
    solve = {"model": "paths", "prompt": {"user": "Solve: {{ question }}"}}
    return {
        # Some questions are passed over because they are too much like a test question.
        "source": {
            "generator": "word_problems", "train": count + count // 10, "test": TESTS, "options": {"steps": [2, 3]},
        },
        "questions": {"task": "word_problems", "train": count, "test": TESTS},
        "base": {"embedded": "smollm2-135m-instruct"},
        "models": {
            "paths": {"backend": "scripted", "options": {"replies": REPLIES}},
            "judge": {"backend": "scripted", "options": {"replies": JUDGEMENTS}},
            "reference": {"backend": "reference"},
        },
        "samples": {"samplers": {"a": sampler, "b": {**sampler, "paths": 3}}},
        "corrections": {
            "model": "reference", "prompt": "correct_reference", "hint": "rationale", "samplers": ["a"],
        },
        "verdicts": {
            "filters": [
                *("has_fields", "answer_matches", "duplicate", "majority"),
                {"judge": {"model": "judge", "prompt": {"user": "{{ question }} Is it {{ answer }}?"}}},
            ],
        },
        "evolved": {"questions": count // 4, "write": write, "solve": solve, "answers": 3},
        "mix": {
            "cot": "cot", "correction": "correction",
            "arms": {
                "cot": {"cot": {"rationales": True, "samplers": ["a", "b"], "corrected": True}},
                "lema": {"cot": {"rationales": True}, "corrections": {"rows": "all"}},
            },
        },
        "adapter": {"epochs": 1},
        "answers": {"prompt": "cot", "max_tokens": 64},
    }  # fmt: skip


def chance(*names: object) -> float:
    """A number in [0, 1) that depends on the names only."""
    return int.from_bytes(hashlib.sha256(repr(names).encode()).digest()[:6]) / 2**48


def slipped(rationale: str, luck: float) -> tuple[list[str], int]:
    """A rationale with a slip in one line, and the number of the line."""
    lines = rationale.split("\n")
    at = int(luck * len(lines))
    lines[at] = re.sub(r"= (\d+)", lambda found: f"= {int(found[1]) + 3}", lines[at])
    return lines, at


def sample_rows(rows: Iterable[Any], questions: Iterable[Any]) -> Iterator[Any]:
    """The rows of `samples` with other texts."""
    from lema.text.joins import SortedLookup

    asked = SortedLookup(questions)
    for row in rows:
        question = asked[row.question_id]
        lines, last = question.rationale.split("\n"), question.gold
        if (luck := chance(row.id)) < WRONG[row.sampler]:
            lines, last = slipped(question.rationale, luck / WRONG[row.sampler])[0], "-1"
        yield replace(row, text="\n".join([*lines, f"The answer is {last}."]))


def correction_rows(questions: Iterable[Any], samples: Iterable[Any], grades: Iterable[Any]) -> Iterator[Any]:
    """A correction of every wrong path."""
    from lema.rows import Correction
    from lema.text.joins import SortedLookup

    asked, graded = SortedLookup(questions), SortedLookup(grades)
    for row in samples:
        if graded[row.id].outcome != "incorrect":
            continue
        question, luck = asked[row.question_id], chance("correct", row.id)
        at = slipped(question.rationale, chance(row.id) / WRONG[row.sampler])[1] + 1
        answer = question.gold if luck < 0.8 else "1"
        steps = [*question.rationale.split("\n")[at - 1 :], f"The answer is {answer}."]
        solution = "\n".join(["...", *steps] if at > 1 else steps)
        why = f"Step {at} computes wrongly; {steps[0].rstrip('.')} is what follows from the question."
        yield Correction(
            id=f"{row.id}/c0", sample_id=row.id, question_id=row.question_id, index=0, status="parsed", reason=None,
            reply=f"{why}\n{solution}", incorrect_step=at, error_type="arithmetic slip", explanation=why,
            solution=solution, answer=answer, model="reference", prompt="", completion="", prompt_tokens=120,
            completion_tokens=60,
        )  # fmt: skip


def substitute(artifact: str) -> None:
    """Replace the rows of an artifact, in the project that is the current folder."""
    from lema.compute.artifacts import ARTIFACTS, artifact_path
    from lema.compute.parquet import Rows, write_rows

    def rows(name: str) -> Any:
        row_type = ARTIFACTS[name]
        assert row_type is not None
        return Rows(artifact_path(name, NAME), row_type)

    made = {
        "samples": lambda: sample_rows(rows("samples"), rows("questions")),
        "corrections": lambda: correction_rows(rows("questions"), rows("samples"), rows("grades")),
    }[artifact]()
    row_type = ARTIFACTS[artifact]
    assert row_type is not None
    write_rows(artifact_path(artifact, NAME), row_type, made)


def scripted_answers() -> None:
    """The stage `answers` with a scripted model in place of the student, and its training records for the report."""
    from lema.compute.artifacts import artifact_path
    from lema.compute.parquet import write_rows
    from lema.models.types import Model
    from lema.pipeline.stage_runner import StageRunner, read_input
    from lema.recipe.load import load_params, load_recipe
    from lema.rows import Answer, Probe

    def read(runner: StageRunner, name: str, iterable: bool = False) -> Any:
        models = {
            arm: Model(arm, "scripted", f"scripted {arm}", options={"replies": REPLIES})
            for arm in ("base", "cot", "lema")
        }
        if name == "base":
            return models["base"]
        if name == "adapters":
            return {arm: {0: models[arm]} for arm in ("cot", "lema")}
        return read_input(runner, name, iterable)

    loaded = load_recipe(Path("recipes") / f"{NAME}.yaml", Path.cwd())
    settings = load_params(Path("params.yaml")).run
    with StageRunner("answers", loaded, settings, read=read) as runner:
        write_rows(artifact_path("answers", NAME), Answer, runner.call())
    write_rows(artifact_path("probe", NAME), Probe, [])
    for arm in ("cot", "lema"):
        folder = artifact_path("adapter", NAME, arm)
        folder.mkdir(parents=True, exist_ok=True)
        record = {"examples": 1, "tokens": 1, "first_loss": 2.0, "final_loss": 1.0, "loss_tokens_an_epoch": 1}
        (folder / "training.json").write_text(json.dumps(record), encoding="utf-8")
        curve = Path("data") / NAME / "curves" / f"{arm}.csv"
        curve.parent.mkdir(parents=True, exist_ok=True)
        curve.write_text("step,loss\n1,2.0\n2,1.0\n", encoding="utf-8")


def child(target: str) -> None:
    """One step in this process: a stage, or `+artifact` to replace its rows. Prints peak memory and seconds as JSON."""
    from lema.pipeline.run import make

    began = time.perf_counter()
    if target.startswith("+"):
        substitute(target[1:])
    elif target == "answers":
        scripted_answers()
    else:
        artifact, _, arm = target.partition("/")
        make(artifact, NAME, arm or None)
    seconds = time.perf_counter() - began
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = int(re.findall(r"VmHWM:[ \t]+(\d+) kB", status)[0]) / 1000
    print(json.dumps({"mb": peak, "seconds": seconds}))


def measure(project: Path, count: int, wanted: Sequence[str]) -> dict[str, dict[str, float]]:
    """Peak and seconds of each step, in a project of so many questions; what is there already is not made again."""
    for folder in ("recipes", "data", ".lema"):
        (project / folder).mkdir(parents=True, exist_ok=True)
    for name, target in ((".lema/models", ROOT / ".lema/models"), ("recipes/prompts", ROOT / "recipes/prompts")):
        if not (project / name).exists():
            (project / name).symlink_to(target)
    (project / f"recipes/{NAME}.yaml").write_text(yaml.safe_dump(recipe(count), sort_keys=False), encoding="utf-8")
    params = {
        "recipes": {NAME: "constraints.txt"},
        "runs": {f"{NAME}-{arm}": {"recipe": NAME, "arm": arm} for arm in ("cot", "lema")},
        "run": {"executor": "local", "max_failures": 1.0},
    }
    (project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    (project / "constraints.txt").write_text("", encoding="utf-8")
    steps = ["plan", "base"]
    for name in MEASURED:
        steps += [name, f"+{name}"] if name in ("samples", "corrections") else [name]
    found: dict[str, dict[str, float]] = {}
    for step in steps:
        done = project / f"data/{step.replace('/', '-')}.done"
        if done.exists() and step.lstrip("+") not in wanted and step != "plan":
            continue
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(Path(__file__).resolve()), "--child", step]
        run = subprocess.run(command, cwd=project, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        found[step] = json.loads(run.stdout.splitlines()[-1])
        done.touch()
        print(f"{count:>7,} {step:<14} {found[step]['mb']:6.0f} MB {found[step]['seconds']:8.1f} s", flush=True)
    return found


def table(sizes: Sequence[int], found: Sequence[dict[str, dict[str, float]]]) -> str:
    small, large = found[0], found[-1]
    lines = [
        "# Memory by the number of questions\n",
        f"{platform.machine()}, Python {platform.python_version()}, `python benchmarks/scale.py`. Four paths a",
        "question; every stage in a process of its own. Peak resident memory in MB, seconds, and their ratio.\n",
        f"| stage | {sizes[0]:,} | s | {sizes[-1]:,} | s | ratio |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name in MEASURED:
        one, other = small[name], large[name]
        lines.append(
            f"| {name} | {one['mb']:.0f} | {one['seconds']:.0f} | {other['mb']:.0f} | {other['seconds']:.0f} "
            f"| {other['mb'] / one['mb']:.2f} |"
        )
    worst = max(large[name]["mb"] for name in MEASURED)
    ratio = max(large[name]["mb"] / small[name]["mb"] for name in MEASURED)
    lines.append(f"\nLargest peak {worst:.0f} MB (limit {LIMIT_MB}), largest ratio {ratio:.2f} (limit {LIMIT_RATIO}).")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", default="20000,100000")
    parser.add_argument("--stages", default=",".join(MEASURED), help="stages to measure again in a kept folder")
    parser.add_argument("--keep", type=Path, help="a folder for the projects, which are then kept")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child)
        return
    random.seed(0)
    sizes = [int(size) for size in given.questions.split(",")]
    with tempfile.TemporaryDirectory() as scratch:
        home = given.keep or Path(scratch)
        found = [measure((home / str(size)).resolve(), size, given.stages.split(",")) for size in sizes]
    if len(sizes) > 1 and all(name in one for one in found for name in MEASURED):
        RESULT.write_text(table(sizes, found), encoding="utf-8")
        print(RESULT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
