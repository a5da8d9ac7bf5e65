"""Parts by name: tasks, filters and model backends, ours and the user's.

A bare name is ours: `max_tokens` among filters is the object `max_tokens` in the module `lema.filters.max_tokens`.
`pkg.mod:name` is the user's: the object `name` in a module that Python finds from the project's folder. The import
path is the registry; a new part is a new file and no other edit.
"""

import ast
import functools
import importlib
import importlib.util
import inspect
import json
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from lema.errors import LemaError, allowed

PartKind = Literal["tasks", "filters", "models"]

INSTALLED = {"site-packages", "dist-packages"}
IMPORTS_LEMA = re.compile(rb"^\s*(?:from|import)\s+lema\b", re.MULTILINE)
WORDS: Mapping[str, str] = {"tasks": "task", "filters": "filter", "models": "backend"}


class PartError(LemaError):
    """A part that cannot be had: unknown, not importable, or not in its module."""

    exit_code = 2


@functools.cache
def part_names(kind: PartKind) -> tuple[str, ...]:
    """The names of our parts of a kind, sorted: modules that define what they are named after. Imports none of them."""
    found = []
    for folder in importlib.import_module(f"lema.{kind}").__path__:
        for file in [*Path(folder).glob("*.py"), *Path(folder).glob("*/__init__.py")]:
            name = file.parent.name if file.stem == "__init__" else file.stem
            if re.search(rf"^(?:def )?{name}\b *[=(\[]", file.read_text(encoding="utf-8"), re.MULTILINE):
                found.append(name)
    return tuple(sorted(found))


def module_name(kind: PartKind, name: str) -> str:
    """The dotted name of the module that holds a part; raises PartError for a name that cannot be one."""
    who = f"{WORDS[kind]} {name!r}"
    if ":" not in name:
        if name not in part_names(kind):
            raise PartError(f"unknown {who}; {allowed(name, part_names(kind))}, or my_pkg.my_mod:my_part")
        return f"lema.{kind}.{name}"
    module, _, thing = name.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), thing]):
        raise PartError(f"{who} is not of the form my_pkg.my_mod:my_part")
    # A recipe from a stranger must not reach `subprocess:run`; what is installed or lies in the project was
    # put there by the user.
    if module.split(".")[0] in sys.stdlib_module_names:
        raise PartError(f"{who}: parts do not come from Python's standard library")
    return module


def load_part(kind: PartKind, name: str) -> Any:
    """The part itself. Raises PartError, saying what is wrong and what is near, when there is none."""
    home, who, thing = module_name(kind, name), f"{WORDS[kind]} {name!r}", name.rpartition(":")[2]
    # Nor must it reach what else is installed and was not made to be a part: `hydra.utils:instantiate`.
    file = source_file(home)
    if file and INSTALLED & set(file.parts) and not IMPORTS_LEMA.search(file.read_bytes()):
        raise PartError(f"{who}: {home} is no module of parts: it is installed, and imports no lema")
    try:
        module = importlib.import_module(home)
    except Exception as error:  # a user's module may raise anything while it is imported
        if isinstance(error, ModuleNotFoundError) and error.name and f"{home}.".startswith(f"{error.name}."):
            raise PartError(f"{who}: there is no module {error.name!r}") from None
        raise PartError(f"{who}: importing {home} failed: {type(error).__name__}: {error}") from error
    try:
        return getattr(module, thing)
    except AttributeError:
        public = [known for known in vars(module) if not known.startswith("_")]
        raise PartError(f"{who}: {home} has no {thing!r}; {allowed(thing, public)}") from None


def source_file(module: str) -> Path | None:
    """The file of a module, without importing it; None when there is none. Its parent packages are imported."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return None
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


def part_summary(kind: PartKind, name: str) -> str:
    """The first paragraph of a part's docstring, or else of its module's, as one line; empty when neither has one.
    Imports neither."""
    file = source_file(module_name(kind, name))
    if file is None:
        return ""
    tree, thing = ast.parse(file.read_text(encoding="utf-8")), name.rpartition(":")[2]
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    own = [item for item in tree.body if isinstance(item, definitions) and item.name == thing]
    about = next(filter(None, map(ast.get_docstring, [*own, tree])), "")
    return " ".join(about.partition("\n\n")[0].split())


def option_problems(
    part: Callable[..., Any], options: Mapping[str, Any], given: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """What is wrong with the options given to a part, each with the name of the option: its options are its
    keyword-only parameters, but for those named in `given`, which the pipeline fills.

    >>> def shorter(candidates, *, than: int): ...
    >>> option_problems(shorter, {"then": 3})
    [('then', "unknown option 'then'; did you mean 'than'? allowed: than"), ('than', "missing option 'than'")]
    """
    try:
        parameters = inspect.signature(part).parameters.values()
    except (TypeError, ValueError):
        return []
    known = {one.name: one for one in parameters if one.kind is one.KEYWORD_ONLY and one.name not in given}
    takes_all = any(one.kind is one.VAR_KEYWORD for one in parameters)
    hints = _hints(part)
    problems = []
    for name, value in options.items():
        if name not in known and not takes_all:
            problems.append((name, f"unknown option {name!r}; {allowed(name, known)}"))
        elif name in known and not matches_type(value, hints.get(name, Any)):
            problems.append((name, f"option {name!r} needs {describe_type(hints[name])}, got {value!r}"))
    missing = [one.name for one in known.values() if one.default is one.empty and one.name not in options]
    return problems + [(name, f"missing option {name!r}") for name in missing]


def _hints(part: Callable[..., Any]) -> dict[str, Any]:
    plain = inspect.isfunction(part) or inspect.ismethod(part)
    try:
        return typing.get_type_hints(part if plain else part.__init__ if inspect.isclass(part) else type(part).__call__)
    except Exception:  # an annotation that cannot be resolved here says nothing about the options
        return {}


def matches_type(value: Any, hint: Any) -> bool:
    """Whether a value from YAML is of an annotated type. Whole numbers fit float, lists fit any sequence; types that
    YAML cannot write fit everything."""
    try:
        TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
    except (PydanticUserError, TypeError, ValueError) as error:
        return not isinstance(error, ValidationError)
    return True


_PLAIN_TYPES = {bool: "true or false", str: "a text", int: "a whole number", type(None): "null"}
_PLAIN_TYPES |= dict.fromkeys((float, Decimal), "a number")


def is_union(hint: Any) -> bool:
    """Whether a type is `A | B`."""
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def describe_type(hint: Any) -> str:
    """A type in plain words.

    >>> describe_type(int | None)
    'a whole number or null'
    >>> describe_type(list[str])
    'a list, each a text'
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return describe_type(inner[0])
    if is_union(hint):
        return " or ".join(describe_type(one) for one in inner)
    if origin is Literal:
        return " or ".join(str(one).lower() if isinstance(one, bool) else repr(one) for one in inner)
    if hint in _PLAIN_TYPES:
        return _PLAIN_TYPES[hint]
    kind = origin or hint
    if kind in (dict, Mapping):
        return "a mapping"
    if kind is tuple and inner and inner[-1] is not Ellipsis:
        return "a list of " + ", ".join(describe_type(one) for one in inner)
    if kind in (list, tuple, set, frozenset, Sequence):
        return f"a list, each {describe_type(inner[0])}" if inner else "a list"
    fields = getattr(hint, "model_fields", None)
    return f"a mapping with {', '.join(fields)}" if fields else getattr(hint, "__name__", str(hint))
