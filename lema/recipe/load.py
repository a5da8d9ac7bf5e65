"""From files to recipes: `extends`, prompts, and every problem with its place."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lema.errors import Problem, RecipeError, allowed
from lema.recipe.basic_types import NAME
from lema.recipe.messages import NAMES, problem_at, salvage, validate
from lema.recipe.params import Params
from lema.recipe.schema import Recipe
from lema.recipe.yaml import KeyPath, Mark, Tree, read_yaml

RECIPES = "recipes"
PROMPTS = "recipes/prompts"
PARAMS = "params.yaml"
NO_PROJECT = "is not here; lema runs in the folder of a project, which holds params.yaml and recipes/"
ROW_KINDS = ("cot", "corrections")  # of the rows of an arm
PROMPT_NAME = re.compile(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A recipe without mistakes of shape. `tree` has the place of every key, `files` what was read, relative to
    the root."""

    recipe: Recipe
    name: str
    tree: Tree
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Draft:
    """A recipe as far as it can be read: `sections` hold what is right of each key, None when nothing is."""

    name: str
    file: str
    tree: Tree
    files: tuple[str, ...]
    problems: tuple[Problem, ...]
    recipe: Recipe | None
    sections: dict[str, Any]

    @property
    def extended(self) -> frozenset[str]:
        """The recipe files that it builds on."""
        return frozenset(file for file in self.files if file != self.file and not file.startswith(f"{PROMPTS}/"))


def load_recipe(path: Path, root: Path) -> Loaded:
    """Read a recipe; `root` is the project's folder. Raises RecipeError with all problems of its shape."""
    draft = read_draft(path, root)
    if draft.recipe is None or draft.problems:
        raise RecipeError(draft.problems)
    return Loaded(draft.recipe, draft.name, draft.tree, draft.files)


def load_params(path: Path, root: Path | None = None) -> Params:
    """Read params.yaml. Raises RecipeError with all problems of its shape."""
    params, _, problems = read_params(path, root or Path.cwd())
    if params is None:
        raise RecipeError(problems)
    return params


def read_params(path: Path, root: Path) -> tuple[Params | None, Tree, tuple[Problem, ...]]:
    """Params, or None with the problems; the tree is empty when the file cannot be read."""
    file = shown_path(path, root)
    try:
        if not path.exists():
            raise RecipeError([Problem(file, 0, 0, NO_PROJECT)])
        tree = read_yaml(path, file)
    except RecipeError as error:
        return None, _empty_tree(file), error.problems
    params, problems = validate(tree, Params)
    return params, tree, tuple(problem for _, problem in problems)


def read_draft(path: Path, root: Path) -> Draft:
    """Read as much of a recipe as can be read."""
    file, name = shown_path(path, root), path.stem
    reader = _Files(root)
    tree = reader.prompts(reader.recipe(path, ()))
    recipe, found = validate(tree, Recipe) if not reader.broken else (None, [])
    problems = [*reader.problems, *(problem for _, problem in found)]
    if not NAME.fullmatch(name):
        problems.append(Problem(file, 0, 0, f"the recipe's name {name!r} {NAMES}"))
    sections = dict(recipe or {})
    for key, field in () if recipe else Recipe.model_fields.items():
        default = None if field.is_required() else field.default
        sections[key] = salvage(tree.value[key], field.annotation) if key in tree.value else default
    return Draft(name, file, tree, tuple(reader.files), tuple(problems), recipe, sections)


def shown_path(path: Path, root: Path) -> str:
    """A path as messages show it: relative to the root where it lies below it, else its name."""
    try:
        return path.resolve().relative_to(root.resolve()).as_posix()
    except (ValueError, OSError, RuntimeError):  # elsewhere; or a path that is none, such as a link to itself
        return path.name


