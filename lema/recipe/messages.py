"""What pydantic finds wrong, in plain words and at its place in the file."""

import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, Tag, TypeAdapter, ValidationError
from typing_extensions import is_typeddict

from lema.errors import Problem, allowed
from lema.recipe.basic_types import Part, Prompt
from lema.recipe.part_loader import describe_type, is_union
from lema.recipe.yaml import KeyPath, Tree

NAMES = "may hold only letters, digits, _ and -"
# By the kinds of errors that pydantic has.
MESSAGES: Mapping[str, str] = {
    "greater_than_equal": "needs at least {ge:g}, got {shown}",
    "greater_than": "needs more than {gt:g}, got {shown}",
    "less_than_equal": "needs at most {le:g}, got {shown}",
    "less_than": "needs less than {lt:g}, got {shown}",
    "string_too_short": "must not be empty",
    "too_short": "needs at least one entry",
    "finite_number": "needs a finite number",
}
MAX_PROBLEMS = 10  # of one mapping, that are reported


def validate(tree: Tree, wish: Any, path: KeyPath = ()) -> tuple[Any, list[tuple[KeyPath, Problem]]]:
    """The value of a type that a tree stands for, or None and what is wrong with it: for each the path of the
    culprit below the tree. `path` is where the tree stands in its file."""
    value, found = _validate(tree, wish, path)
    return value, _shortened(found)


def _validate(tree: Tree, wish: Any, path: KeyPath = ()) -> tuple[Any, list[tuple[KeyPath, Problem]]]:
    try:
        return TypeAdapter(wish).validate_python(tree.plain()), []
    except ValidationError as error:
        found = [one for raw in error.errors(include_url=False) if (one := _explain_error(raw, wish, tree, path))]
        # Of a union, pydantic reports every branch: a bound that is missed says more than the list of branches.
        bounds = {culprit for culprit, _, vague in found if not vague}
        told = ((culprit, problem) for culprit, problem, vague in found if not (vague and culprit in bounds))
        return None, list(dict.fromkeys(told))


def _shortened(found: list[tuple[KeyPath, Problem]]) -> list[tuple[KeyPath, Problem]]:
    """Of very many problems in one mapping, the first: a file of another kind has nothing but unknown keys."""
    groups: dict[KeyPath, list[tuple[KeyPath, Problem]]] = {}
    for path, problem in found:
        groups.setdefault(path[:-1], []).append((path, problem))
    for group in groups.values():
        if more := len(group[MAX_PROBLEMS:]):
            path, last = group[MAX_PROBLEMS - 1]
            message = f"{last.message}; and {more} more problems in this mapping"
            group[MAX_PROBLEMS - 1 :] = [(path, replace(last, message=message))]
    return [one for group in groups.values() for one in group]


def dotted(path: KeyPath) -> str:
    """A path as a user writes it."""
    return ".".join(str(step) for step in path)


def _nearest_path(tree: Tree, path: KeyPath) -> KeyPath:
    """A path, or that of the nearest thing above it when there is nothing."""
    while tree.find(path) is None:
        path = path[:-1]
    return path


def problem_at(tree: Tree, path: KeyPath, message: str, *, key: bool = False) -> Problem:
    """A problem with the value at a path, or with its key; at the nearest thing above it when it is not there."""
    known = _nearest_path(tree, path)
    found = tree.find(known) or tree
    mark = found.key if key or known != path else found.mark
    return mark.problem(f"{dotted(path)}: {message}" if path else message)


def _explain_error(error: Any, wish: Any, tree: Tree, above: KeyPath) -> tuple[KeyPath, Problem, bool] | None:
    """The culprit's path, the problem, and whether it only lists the branches of a union; None for what is wrong
    with a branch that the user did not mean."""
    followed = _follow_location(wish, error["loc"], tree)
    if followed is None:
        return None
    path, kind, fields = followed
    what, shown = error["type"], _shown_value(error["input"])
    place, key, vague = path, "[key]" in error["loc"], False
    if what in MESSAGES:
        message = MESSAGES[what].format(shown=shown, **error.get("ctx", {}))
    elif is_union(kind) and not key:
        here = tree.find(path)
        message, vague = f"needs {_describe_kind(kind)}, got {_shown_value(here.plain() if here else None)}", True
    elif what == "extra_forbidden":
        message, place, key = f"unknown key {path[-1]!r}; {allowed(path[-1], fields)}", path[:-1], True
    elif what == "missing":
        message, place = f"missing key {path[-1]!r}", path[:-1]
    elif what == "value_error":
        message, key = str(error["ctx"]["error"]), isinstance(error["input"], dict)
        message += "".join(_inherited(tree.find(path), message))
    elif what == "string_pattern_mismatch":
        pattern = error["ctx"]["pattern"]
        message = f"the name {error['input']!r} {NAMES}{' and .' if '.' in pattern.partition(']')[0] else ''}"
        if "/" in pattern:
            message = f"needs RECIPE/ARM or RECIPE/ARM/SEED, got {shown}"
    else:
        message = f"needs {_describe_kind(kind)}, got {shown}"
    # The dotted path in the message is that of the mapping; the line and column are those of the culprit.
    located = problem_at(tree, path, "", key=key)
    where = dotted((*above, *place))
    return path, replace(located, message=f"{where}: {message}" if where else message), vague


