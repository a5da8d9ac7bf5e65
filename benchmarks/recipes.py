"""Every shipped recipe from end to end, at small scale and with local models.

    python benchmarks/recipes.py [RECIPE ...] [--direct] [--keep FOLDER]

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
from pathlib import Path
from typing import Any

from _small import SHARED, STUDENT, TEST, rows_of, small, world
from pyarrow.parquet import read_metadata

from lema.check.external_files import recipes_read, whole
from lema.compute.artifacts import ARTIFACTS, BY_ARM
from lema.compute.files import home
from lema.compute.parquet import read_rows
from lema.recipe.load import Draft, load_recipe, read_draft
from lema.recipe.yaml import read_yaml
from lema.rows import Evolved, Grade, Verdict
from lema.train import embedded

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "recipes.md"
RECIPES = (
    *("gsm8k", "demo", "math", "csqa", "gsm8k-round-1", "gsm8k-round-2", "math-round-1", "math-evolved"),
    *("math-round-2", "gsm8k-ablations", "gsm8k-transfer", "gsm8k-careful", "gsm8k-weak-corrector"),
    *("gsm8k-wizardmath", "math-ablations", "math-round-1-general", "math-general", "laptop-study"),
    *("gsm8k-located", "gsm8k-target", "gsm8k-typed", "gsm8k-open", "own-files"),
)
COUNTED = ("questions", "samples", "corrections", "answers")
HEAD = """# Every recipe from end to end, at small scale

`make soak`: `lema check`, and {how}, for each recipe in one project, rounds after what they read.
SmolLM2-135M and scripts stand for the models behind endpoints, a student from scratch of 0.1M parameters for the base
(in `demo`, SmolLM2 itself). Scores of such students mean nothing; what counts is that all of it runs. Seconds are by
the clock, with whatever else the machine had to do. What recipes have in common is bought by the first of them.
"""


def project(root: Path) -> None:
    """A project without git: the code, the recipes under recipes/shipped, the small models and the records."""
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "lema", root / "lema", ignore=skip)
    shutil.copytree(ROOT / "recipes", root / "recipes/shipped", ignore=skip)
    for folder in ("prompts", "own"):
        (root / "recipes/shipped" / folder).rename(root / "recipes" / folder)
    for name in ("dvc.yaml", "constraints.txt", ".dvcignore"):
        shutil.copy(ROOT / name, root)
    (root / ".dvc").mkdir()
    (root / ".dvc/config").write_text("[core]\nno_scm = true\nanalytics = false\ncheck_update = false\n", "utf-8")
    model = embedded.ensure_embedded(home()).resolve()
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
        _write(root / f"data/sources/{name}.jsonl", rows_of(real if name == "svamp" and real.is_file() else own)[:TEST])


def _write(file: Path, rows: Sequence[Mapping[str, object]]) -> None:
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
    params = {"recipes": recipes, "runs": {**wanted.get("runs", {}), **arms}, "run": _run_settings()}
    (root / "params.yaml").write_text(json.dumps(params, indent=1), encoding="utf-8")
    return drafts[name]


def _run_settings() -> Any:
    """Those of docs/params.yaml, without what takes Ray."""
    settings = read_yaml(ROOT / "docs/params.yaml", "docs/params.yaml").plain()["run"]
    endpoints = {name: {**one, "actors": 1} for name, one in settings["endpoints"].items()}
    return {**settings, "executor": "local", "trainings": 1, "endpoints": endpoints}


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


def built(root: Path, name: str, direct: bool) -> Built:
    """Check, plan and build one recipe; SystemExit with the end of the output where a command fails."""
    draft = settle(root, name)
    start = time.perf_counter()
    makes = list(_makes(draft)) if direct else [["dvc", "repro"]]
    said = ""
    for command in (["lema", "check", name], ["lema", "plan", name], *makes):
        code, text = run(root, *command)
        said += text
        if code:
            raise SystemExit(f"{name}: {' '.join(command)} ended with {code}\n{text[-6000:]}")
    seconds = time.perf_counter() - start
    folder = root / "data" / name
    report = (folder / "report.md").read_text(encoding="utf-8").splitlines()
    counts = {kind: read_metadata(folder / f"{kind}.parquet").num_rows for kind in COUNTED}
    counts["wrong"] = sum(row.outcome == "incorrect" for row in read_rows(folder / "grades.parquet", Grade))
    counts["accepted"] = sum(row.accepted for row in read_rows(folder / "verdicts.parquet", Verdict))
    counts["evolved"] = sum(row.accepted for row in read_rows(folder / "evolved.parquet", Evolved))
    rows = {file.stem: read_metadata(file).num_rows for file in sorted((folder / "mix").glob("*.parquet"))}
    stages = len(makes) if direct else said.count("Running stage '")
    return Built(name, seconds, stages, counts, rows, report[0].lstrip("# "))


def _makes(draft: Draft) -> Iterator[list[str]]:
    """The commands of dvc.yaml, in its order."""
    for artifact in ARTIFACTS:
        for arm in draft.tree.keys("mix", "arms") if artifact in BY_ARM else [""]:
            yield ["lema", "make", artifact, f"{draft.name}/{arm}".rstrip("/")]


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
    parser.add_argument("--direct", action="store_true", help="Without DVC: its commands, all of them, one by one.")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="lema-recipes-") as folder:
        root = given.keep or Path(folder)
        project(root)
        done = []
        with warm(root):
            for name in given.recipes or RECIPES:
                done.append(built(root, name, given.direct))
                print(table(done[-1:]).splitlines()[-1], flush=True)
                if not given.recipes:
                    how = "the commands of dvc.yaml one by one (`--direct`)" if given.direct else "`dvc repro`"
                    RESULT.write_text(f"{HEAD.format(how=how)}\n{table(done)}\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