def prompt_names(root: Path) -> tuple[str, ...]:
    """The prompts in recipes/prompts, sorted."""
    folder = root / PROMPTS
    return tuple(sorted(file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.yaml")))


def prompt_places(tree: Tree) -> Iterator[KeyPath]:
    """The paths at which a recipe has prompts."""
    yield from (("samples", "samplers", name, "prompt") for name in tree.keys("samples", "samplers"))
    yield from (("corrections", "prompt"), ("answers", "prompt"), ("mix", "cot"), ("mix", "correction"))
    yield from (("locations", "prompt"), ("evolved", "write", "prompt"), ("evolved", "solve", "prompt"))
    yield from (("base", "pretrain", "format"), ("base", "pretrain", "corrections", "format"))
    yield from (("mix", "arms", arm, kind, "format") for arm in tree.keys("mix", "arms") for kind in ROW_KINDS)
    yield from ((*options_path(tree, part), "prompt") for part, _ in tree.items("verdicts", "filters"))


def options_path(tree: Tree, path: KeyPath) -> KeyPath:
    """Where the options of the part at a path stand: under its name."""
    return (*path, *tree.keys(*path)[:1])


def merge_trees(base: Tree, patch: Tree) -> Tree:
    """`patch` over `base` as in RFC 7396: mappings merge, null removes, anything else replaces."""
    if not isinstance(patch.value, dict):
        return patch
    merged = dict(base.value) if isinstance(base.value, dict) else {}
    for key, child in patch.value.items():
        if child.value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_trees(merged.get(key, _empty_tree(child.mark.file)), child)
    return Tree(merged, patch.mark, patch.key)


def _empty_tree(file: str) -> Tree:
    mark = Mark(file, 1, 1)
    return Tree({}, mark, mark)


class _Files:
    """Reads recipe and prompt files, gathering problems. `broken` when a recipe file could not be read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: list[str] = []
        self.problems: list[Problem] = []
        self.broken = False

    def read(self, path: Path) -> Tree | None:
        file = shown_path(path, self.root)
        self.files.append(file)
        try:
            return read_yaml(path, file)
        except RecipeError as error:
            self.problems.extend(error.problems)
            return None

    def recipe(self, path: Path, above: tuple[Path, ...]) -> Tree:
        """A recipe file over the one that it extends."""
        tree = self.read(path)
        if tree is None or not isinstance(tree.value, dict):
            self.broken = True
            if tree:
                self.problems.append(tree.mark.problem("a recipe is a mapping: one key an artifact"))
            return _empty_tree(shown_path(path, self.root))
        keys = dict(tree.value)
        extends = keys.pop("extends", None)
        tree = replace(tree, value=keys)
        if extends is None:
            return tree
        base = self._base(path, extends, (*above, path.resolve()))  # the file has been read, so it has a real path
        return tree if base is None else merge_trees(base, tree)

    def _base(self, path: Path, extends: Tree, above: tuple[Path, ...]) -> Tree | None:
        message = None
        if not isinstance(extends.value, str):
            message = "extends: needs the name of one recipe file"
        else:
            shown = extends.value if len(extends.value) <= 100 else "of this name"
            try:
                base = (path.parent / extends.value).resolve()
                there = base.is_file()
            except (OSError, ValueError, RuntimeError):  # too long, with a NUL, a link to itself
                base, there = path.parent, False
            if not base.is_relative_to(self.root.resolve()):
                message = f"extends: {shown} lies outside the project"
            elif base in above:
                message = f"extends: {shown} extends this file in turn"
            elif not there:
                others = (other.stem for other in path.parent.glob("*.yaml") if other != path)
                message = f"extends: there is no file {shown}; {allowed(base.stem, others)}"
        if message is None:
            return self.recipe(base, above)
        self.problems.append(extends.mark.problem(message))
        self.broken = True
        return None

    def prompts(self, tree: Tree) -> Tree:
        """The recipe with the files of recipes/prompts in place of their names."""
        for path in prompt_places(tree):
            found = tree.find(path)
            if found and isinstance(found.value, str):
                tree = tree.replaced({path: self._prompt(found, tree, path)}) or tree
        return tree

    def _prompt(self, found: Tree, tree: Tree, path: KeyPath) -> Tree:
        name, file = found.value, self.root / PROMPTS / f"{found.value}.yaml"
        if len(name) > 100 or not PROMPT_NAME.fullmatch(name) or not file.is_file():
            shown = repr(name) if len(name) <= 60 and "\n" not in name else "of this name"
            message = f"there is no prompt {shown} in {PROMPTS}; {allowed(name, prompt_names(self.root))}"
            self.problems.append(problem_at(tree, path, message))
        elif prompt := self.read(file):
            return prompt
        # What could not be read has been reported; an empty prompt keeps it from being reported twice.
        text = replace(found, value="")
        return replace(found, value={"user": text, "assistant": text})
