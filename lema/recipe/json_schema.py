"""The JSON Schema of recipes, for editors: what the loader takes before it merges and validates.

It knows what a single file may say: every key may be absent, since `extends` may bring it, and any may be null, which
removes it; prompts may be names, filters may be short.
"""

import json
from collections.abc import Mapping
from typing import Any

from lema.recipe.schema import Recipe

PROMPT_SCHEMA = {
    "type": "string",
    "pattern": "^[A-Za-z0-9_/-]+$",
    "description": "A file in recipes/prompts, without .yaml.",
}
OPTIONS_SCHEMA = {"$ref": "#/$defs/Options"}
PART_SCHEMA = {
    "description": "A filter: its name, or its name and its options.",
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": {"anyOf": [OPTIONS_SCHEMA, {"type": "null"}]},
        },
    ],
}


def recipe_schema() -> dict[str, Any]:
    """The schema as plain values."""
    made = Recipe.model_json_schema(by_alias=True)
    definitions = {name: _schema_definition(name, one) for name, one in made.pop("$defs").items()}
    recipe = _loosen(made)
    properties = {"extends": {"type": "string", "description": "The recipe file that this one builds on."}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "LEMA recipe",
        "description": "Keys are artifacts, in the order in which they are made.",
        "type": "object",
        "properties": properties | recipe["properties"],
        "additionalProperties": False,
        "$defs": dict(sorted(definitions.items())),
    }


def schema_text() -> str:
    """The schema as recipes/schema.json holds it."""
    return json.dumps(recipe_schema(), indent=2, ensure_ascii=False) + "\n"


def _schema_definition(name: str, made: Mapping[str, Any]) -> dict[str, Any]:
    if name == "Part":
        return PART_SCHEMA
    loose = _loosen(made)
    return {"anyOf": [PROMPT_SCHEMA, loose], "description": loose.pop("description")} if name == "Prompt" else loose


def _loosen(made: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping of which every key may be absent or null."""
    loose = {key: value for key, value in _tidy(made).items() if key != "required"}
    if "properties" in loose:
        loose["properties"] = {name: _or_null(value) for name, value in loose["properties"].items()}
    return loose


def _or_null(value: dict[str, Any]) -> dict[str, Any]:
    null = {"type": "null"}
    if null in value.get("anyOf", ()):
        return value
    if isinstance(value.get("type"), str) and "const" not in value and "enum" not in value:
        return {**value, "type": [value["type"], "null"]}
    about: dict[str, Any] = {key: value[key] for key in ("description", "default") if key in value}
    return {**about, "anyOf": [{key: one for key, one in value.items() if key not in about}, null]}


def _tidy(value: Any) -> Any:
    """Without the titles that pydantic makes of names and defaults that say nothing; doc comments on one line; names
    that fit no pattern refused; no telling apart of branches by what they require."""
    if isinstance(value, list):
        return [_tidy(one) for one in value]
    if not isinstance(value, dict):
        return value
    tidy = {("anyOf" if key == "oneOf" else key): _tidy(one) for key, one in value.items()}
    if isinstance(tidy.get("title"), str):
        del tidy["title"]
    if isinstance(tidy.get("description"), str):
        tidy["description"] = " ".join(tidy["description"].split())
    if "default" in tidy and tidy["default"] in (None, {}, []):
        del tidy["default"]
    if "patternProperties" in tidy:
        names = {pattern: _or_null(one) for pattern, one in tidy["patternProperties"].items()}
        tidy |= {"patternProperties": names, "additionalProperties": False}
    return tidy
