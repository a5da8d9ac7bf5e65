"""docs/paper.md names recipes and arms that exist, and leaves no recipe of the paper out."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lema.check.check import check
from lema.recipe.load import load_recipe

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`([^`]+)`")
# Not of the paper: the demonstration, the tests' recipe and the study.
OTHERS = re.compile(r"demo|smoke|own-files|laptop-study.*|gsm8k-(located|open|target|typed)")


def rows() -> Iterator[tuple[str, str, list[str]]]:
    """What of the paper, recipe and arms of every line of the table of tables and figures."""
    for line in TEXT.partition("## Tables and figures")[2].partition("\n## ")[0].splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 4 and NAMED.fullmatch(cells[1]):
            yield cells[0], cells[1].strip("`"), NAMED.findall(cells[2])


def test_the_tables_and_figures_are_there() -> None:
    parts = " ".join(part for part, _, _ in rows())
    assert all(f"table {number}" in parts for number in (1, 2, 3, 4, 5))
    assert all(f"figure {number}" in parts for number in (4, 5, 10, 11, 12))


@pytest.mark.parametrize(
    ("part", "recipe", "arms"), list(rows()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_its_recipe_has_its_arms(part: str, recipe: str, arms: list[str]) -> None:
    assert arms, part
    assert set(arms) <= load_recipe(ROOT / "recipes" / f"{recipe}.yaml", ROOT).recipe.mix.arms.keys()


def test_every_recipe_of_the_paper_is_named() -> None:
    shipped = {path.stem for path in (ROOT / "recipes").glob("*.yaml")}
    assert {name for name in shipped if not OTHERS.fullmatch(name)} - set(NAMED.findall(TEXT)) == set()


def test_its_prompts_and_figures_are_those_of_the_recipes() -> None:
    prompts = {path.stem for path in (ROOT / "recipes/prompts").glob("*.yaml")}
    assert {name for name in NAMED.findall(TEXT) if name.startswith("paper_")} <= prompts
    for recipe, probed in (("gsm8k-transfer", True), ("math-ablations", True), ("gsm8k", False)):
        assert bool(load_recipe(ROOT / f"recipes/{recipe}.yaml", ROOT).recipe.probe.questions) is probed


def test_its_own_recipes_are_without_mistakes(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copy(ROOT / "constraints.txt", tmp_path)
    blocks = re.findall(r"^```yaml\n# (recipes/\S+)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    assert len(blocks) == TEXT.count("```yaml")
    for name, block in blocks:
        assert yaml.safe_load(block)["extends"]
        (tmp_path / name).write_text(block, encoding="utf-8")
        assert [str(problem) for problem in check([tmp_path / name], tmp_path, None).problems] == []
