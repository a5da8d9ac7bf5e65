"""The pipeline: how one artifact is made.

The signature of a stage declares what it needs (dependency injection). Its positional parameters are named after the
artifacts that it reads; `read_input` finds these on the disk. Its keyword parameters are named after what it is given:
its settings, its task, models, `generate` and so on; PROVIDERS has a function for each. `StageRunner` looks both up and
calls the stage, `make` writes what it returns. The dry run of `lema plan` is the same runner with other inputs and
providers.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lema.check.check import check
from lema.compute import files, parquet
from lema.compute.artifacts import ARTIFACTS, BY_ARM, artifact_path
from lema.errors import RecipeError, RunError, allowed
from lema.pipeline.fingerprint import CodeGraph
from lema.pipeline.plan import make_plan, plan_key, plan_text
from lema.pipeline.stage_arguments import PROVIDERS, checkpoints, read_input
from lema.pipeline.stage_runner import StageRunner, stage_signature
from lema.recipe.load import Loaded, load_params, load_recipe


def make(artifact: str, recipe: str, arm: str | None = None, *, offline: bool = False) -> None:
    """Make one artifact and write it in its place, whole or not at all.

    Raises:
        RecipeError: the recipe has errors.
        RunError: the plan is stale, an input is missing or the stage failed; what was bought until then is kept.
    """
    files.die_with_parent()
    if artifact not in ARTIFACTS:
        raise RunError(f"unknown artifact {artifact!r}; {allowed(artifact, ARTIFACTS)}")
    if (arm is not None) != (artifact in BY_ARM):
        owner = "an arm: RECIPE/ARM" if artifact in BY_ARM else "a recipe, not an arm"
        raise RunError(f"{artifact} is made for {owner}")
    with files.lock(artifact_path(artifact, recipe, arm)):
        if artifact == "plan":
            _write_plan(recipe)
            return
        root = Path.cwd()
        loaded = load_recipe(root / "recipes" / f"{recipe}.yaml", root)
        plan = _current_plan(artifact, loaded, root)
        settings = load_params(root / "params.yaml").run
        with StageRunner(artifact, loaded, settings, read_input, PROVIDERS, arm, offline, plan) as runner:
            _write(runner, artifact_path(artifact, recipe, arm))


def _write_plan(recipe: str) -> None:
    """The recipe is checked first, so that every error shows before anything is paid for."""
    root = Path.cwd()
    path = root / "recipes" / f"{recipe}.yaml"
    # A missing API key is no error here: who has pulled all completions needs none. Generating checks again.
    report = check([path], root, None)
    if report.problems:
        raise RecipeError(report.problems)
    plan = make_plan(load_recipe(path, root), root)
    with files.atomic(artifact_path("plan", recipe)) as out:
        out.write_text(plan_text(plan), encoding="utf-8")


def _current_plan(artifact: str, loaded: Loaded, root: Path) -> Mapping[str, Any]:
    """The artifact's part of the plan; raises RunError when there is no plan or it is stale."""
    try:
        made = yaml.safe_load(artifact_path("plan", loaded.name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"no plan yet: lema make plan {loaded.name}, or dvc repro for everything") from None
    key = plan_key(artifact, loaded.recipe, CodeGraph(root))
    if made.get(artifact) != key:
        raise RunError(
            f"the recipe or the code of {artifact} has changed since the plan was made: "
            f"lema make plan {loaded.name}, or dvc repro for everything"
        )
    return key


def _write(runner: StageRunner, out: Path) -> None:
    """Run the stage and write what it returns: rows, a folder that it fills, figures, or a page in two formats."""
    row_type = ARTIFACTS[runner.artifact]
    if row_type is not None:
        count = parquet.write_rows(out, row_type, runner.call())
        runner.log(f"{count} rows")
    elif "folder" in stage_signature(runner.artifact).keywords:
        with files.atomic(out) as folder:
            folder.mkdir()
            runner.call(folder=folder)
        if runner.artifact == "adapter":
            shutil.rmtree(checkpoints(runner), ignore_errors=True)
    elif runner.artifact == "scores":
        with files.atomic(out) as file:
            file.write_text(json.dumps(runner.call(), indent=2) + "\n", encoding="utf-8")
    else:
        page = runner.call()
        for path, text in ((out, page.html), (out.with_suffix(".md"), page.markdown)):
            with files.atomic(path) as file:
                file.write_text(text, encoding="utf-8")
