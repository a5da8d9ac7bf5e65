"""Every setting stands in a shipped recipe or in docs/params.yaml; `make soak` builds them all."""

import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from lema.recipe.basic_types import Part, Prompt
from lema.recipe.load import load_params
from lema.recipe.params import Params
from lema.recipe.schema import Recipe
from lema.recipe.yaml import Tree, read_yaml

ROOT = Path(__file__).parents[2]


def settings(kind: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all settings below a type; `*` stands for any key of a mapping or entry of a list."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        yield from settings(inner[0], path)
    elif origin in (typing.Union, types.UnionType):
        for one in inner:
            yield from settings(one, path)
    elif origin in (dict, tuple):
        yield from settings(inner[1] if origin is dict else inner[0], (*path, "*"))
    elif isinstance(kind, type) and issubclass(kind, BaseModel) and kind not in (Prompt, Part):
        for name, field in kind.model_fields.items():
            here = (*path, field.alias or name)
            yield here
            yield from settings(field.annotation, here)


def used(tree: Tree, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths that a file sets; what it removes with null counts for nothing."""
    below = tree.value.items() if isinstance(tree.value, dict) else ()
    items = enumerate(tree.value) if isinstance(tree.value, list) else ()
    for key, child in [*below, *((str(at), one) for at, one in items)]:
        if child.value is not None:
            yield (*path, key)
            yield from used(child, (*path, key))


def unused(kind: type[BaseModel], files: list[Path]) -> list[str]:
    """The settings that stand in none of the files."""
    found = {path for file in files for path in used(read_yaml(file, file.name))}

    def stands(path: tuple[str, ...]) -> bool:
        return any(
            len(path) == len(one) and all(a in ("*", b) for a, b in zip(path, one, strict=True)) for one in found
        )

    return [".".join(path) for path in dict.fromkeys(settings(kind)) if not stands(path)]


def test_every_setting_stands_in_a_shipped_recipe() -> None:
    assert unused(Recipe, sorted((ROOT / "recipes").glob("*.yaml"))) == []


def test_every_setting_of_params_stands_in_its_example() -> None:
    assert unused(Params, [ROOT / "docs/params.yaml"]) == []
    assert load_params(ROOT / "docs/params.yaml", ROOT).run.executor == "ray"
