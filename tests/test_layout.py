"""Every artifact has one name, and recipe, stages, pipeline, plan and dvc.yaml say the same of it."""

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from lema.check.check import check
from lema.compute import artifacts
from lema.pipeline.plan import make_plan
from lema.pipeline.stage_runner import PROVIDERS
from lema.recipe.load import load_recipe
from lema.recipe.schema import Recipe

ROOT = Path(__file__).resolve().parents[1]
STAGES: Mapping[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
RECIPES = sorted(path for path in (ROOT / "recipes").rglob("*.yaml") if "prompts" not in path.parts)
MADE = [name for name in artifacts.ARTIFACTS if name != "plan"]
# What a stage calls an input that is not one artifact: folders of one a run.
FOLDERS = {"adapters": "adapters", "mix": "mix"}


def stage(artifact: str) -> Callable[..., Any]:
    return getattr(import_module(f"lema.stages.{artifact}"), artifact)  # type: ignore[no-any-return]


def names(artifact: str, kind: Any) -> list[str]:
    return [one.name for one in inspect.signature(stage(artifact)).parameters.values() if one.kind is kind]


def read_by_dvc(artifact: str) -> list[str]:
    """The dependencies of a stage in dvc.yaml, relative to the folder of its recipe."""
    deps = STAGES[artifact]["do"].get("deps", [])
    folders = ("data/${key}/", "data/${item.recipe}/")
    return [dep.removeprefix(folder) for dep in deps for folder in folders if dep.startswith(folder)]


def test_dvc_stages_are_the_artifacts_in_their_order() -> None:
    assert list(STAGES) == list(artifacts.ARTIFACTS)


def test_recipe_keys_are_the_artifacts_in_their_order() -> None:
    keys = [key for key in Recipe.model_fields if key not in ("description", "models")]
    assert keys == [artifact for artifact in MADE if artifact != "grades"]  # it has nothing to set


def test_stage_modules_are_the_artifacts() -> None:
    names = {path.stem for path in (ROOT / "lema" / "stages").iterdir() if not path.stem.startswith("_")}
    assert names - {"common", "mix_rows", "stopping"} == set(MADE)
    assert all(stage(artifact).__name__ == artifact for artifact in MADE)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_plan_keys_are_the_artifacts_in_their_order(path: Path) -> None:
    assert [key for key in make_plan(load_recipe(path, ROOT), ROOT) if key not in ("recipe", "description")] == MADE


@pytest.mark.parametrize("artifact", artifacts.ARTIFACTS)
def test_a_dvc_stage_makes_its_artifact_where_the_pipeline_puts_it(artifact: str) -> None:
    by_arm = artifact in artifacts.BY_ARM
    recipe, target = ("${item.recipe}", "${item.recipe}/${item.arm}") if by_arm else ("${key}", "${key}")
    stage = STAGES[artifact]
    assert stage["foreach"] == ("${runs}" if by_arm else "${recipes}")
    assert stage["do"]["cmd"] == f"lema make {artifact} {target}"
    made = artifacts.artifact_path(artifact, recipe, "${item.arm}" if by_arm else None).as_posix()
    assert made in [*stage["do"].get("outs", []), *stage["do"].get("metrics", [])]


@pytest.mark.parametrize("artifact", MADE)
def test_a_dvc_stage_depends_on_its_own_part_of_the_plan(artifact: str) -> None:
    if "plan" in names(artifact, inspect.Parameter.POSITIONAL_OR_KEYWORD):
        assert "plan.yaml" in read_by_dvc(artifact)  # all of it
        return
    by_arm = artifact in artifacts.BY_ARM
    key = "mix.${item.arm}" if artifact == "mix" else artifact
    folder = "data/${item.recipe}" if by_arm else "data/${key}"
    assert STAGES[artifact]["do"]["params"] == [{f"{folder}/plan.yaml": [key]}]


@pytest.mark.parametrize("artifact", MADE)
def test_a_stage_reads_what_its_dvc_stage_depends_on(artifact: str) -> None:
    """In both directions: a forgotten dependency gives stale bytes, one too many reruns for nothing."""
    by_arm = artifact in artifacts.BY_ARM
    expected = set()
    for name in names(artifact, inspect.Parameter.POSITIONAL_OR_KEYWORD):
        if name in FOLDERS and not by_arm:
            expected.add(FOLDERS[name])
        else:
            place = artifacts.artifact_path(name, "r", "${item.arm}" if by_arm else None)
            expected.add(place.relative_to(artifacts.DATA / "r").as_posix())
    # The training curves of a report come with its adapters.
    assert set(read_by_dvc(artifact)) - {"curves"} == expected


@pytest.mark.parametrize("artifact", MADE)
def test_the_pipeline_can_give_a_stage_all_that_it_asks_for(artifact: str) -> None:
    parameters = inspect.signature(stage(artifact)).parameters.values()
    required = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is one.empty]
    assert set(required) <= {*PROVIDERS, "folder"}


def test_all_recipes_and_params_have_no_mistakes() -> None:
    assert {"demo", "gsm8k", "smoke"} <= {path.stem for path in RECIPES}
    assert [str(problem) for problem in check(None, ROOT, None).problems] == []
