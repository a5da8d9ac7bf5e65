"""Builds a recipe that params.yaml does not name: every artifact that is missing or stale, in the order of the flow.

Staleness is what `lema plan` shows (`lema.pipeline.status`). Nothing is versioned or cached but completions.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lema.compute.artifacts import ARTIFACTS, BY_ARM, artifact_path, read_plan
from lema.errors import RunError, allowed
from lema.pipeline.status import Status, plan_part, reads, record_made
from lema.recipe.load import load_recipe


def build(
    recipe: str, make: Callable[[Sequence[str]], int], artifact: str | None = None, arm: str | None = None
) -> int:
    """Run `make`, which takes the arguments of `lema make`, for all that is missing or stale up to an artifact (None:
    of the whole recipe); returns the first exit code that is not 0. Raises RecipeError."""
    root = Path.cwd()
    if artifact is not None and artifact not in ARTIFACTS:
        raise RunError(f"unknown artifact {artifact!r}; {allowed(artifact, ARTIFACTS)}")
    arms = list(load_recipe(root / "recipes" / f"{recipe}.yaml", root).recipe.mix.arms)
    stages = [
        (one, own)
        for one in needed(artifact)
        for own in (([arm] if arm and artifact in BY_ARM else arms) if one in BY_ARM else [None])
    ]
    plan = read_plan(recipe)
    for one, own in stages:
        # What was made without a record, by DVC, was made with the plan that is there; it will be written anew.
        if plan_part(plan, one, own) is not None and artifact_path(one, recipe, own).exists():
            record_made(one, recipe, own, plan_part(plan, one, own), again=False)
    if code := make(["plan", recipe]):
        return code
    for one, own in stages:
        target = f"{recipe}/{own}" if own else recipe
        if reasons := Status(recipe, read_plan(recipe), arms, by_dvc=False).why_arm(one, own, {}):
            print(f"{one} {target}: {'; '.join(reasons)}", file=sys.stderr)  # noqa: T201
            if code := make([one, target]):
                return code
    return 0


def needed(artifact: str | None) -> list[str]:
    """An artifact and all that it is made from, in the order of the flow; everything for None. Without the plan."""
    found = set(ARTIFACTS) if artifact is None else {artifact}
    for one in reversed(list(ARTIFACTS)):
        if one in found and one != "plan":
            found.update(reads(one))
    return [one for one in ARTIFACTS if one in found and one != "plan"]