def _inherited(here: Tree | None, message: str) -> Iterator[str]:
    """Of the keys that a message about a mapping names, those that come from an extended file."""
    for name, child in here.value.items() if here and isinstance(here.value, dict) else ():
        if here and child.key.file != here.mark.file and re.search(rf"\b{re.escape(name)}\b", message):
            yield f"; {name} comes from {child.key.file}:{child.key.line}, which you extend; null removes it"


def _follow_location(wish: Any, loc: tuple[Any, ...], tree: Tree) -> tuple[KeyPath, Any, tuple[str, ...]] | None:
    """Path, type and allowed keys at one of pydantic's locations, which also name the branches of unions."""
    path: KeyPath = ()
    rest = [step for step in loc if step != "[key]"]
    fields: tuple[str, ...] = ()
    while True:
        wish = _plain_type(wish)
        inner = typing.get_args(wish)
        if is_union(wish):
            members = [one for one in inner if one is not type(None)]
            chosen = _union_member(members, rest.pop(0), tree.find(path)) if rest else ...
            if chosen is None:
                return None
            if chosen is ...:
                return path, wish, ()
            wish = chosen
        elif not rest:
            return path, wish, fields
        else:
            step = rest.pop(0)
            keys = tree.keys(*path) if wish is Part else ()
            path = (*path, keys[0] if keys and step == "options" else step)  # a part's options stand under its name
            if isinstance(wish, type) and issubclass(wish, BaseModel):
                known = {field.alias or name: field.annotation for name, field in wish.model_fields.items()}
                fields, wish = tuple(known), known.get(step)
            elif is_typeddict(wish):
                fields, wish = (), typing.get_type_hints(wish).get(step, Any)
            else:
                wish = inner[typing.get_origin(wish) is dict] if inner else Any


def _plain_type(wish: Any) -> Any:
    """A type without annotations, and without null beside one other type."""
    if typing.get_origin(wish) is typing.Annotated:
        return _plain_type(typing.get_args(wish)[0])
    others = [one for one in typing.get_args(wish) if one is not type(None)]
    return _plain_type(others[0]) if is_union(wish) and len(others) == 1 else wish


def _union_member(members: list[Any], label: Any, here: Tree | None) -> Any:
    """The member of a union that an error belongs to; `...` when the error concerns the choice itself, None when it
    concerns a member that the user plainly did not mean."""
    for member in members:
        tags = [one.tag for one in typing.get_args(member)[1:] if isinstance(one, Tag)]
        if label in tags:
            return member
    keys = here.value if here and isinstance(here.value, dict) else {}
    mappings = [one for one in members if isinstance(one, type) and issubclass(one, BaseModel)]
    meant = [one for one in mappings if len(mappings) == 1 or keys & one.model_fields.keys()] if keys else []
    if len(meant) != 1:
        return ...
    return meant[0] if label == meant[0].__name__ else None


def _describe_kind(kind: Any) -> str:
    if kind is Prompt:
        return "the name of a file in recipes/prompts, or a mapping with user"
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(str(one) for one in typing.get_args(kind))
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "a mapping"
    return describe_type(kind)


def _shown_value(value: Any) -> str:
    """A value as a message may show it: never a long text, which may be a prompt's."""
    if value is None:
        return "null"
    if isinstance(value, dict | list | tuple):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if len(str(value)) <= 40 else "a longer text"


def salvage(tree: Tree, wish: Any) -> Any:
    """As much of a value as is right: wrong parts are left out, so that the others can be checked too. None when
    nothing is left."""
    left: Tree | None = tree
    while left is not None:
        value, problems = _validate(left, wish)
        if not problems:
            return value
        # All of the deepest at once: of thousands, one at a time would take minutes.
        depth = max(len(path) for path, _ in problems)
        left = left.replaced({_nearest_path(left, path): None for path, _ in problems if len(path) == depth})
    return None
