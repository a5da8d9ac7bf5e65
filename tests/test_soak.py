"""`make soak` builds every shipped recipe; here their small versions are only written and checked, which is quick."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from lema.check.check import check
from lema.recipe.load import load_recipe

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def soak(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """benchmarks/recipes.py, with generated records, and a project that it has made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
        patch.setenv("LEMA_TEST_DATA", str(tmp_path_factory.mktemp("nothing")))
        spec: Any = spec_from_file_location("soak", ROOT / "benchmarks/recipes.py")
        module: Any = module_from_spec(spec)
        patch.setitem(sys.modules, "soak", module)
        spec.loader.exec_module(module)
        model = tmp_path_factory.mktemp("model")
        (model / "model.safetensors").write_bytes(b"")
        patch.setattr(module.embedded, "ensure_embedded", lambda home: model)
        module.root = tmp_path_factory.mktemp("project")
        module.project(module.root)
        yield module


def test_every_shipped_recipe_is_built() -> None:
    text = (ROOT / "benchmarks/recipes.py").read_text(encoding="utf-8")
    shipped = {path.stem for path in (ROOT / "recipes").glob("*.yaml")}
    # The tests build `smoke`; the variants of the study are a matter of hours, and one of them stands for all.
    needed = {name for name in shipped - {"smoke"} if not name.startswith("laptop-study-")}
    assert {name for name in needed if f'"{name}"' not in text} == set()


def test_small_versions_have_no_mistakes_and_keep_arms_and_prompts(soak: Any) -> None:
    for name in soak.RECIPES:
        soak.settle(soak.root, name)
        assert [str(problem) for problem in check([name], soak.root, {}).problems] == []
        own, shipped = (load_recipe(root / f"recipes/{name}.yaml", root) for root in (soak.root, ROOT))
        assert own.recipe.mix == shipped.recipe.mix
        assert own.recipe.corrections.prompt == shipped.recipe.corrections.prompt
        assert own.recipe.verdicts == shipped.recipe.verdicts
        assert not {one.endpoint for one in own.recipe.models.values()} - {None}
