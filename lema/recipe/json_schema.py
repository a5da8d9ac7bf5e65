"""The JSON Schema of recipes, for editors: what the loader takes before it merges and validates.

It knows what a single file may say: every key may be absent, since `extends` may bring it, and any may be null, which
removes it; prompts may be names, filters may be short.
"""

import json
from typing import Any

from lema.recipe.schema import Recipe

NULL = {"type": "null"}
PROMPT_SCHEMA = {
    "type": "string",
    "pattern": "^[A-Za-z0-9_/-]+$",
    "description": "A file in recipes/prompts, without .yaml.",
}
OPTIONS_SCHEMA = {"anyOf": [{"$ref": "#/$defs/Options"}, NULL]}
PART_SCHEMA = {
    "description": "A filter: its name, or its name and its options.",
    "anyOf": [
        {"type": "string"},
        {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": OPTIONS_SCHEMA},
    ],
}


def recipe_schema() -> dict[str, Any]:
    """The schema as plain values."""
    recipe = _loosen(Recipe.model_json_schema(by_alias=True))
    definitions = recipe.pop("$defs")
    prompt = definitions["Prompt"]
    either = {"anyOf": [PROMPT_SCHEMA, prompt], "description": prompt.pop("description")}
    definitions |= {"Part": PART_SCHEMA, "Prompt": either}
    extends = {"type": "string", "description": "The recipe file that this one builds on."}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **recipe,
        "title": "LEMA recipe",
        "properties": {"extends": extends, **recipe["properties"]},
        "$defs": dict(sorted(definitions.items())),
    }


def schema_text() -> str:
    """The schema as recipes/schema.json holds it."""
    return json.dumps(recipe_schema(), indent=2, ensure_ascii=False) + "\n"


def _loosen(value: Any) -> Any:
    """Every key may be absent or null, names that fit no pattern are refused, branches are not told apart by what they
    require; without the titles that pydantic makes of names."""
    if isinstance(value, list):
        return [_loosen(one) for one in value]
    if not isinstance(value, dict):
        return " ".join(value.split()) if isinstance(value, str) else value
    made = {"anyOf" if key == "oneOf" else key: _loosen(one) for key, one in value.items()}
    if isinstance(made.get("title"), str):
        del made["title"]
    if isinstance(made.get("required"), list):
        del made["required"]
    for key in {"properties", "patternProperties"} & made.keys():
        made[key] = {name: one if NULL in one.get("anyOf", ()) else _or_null(one) for name, one in made[key].items()}
        made["additionalProperties"] = made.get("additionalProperties", False)
    return made


def _or_null(one: dict[str, Any]) -> dict[str, Any]:
    about = {key: one.pop(key, None) for key in ("description", "default")}
    return {key: value for key, value in about.items() if value not in (None, {}, [])} | {"anyOf": [one, NULL]}
