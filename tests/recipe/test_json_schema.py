"""The JSON Schema that editors use."""

import json
from pathlib import Path

import jsonschema
import pytest

from lema.recipe.json_schema import recipe_schema, schema_text
from lema.recipe.load import load_recipe
from lema.recipe.yaml import parse_yaml, read_yaml

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
VALIDATOR = jsonschema.Draft202012Validator(recipe_schema())


def as_json(tree):
    return json.loads(json.dumps(tree.plain()))


def errors(text):
    return [error.message for error in VALIDATOR.iter_errors(as_json(parse_yaml(text, "f.yaml")))]


def test_the_committed_schema_is_fresh_and_a_schema():
    jsonschema.Draft202012Validator.check_schema(recipe_schema())
    committed = (ROOT / "recipes/schema.json").read_text(encoding="utf-8")
    assert committed == schema_text(), "lema schema > recipes/schema.json"
    assert {path.stem for path in RECIPES} >= {"demo", "smoke", "gsm8k"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes(path):
    assert not [error.message for error in VALIDATOR.iter_errors(as_json(read_yaml(path, path.name)))]
    assert path.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=schema.json\n")
    assert load_recipe(path, ROOT).name == path.stem


@pytest.mark.parametrize(
    "text",
    [
        "",
        "extends: demo.yaml\nbase: {embedded: null}\nadapter: null",
        "samples: {samplers: {a: {prompt: cot}, b: {import: {file: x.csv}}, c: null, d: {prompt: {user: x}}}}",
        "verdicts: {filters: [changed, max_tokens: {limit: 3}, changed: , duplicate: {}]}",
        "mix: {arms: {a: {cot: {rows: all}}, b: {cot: {rows: 3}}, c: {cot: {rows: {match: a}}}, d: null}, cot: x/y}",
        "answers: {prompt: {user: x, demonstrations: [{a: [1, {b: null}]}]}, stop: [x], temperature: 1}",
        "models: {gpt-3.5: {backend: openai, options: {any: [thing]}}}",
    ],
)
def test_accepts(text):
    assert errors(text) == []


@pytest.mark.parametrize(
    "text",
    [
        *("sample: {}", "samples: {samplers: {a: {prmpt: cot}}}", "samples: {samplers: {a: {import: {fil: x}}}}"),
        *("samples: {samplers: {'a b': {prompt: cot}}}", "verdicts: {filters: [{a: {}, b: {}}]}", "extends: [a.yaml]"),
        *("mix: {arms: {a: {cot: {rows: half}}}}", "mix: {arms: {a.b: {}}}", "corrections: {hint: gold}"),
        *("answers: {prompt: 3}", "answers: {prompt: {usr: x}}", "adapter: {rank: 0}", "adapter: {schedule: square}"),
    ],
)
def test_refuses(text):
    assert errors(text)


def test_every_key_says_what_it_is():
    properties = {name: one.get("properties", {}) for name, one in recipe_schema()["$defs"].items()}
    assert [(n, key) for n, one in properties.items() for key, value in one.items() if "description" not in value] == []
