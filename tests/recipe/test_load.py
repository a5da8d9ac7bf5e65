"""What a recipe is once its files have been read."""

import pytest

from lema.errors import RecipeError
from lema.recipe.load import load_params, load_recipe, merge_trees, prompt_names
from lema.recipe.yaml import parse_yaml

# Base, patch, result: the examples of RFC 7396 (appendix A) that YAML mappings can show.
PATCHES = [
    *(("{a: b}", "{a: c}", {"a": "c"}), ("{a: b}", "{b: c}", {"a": "b", "b": "c"}), ("{a: b}", "{a: null}", {})),
    *(("{a: b, b: c}", "{a: null}", {"b": "c"}), ("{a: {b: c}}", "{a: {b: d, c: null}}", {"a": {"b": "d"}})),
    *(
        ("{a: [b]}", "{a: c}", {"a": "c"}),
        ("{a: c}", "{a: [b]}", {"a": ("b",)}),
        ("{a: [{b: c}]}", "{a: [1]}", {"a": (1,)}),
    ),
    *(("{e: null}", "{a: 1}", {"e": None, "a": 1}), ("{}", "{a: {bb: {ccc: null}}}", {"a": {"bb": {}}})),
]


@pytest.mark.parametrize(("base", "patch", "result"), PATCHES)
def test_merge(base, patch, result):
    assert merge_trees(parse_yaml(base, "a"), parse_yaml(patch, "b")).plain() == result


def test_chain_of_recipes(project):
    project.write("recipes/two.yaml", "extends: good.yaml\nadapter: {epochs: null, steps: 9, rank: 2}\n")
    project.write(
        "recipes/sub/three.yaml",
        "extends: ../two.yaml\nadapter: {rank: 3}\n"
        "samples: {samplers: {student: null, other: {model: base, prompt: cot}}}\n",
    )
    loaded = load_recipe(project.root / "recipes/sub/three.yaml", project.root)
    assert loaded.name == "three"
    assert (loaded.recipe.adapter.epochs, loaded.recipe.adapter.steps, loaded.recipe.adapter.rank) == (None, 9, 3)
    assert list(loaded.recipe.samples.samplers) == ["other"]
    assert loaded.files[:3] == ("recipes/sub/three.yaml", "recipes/two.yaml", "recipes/good.yaml")
    assert "recipes/prompts/cot.yaml" in loaded.files
    assert "recipes/prompts/solve.yaml" not in loaded.files
    assert loaded.tree.find(("adapter", "steps")).mark.file == "recipes/two.yaml"


def test_short_forms(project):
    for old, new in (
        ("adapter: {epochs: 1}", "adapter: {epochs: 1, alpha: 16, targets: [q_proj]}"),
        ("[has_fields, max_tokens: {limit: 50}]", "[has_fields, max_tokens: {limit: 50}, changed: , duplicate: {}]"),
        ("answers: {prompt: cot}", "answers: {prompt: {user: 'Q {{ question }}'}, stop: [x]}"),
    ):
        project.edit("recipes/good.yaml", old, new)
    recipe = load_recipe(project.root / "recipes/good.yaml", project.root).recipe
    options = {"has_fields": {}, "max_tokens": {"limit": 50}, "changed": {}, "duplicate": {}}
    assert [(part.use, part.options) for part in recipe.verdicts.filters] == list(options.items())
    assert (recipe.adapter.alpha, recipe.adapter.targets, recipe.answers.stop) == (16.0, ("q_proj",), ("x",))
    assert recipe.answers.prompt.user == "Q {{ question }}"


def test_prompts_in_folders(project):
    project.write("recipes/prompts/few/shots.yaml", "user: '{{ question }}'\n")
    assert "few/shots" in prompt_names(project.root)
    project.edit("recipes/good.yaml", "answers: {prompt: cot}", "answers: {prompt: few/shots}")
    assert load_recipe(project.root / "recipes/good.yaml", project.root).recipe.answers.prompt.user == "{{ question }}"


def test_all_problems_in_file_order(project):
    text = "extends: good.yaml\nadapter: {rank: x}\nanswers: {prompt: nothing}\nquestions: {test: -1}\n"
    with pytest.raises(RecipeError) as error:
        load_recipe(project.write("recipes/bad.yaml", text), project.root)
    assert [problem.line for problem in error.value.problems] == [2, 3, 4]
    assert error.value.exit_code == 2


def test_params(project):
    params = load_params(project.root / "params.yaml", project.root)
    assert params.recipes == {"good": "constraints.txt"}
    assert params.runs["good-lema"].arm == "lema"
    assert params.run.endpoints["paid"].key == "PAID_KEY"
    project.edit("params.yaml", "arm: cot", "arms: cot")
    with pytest.raises(RecipeError) as error:
        load_params(project.root / "params.yaml", project.root)
    assert [str(problem) for problem in error.value.problems] == [
        "params.yaml:4:3: runs.good-cot: missing key 'arm'",
        "params.yaml:4:28: runs.good-cot: unknown key 'arms'; did you mean 'arm'? allowed: arm, recipe",
    ]
