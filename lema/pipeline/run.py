"""The pipeline: makes one artifact by calling its stage (`StageRunner`), and writes what that returns."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lema.compute import files, parquet
from lema.compute.artifacts import ARTIFACTS, BY_ARM, artifact_path, read_plan
from lema.errors import RecipeError, RunError, allowed
from lema.pipeline.fingerprint import CodeGraph
from lema.pipeline.plan import make_plan, plan_code, plan_settings, plan_text
from lema.pipeline.stage_runner import StageRunner, stage_signature
from lema.pipeline.status import record_made
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
        plan = _current_plan(artifact, loaded, arm)
        settings = load_params(root / "params.yaml").run
        with StageRunner(artifact, loaded, settings, arm, offline, plan) as runner:
            _write(runner, artifact_path(artifact, recipe, arm))
        if not _started_by_dvc(artifact, recipe, root):  # which has its own record
            record_made(artifact, recipe, arm, plan)


def _write_plan(recipe: str) -> None:
    """The recipe is checked first, so that every error shows before anything is paid for."""
    from lema.check.check import check

    root = Path.cwd()
    path = root / "recipes" / f"{recipe}.yaml"
    # A missing API key is no error here: who has pulled all completions needs none. Generating checks again.
    if problems := check([path], root, None).problems:
        raise RecipeError(problems)
    plan = make_plan(load_recipe(path, root), root)
    with files.atomic(artifact_path("plan", recipe)) as out:
        out.write_text(plan_text(plan), encoding="utf-8")


def _current_plan(artifact: str, loaded: Loaded, arm: str | None) -> Mapping[str, Any]:
    """What the plan holds of an artifact.

    A plan that was made of other settings is refused, and one of other code: but DVC has just made the plan, if that
    was due, so for DVC the code is not read again.

    Raises:
        RunError: there is no plan, or it is stale.
    """
    root, advice = Path.cwd(), f"lema make plan {loaded.name}, or lema repro {loaded.name} for everything"
    made = read_plan(loaded.name)
    if not made:
        raise RunError(f"no plan yet: {advice}")
    planned, settings = made.get(artifact) or {}, plan_settings(artifact, loaded.recipe)
    if arm is not None and artifact == "mix":
        planned, settings = planned.get(arm, {}), settings.get(arm, {})
    stale = {name: value for name, value in planned.items() if name != "code"} != settings
    if settings and not stale and not _started_by_dvc(artifact, loaded.name, root):
        stale = planned.get("code") != plan_code(artifact, loaded.recipe, CodeGraph(root))
    if stale:
        raise RunError(f"the recipe or the code of {artifact} has changed since the plan was made: {advice}")
    return planned


def _started_by_dvc(artifact: str, recipe: str, root: Path) -> bool:
    """Whether this is the command of the artifact's stage, run by `dvc repro` in this project."""
    stage = os.environ.get("DVC_STAGE", "").rpartition(":")[2]
    return stage.startswith(f"{artifact}@{recipe}") and os.environ.get("DVC_ROOT") == str(root)


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
            shutil.rmtree(runner.checkpoints(), ignore_errors=True)
    elif runner.artifact == "scores":
        with files.atomic(out) as file:
            file.write_text(json.dumps(runner.call(), indent=2) + "\n", encoding="utf-8")
    else:
        page = runner.call()
        for path, text in ((out, page.html), (out.with_suffix(".md"), page.markdown)):
            with files.atomic(path) as file:
                file.write_text(text, encoding="utf-8")
