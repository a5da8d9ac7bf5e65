"""Every shipped recipe from end to end, at small scale and with local models.

    python benchmarks/recipes.py [RECIPE ...]

In a temporary project each recipe is extended by one of the same name that changes only how much is made and who is
asked: SmolLM2 in place of the models behind endpoints, a script that knows the answers in place of the strong one, a
tiny student from scratch in place of a base from the hub, and a dozen records of a file in place of a hub data set:
real ones where ../shared/data is (LEMA_TEST_DATA says otherwise), else generated ones. Prompts, parsers, filters, arms
and formats are the shipped ones. Each recipe is checked, planned and built by `dvc repro`; rounds come after those
that they read. A run of all of them writes benchmarks/results/recipes.md.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pyarrow.parquet import read_metadata

from lema import component
from lema.engine.files import home
from lema.engine.parquet import read
from lema.inject import without_answer
from lema.plan.load import Draft, load_recipe, read_draft
from lema.plan.outside import recipes_read, whole
from lema.recipe import ModelSampler, Recipe
from lema.rows import Evolved, Grade, Verdict
from lema.steps import split
from lema.tasks import Reading, Task
from lema.tasks.word_problems import word_problems
from lema.train import embedded

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("LEMA_TEST_DATA", ROOT.parent / "shared" / "data"))
RESULT = ROOT / "benchmarks" / "results" / "recipes.md"
RECIPES = (
    *("gsm8k", "demo", "math", "csqa", "gsm8k-round-1", "gsm8k-round-2", "math-round-1", "math-evolved"),
    *("math-round-2", "gsm8k-ablations", "gsm8k-transfer", "gsm8k-careful", "gsm8k-weak-corrector"),
    *("gsm8k-wizardmath", "math-ablations", "math-round-1-general", "math-general", "laptop-study"),
)
TRAIN, TEST, NEW = 6, 4, 10
NO_HUB = {"hub": None, "config": None, "revision": None}
STUDENT = "students/smollm2"  # as a project names it; a link to where `make setup` keeps it
TINY = {
    "task": "word_problems", "options": {"seed": 99, "steps": [1], "largest": 20}, "format": "paper_cot",
    "width": 64, "layers": 2, "heads": 2, "context": 1536, "steps": 60, "batch": 16, "lr": 5e-3,
}  # fmt: skip
OPEN, WEAK, STRONG, WRITER = "llama2-70b", "gpt-3.5", "gpt-4", "writer"  # SmolLM2 stands for the open one
COUNTED = ("questions", "samples", "corrections", "answers")
HEAD = "# Recipes"


@dataclass(frozen=True)
class World:
    """The records of one task: to learn from, to test on, and new ones for those who evolve."""

    task: Task
    train: Sequence[Mapping[str, Any]]
    test: Sequence[Mapping[str, Any]]
    new: Sequence[Mapping[str, Any]]

    def readings(self) -> Iterator[Reading]:
        yield from (self.task.read(record) for record in (*self.train, *self.new))


def world(name: str) -> World:
    task: Task = component.load("tasks", name)
    records = list(islice(_records(name, task), TRAIN + TEST + NEW))
    return World(task, records[:TRAIN], records[TRAIN : TRAIN + TEST], records[TRAIN + TEST :])


def _records(name: str, task: Task) -> Iterator[Mapping[str, Any]]:
    file = {"gsm8k": SHARED / "gsm8k/train.jsonl", "math": SHARED / "math/train_2000.jsonl"}.get(name)
    if name == "csqa":
        yield from _lines(ROOT / "benchmarks/records/csqa.jsonl")
    elif file and file.is_file():
        yield from (row for row in _lines(file) if task.read(row).rationale)
    else:
        assert word_problems.generate
        assert task.write
        for _, record in word_problems.generate(seed=4, steps=[2, 3]):
            yield task.write(word_problems.read(record))


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def strong(known: World) -> list[dict[str, str]]:
    """To a question its rationale, to a wrong path a correction from the first step on."""
    rules = []
    for reading in known.readings():
        lines = _solution(known, reading, reading.gold)
        why = "What it begins with does not follow from the question."
        if known.task.name == "csqa":
            mended = f"Mistakes: {why}\nCorrected Answer:\n{lines}"
        else:
            mended = f"Incorrect Step: Step 1.\nExplanation: {why}\nCorrect Solution:\n{lines}"
        rules += [{"when": f"{reading.text}\nOriginal", "reply": mended}, {"when": reading.text, "reply": lines}]
    return rules


def weak(known: World) -> list[dict[str, str]]:
    """To a question the answer of the next one, to every other wrong path a correction that cannot be read."""
    rules, readings = strong(known), list(known.readings())
    for place, (reading, after) in enumerate(zip(readings, [*readings[1:], readings[0]], strict=True)):
        if place % 2:
            rules[2 * place]["reply"] = "I see no mistake."
        rules[2 * place + 1]["reply"] = _solution(known, reading, after.gold)
    return rules


def _solution(known: World, reading: Reading, answer: str) -> str:
    """Not quite the rationale, so that it is a row of its own."""
    steps = ["Here is how.", *without_answer(split(reading.rationale or f"{reading.gold} fits best."))]
    steps.append(f"The answer is {f'${answer}$' if known.task.name == 'math' else answer}.")
    if known.task.name == "csqa":
        return "\n".join(steps)
    return "\n".join(f"Step {number}: {step}" for number, step in enumerate(steps, 1))


def small(name: str, recipe: Recipe) -> dict[str, Any]:
    """What the recipe of the project says beyond the shipped one."""
    task = recipe.questions.task
    patch: dict[str, Any] = {"extends": f"shipped/{name}.yaml", "scores": {"resamples": 200}}
    patch["questions"] = {"train": None if recipe.source.evolved else TRAIN, "test": TEST}
    if recipe.source.generator:
        patch["source"] = {"train": 60, "test": 40}
        patch["questions"] |= {"dev": min(recipe.questions.dev, 6)}
    elif recipe.source.hub:
        patch["source"] = {**NO_HUB, "file": f"data/sources/{task}/{{split}}.jsonl"}
    transfer = {set_: _transfer(set_, bool(one.source.hub)) for set_, one in recipe.questions.transfer.items()}
    patch["questions"] |= {"transfer": transfer} if transfer else {}
    patch["models"] = {label: _model(label, task) for label in recipe.models if label in (OPEN, WEAK, STRONG)}
    if recipe.base.hub:
        patch["base"] = {"hub": None, "revision": None, "pretrain": TINY}
    elif recipe.base.pretrain:
        patch["base"] = {"pretrain": {"steps": 80, "width": 64, "layers": 2, "batch": 16}}
    patch["samples"] = {"samplers": {label: _sampler(one) for label, one in recipe.samples.samplers.items()}}
    if recipe.evolved:
        patch["evolved"] = {"questions": 6, "write": {"model": WRITER}}
        patch["models"][WRITER] = _model(WRITER, task)
    patch["adapter"] = {"steps": 2, "batch": 4, "accumulate": 1} if recipe.adapter.steps else {"epochs": 1}
    patch["adapter"] |= {"choose": {"every": 1, "share": 0.2}} if recipe.adapter.choose else {}
    patch["adapter"] |= {"seeds": list(recipe.adapter.seeds[:2])} if recipe.adapter.seeds else {}
    patch["answers"] = {"max_tokens": 40, **({"votes": {"paths": 2}} if recipe.answers.votes else {})}
    patch["probe"] = {"questions": min(recipe.probe.questions, TEST)}
    return patch


def _model(label: str, task: str) -> dict[str, Any]:
    if label == OPEN:
        return {"backend": "transformers", "endpoint": None, "name": STUDENT}
    known = world(task)
    if label == WRITER:
        said: dict[str, Any] = {"replies": [known.task.read(row).text for row in known.new]}
    else:
        said = {"rules": strong(known) if label == STRONG else weak(known)}
    return {"backend": "scripted", "endpoint": None, "name": None, "options": said}


def _sampler(sampler: Any) -> dict[str, Any]:
    """One path is all that a script has to say."""
    if not isinstance(sampler, ModelSampler):
        return {}
    if sampler.model in (WEAK, STRONG):
        return {"paths": 1}
    return {"paths": min(sampler.paths, 2), "max_tokens": min(sampler.max_tokens, 100)}


def _transfer(name: str, hub: bool) -> dict[str, Any]:
    if not hub:
        return {"source": {"test": 6}}
    return {"source": {**NO_HUB, "test_from": None, "file": f"data/sources/{name}.jsonl"}}


def project(root: Path) -> None:
    """A project without git: the code, the recipes under recipes/shipped, the small models and the records."""
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "lema", root / "lema", ignore=skip)
    shutil.copytree(ROOT / "recipes", root / "recipes/shipped", ignore=skip)
    (root / "recipes/shipped/prompts").rename(root / "recipes/prompts")
    for name in ("dvc.yaml", "constraints.txt", ".dvcignore"):
        shutil.copy(ROOT / name, root)
    (root / ".dvc").mkdir()
    (root / ".dvc/config").write_text("[core]\nno_scm = true\nanalytics = false\ncheck_update = false\n", "utf-8")
    model = embedded.ensure(home()).resolve()
    for link in (root / STUDENT, root / ".lema/models" / model.name):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(model)
    for name in ("gsm8k", "math", "csqa"):
        known = world(name)
        for part, rows in (("train", known.train), ("test", known.test), ("validation", known.test)):
            _write(root / f"data/sources/{name}/{part}.jsonl", rows)
    real = SHARED / "svamp.jsonl"
    for name in ("svamp", "asdiv"):
        own = ROOT / f"benchmarks/records/{name}.jsonl"
        _write(root / f"data/sources/{name}.jsonl", _lines(real if name == "svamp" and real.is_file() else own)[:TEST])


def _write(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def settle(root: Path, name: str) -> Draft:
    """Write the recipe, those that it reads and what params.yaml needs to build it."""
    shipped = read_draft(ROOT / f"recipes/{name}.yaml", ROOT)
    drafts = {other: settle(root, other) for other in recipes_read(shipped, ROOT)}
    file = root / f"recipes/{name}.yaml"
    patch = small(name, load_recipe(ROOT / f"recipes/{name}.yaml", ROOT).recipe)
    file.write_text(json.dumps(patch, indent=1), encoding="utf-8")
    drafts[name] = read_draft(file, root)
    wanted = json.loads((root / "params.yaml").read_text("utf-8")) if drafts.keys() - {name} else {}
    recipes = {**wanted.get("recipes", {}), name: whole(drafts[name])}
    arms = {f"{name}-{arm}": {"recipe": name, "arm": arm} for arm in drafts[name].tree.keys("mix", "arms")}
    params = {"recipes": recipes, "runs": {**wanted.get("runs", {}), **arms}, "run": {"executor": "local"}}
    (root / "params.yaml").write_text(json.dumps(params, indent=1), encoding="utf-8")
    return drafts[name]


def environment(root: Path) -> dict[str, str]:
    """With the project's own code, and a `lema` that has started already."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LEMA_", "DVC_", "RAY_"))}
    path = os.pathsep.join([str(root / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**kept, "PATH": path, "PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def run(root: Path, *command: str) -> tuple[int, str]:
    done = subprocess.run(command, cwd=root, env=environment(root), text=True, capture_output=True, check=False)
    return done.returncode, done.stdout + done.stderr


@contextmanager
def warm(root: Path) -> Iterator[None]:
    """A `lema` in the project's bin that asks a process which has imported it."""
    server = [sys.executable, str(ROOT / "benchmarks/_warm.py"), "warm.socket"]
    (root / "bin").mkdir()
    (root / "bin/lema").write_text(f'#!/bin/sh\nexec {shlex.join([server[0], "-SE", *server[1:]])} "$@"\n', "utf-8")
    (root / "bin/lema").chmod(0o755)
    process = subprocess.Popen(server, cwd=root, env=environment(root))
    try:
        while not (root / server[2]).exists() and process.poll() is None:
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait()


@dataclass(frozen=True)
class Built:
    """What came of one recipe: seconds on the clock, stages that ran, rows, and the report in a line."""

    name: str
    seconds: float
    stages: int
    counts: Mapping[str, int]
    rows: Mapping[str, int]
    headline: str


def built(root: Path, name: str) -> Built:
    """Check, plan and build one recipe; SystemExit with the end of the output where a command fails."""
    settle(root, name)
    start = time.perf_counter()
    for command in (["lema", "check", name], *_planned(root, name), ["dvc", "repro"]):
        code, text = run(root, *command)
        if code:
            raise SystemExit(f"{name}: {' '.join(command)} ended with {code}\n{text[-6000:]}")
    seconds = time.perf_counter() - start
    folder = root / "data" / name
    report = (folder / "report.md").read_text(encoding="utf-8").splitlines()
    counts = {kind: read_metadata(folder / f"{kind}.parquet").num_rows for kind in COUNTED}
    counts["wrong"] = sum(row.outcome == "incorrect" for row in read(folder / "grades.parquet", Grade))
    counts["accepted"] = sum(row.accepted for row in read(folder / "verdicts.parquet", Verdict))
    counts["evolved"] = sum(row.accepted for row in read(folder / "evolved.parquet", Evolved))
    rows = {file.stem: read_metadata(file).num_rows for file in sorted((folder / "mix").glob("*.parquet"))}
    return Built(name, seconds, text.count("Running stage '"), counts, rows, report[0].lstrip("# "))


def _planned(root: Path, name: str) -> list[list[str]]:
    """`lema plan`, in versions that have it."""
    return [["lema", "plan", name]] if run(root, "lema", "plan", "--help")[0] == 0 else []


def table(done: Sequence[Built]) -> str:
    kinds = ("questions", "samples", "wrong", "corrections", "accepted", "evolved", "answers")
    lines = [
        f"| recipe | seconds | stages run | {' | '.join(kinds)} | rows of each arm | report |",
        "|---|" + "--:|" * (2 + len(kinds)) + "---|---|",
    ]
    for one in done:
        rows = ", ".join(f"{arm} {count}" for arm, count in one.rows.items())
        counts = " | ".join(str(one.counts[kind]) for kind in kinds)
        lines.append(f"| {one.name} | {one.seconds:.0f} | {one.stages} | {counts} | {rows} | {one.headline} |")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("recipes", nargs="*", default=[], help="All that are shipped when absent.")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="A new folder for the project, which then stays.")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="lema-recipes-") as folder:
        root = given.keep or Path(folder)
        project(root)
        done = []
        with warm(root):
            for name in given.recipes or RECIPES:
                done.append(built(root, name))
                print(table(done[-1:]).splitlines()[-1], flush=True)
                if not given.recipes:
                    RESULT.write_text(f"{HEAD}\n{table(done)}\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
