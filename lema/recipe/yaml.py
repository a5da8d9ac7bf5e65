"""YAML as DVC reads it, with the place of every key and value.

The reader is DVC's own, ruamel.yaml, for YAML 1.2; plain PyYAML reads 1.1, where `1e-4` is a text, `yes` is true and
`012` is ten. What makes DVC fail or is never meant (dates, repeated keys, tags, several documents) is a problem with a
line instead.
"""

import datetime
import functools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.scanner import Scanner

from lema.errors import Problem, RecipeError

# Keys and indices from the top of a file down to a value.
KeyPath = tuple[str | int, ...]

# Aliases may multiply: a few lines of them can stand for billions of values.
MAX_VALUES = 100_000
MAX_DEPTH = 100  # collections in one another; the scanner's time grows with the square of it
LINE_BREAKS = re.compile("[\x85\u2028\u2029]")
SURROGATES = re.compile("[\ud800-\udfff]")
TEXT_TAG = "tag:yaml.org,2002:str"
MERGE_TAG = "tag:yaml.org,2002:merge"
COLLECTION_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
NO_TAG = "a tag (!) is not allowed"


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a file, counted from 1. `block` is true for the text of a `|` or `>` scalar, which starts on the
    next line."""

    file: str
    line: int
    column: int
    block: bool = False

    def problem(self, message: str, line: int = 0) -> Problem:
        """A problem here; `line` counts from 1 in a block of text."""
        if line and self.block:
            return Problem(self.file, self.line + line, 0, message)
        return Problem(self.file, self.line, self.column, message)


@dataclass(frozen=True, slots=True)
class Tree:
    """A value with its place: `value` is a dict of trees, a list of trees or a scalar. `key` is the place of the
    key that it stands under, or else its own. Trees are shared (`read_yaml` is memoized) and never changed."""

    value: Any
    mark: Mark
    key: Mark

    def plain(self) -> Any:
        """The value without places; lists become tuples."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return tuple(child.plain() for child in self.value)
        return self.value

    def find(self, path: KeyPath) -> "Tree | None":
        """The tree at a path of keys and indices; None where there is none."""
        found: Tree = self
        for step in path:
            try:
                found = found.value[step]
            except (KeyError, IndexError, TypeError):
                return None
        return found if isinstance(found, Tree) else None

    def keys(self, *path: str | int) -> tuple[str, ...]:
        """The keys of the mapping at a path; none where there is no mapping."""
        found = self.find(path)
        return tuple(found.value) if found and isinstance(found.value, dict) else ()

    def items(self, *path: str | int) -> Iterator[tuple[KeyPath, "Tree"]]:
        """The entries of the list at a path, each with its own path; none where there is no list."""
        found = self.find(path)
        if found and isinstance(found.value, list):
            yield from (((*path, at), item) for at, item in enumerate(found.value))

    def replaced(self, children: Mapping[KeyPath, "Tree | None"]) -> "Tree | None":
        """This tree with others at some paths, or, with None, without what stands there."""
        if () in children:
            return children[()]
        below = defaultdict[str | int, dict[KeyPath, Tree | None]](dict)
        for (first, *rest), child in children.items():
            below[first][tuple(rest)] = child
        pairs = self.value.items() if isinstance(self.value, dict) else enumerate(self.value)
        made = {key: one.replaced(below[key]) if key in below else one for key, one in pairs}
        kept = {key: one for key, one in made.items() if one is not None}
        return replace(self, value=kept if isinstance(self.value, dict) else list(kept.values()))


def read_yaml(path: Path, file: str) -> Tree:
    """Read a file, once as long as it stays as it is; `file` is what messages call it. Raises RecipeError with every
    problem."""
    try:
        stat = path.stat()
        return _read_file(path, file, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise RecipeError([Problem(file, 0, 0, f"cannot be read: {error.strerror}")]) from None


@functools.lru_cache(maxsize=1024)
def _read_file(path: Path, file: str, changed: int, size: int) -> Tree:
    del changed, size  # they only tell one state of the file from another
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise RecipeError([Problem(file, 0, 0, "is not a text file in UTF-8")]) from None
    return parse_yaml(text, file)


def parse_yaml(text: str, file: str) -> Tree:
    """Read a text; nothing at all is an empty mapping. Raises RecipeError with every problem."""
    for number, line in enumerate(text.split("\n"), 1):
        if found := LINE_BREAKS.search(line):
            message = f"an invisible line break (U+{ord(found.group()):04X}); write it as an escape in double quotes"
            raise RecipeError([Problem(file, number, found.start() + 1, message)])
    reader, top = _TreeBuilder(file), Mark(file, 1, 1)
    row = column = 0
    try:
        node = reader.yaml.compose(text)
        tree = Tree({}, top, top) if node is None else reader.tree(node)
        if reader.problems:
            raise RecipeError(reader.problems)
        return Tree({}, top, top) if tree.value in (None, False, 0, "", []) else replace(tree, mark=top)
    except RecursionError:
        message = "nested too deeply"
    except MarkedYAMLError as error:
        if mark := error.problem_mark or error.context_mark:
            row, column = mark.line + 1, mark.column + 1
        message = f"not valid YAML: {error.problem or error.context}"
    except (ReaderError, ValueError) as error:  # a control character; an escape such as "\U00110000"
        message = f"not valid YAML: {error.reason if isinstance(error, ReaderError) else error}"
    raise RecipeError([Problem(file, row, column, message)])


class _Scanner(Scanner):
    """Raises RecursionError where collections are nested too deeply."""

    def fetch_more_tokens(self) -> Any:
        if len(self.flow_context) + len(self.indents) > MAX_DEPTH:
            raise RecursionError
        return super().fetch_more_tokens()


class _TreeBuilder:
    """From the nodes of one file to trees, gathering problems."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.size = 0
        self.yaml = YAML(typ="safe", pure=True)
        self.yaml.Scanner = _Scanner

    def tree(self, node: Node, key: Mark | None = None, above: tuple[Node, ...] = ()) -> Tree:
        """The tree of a node under a key; `above` are the nodes that it stands in."""
        mark = self._mark(node)
        self.size += 1
        if self.size > MAX_VALUES:
            raise RecipeError([mark.problem(f"aliases make more than {MAX_VALUES:,} values of this file")])
        if node in above:
            self._add(node, "an alias inside what it stands for")
            return Tree(None, mark, key or mark)
        if isinstance(node, MappingNode | SequenceNode) and node.tag not in COLLECTION_TAGS:
            self._add(node, NO_TAG)
        if isinstance(node, MappingNode):
            return Tree(self._mapping(node, (*above, node)), mark, key or mark)
        if isinstance(node, SequenceNode):
            return Tree([self.tree(child, None, (*above, node)) for child in node.value], mark, key or mark)
        return Tree(self._scalar(node), mark, key or mark)

    def _mapping(self, node: MappingNode, above: tuple[Node, ...]) -> dict[str, Tree]:
        """Merged keys (`<<`) first, so that the mapping's own replace them; of several merged, the first wins."""
        own: dict[str, Tree] = {}
        merged: dict[str, Tree] = {}
        seen = set()
        for key_node, value_node in node.value:
            merges = key_node.tag == MERGE_TAG
            key = "<<" if merges else self._scalar(key_node) if isinstance(key_node, ScalarNode) else None
            if not isinstance(key, str):
                shown = f"the key {key_node.value}" if isinstance(key_node, ScalarNode) else "this key"
                self._add(key_node, f"{shown} is not a text; put it in quotes")
            elif (merges, key) in seen:
                self._add(key_node, f"the key {key!r} is here a second time")
            elif merges:
                merged = self._merged(value_node, above)
            else:
                own[key] = self.tree(value_node, self._mark(key_node), above)
            seen.add((merges, key))
        return {**merged, **own}

    def _merged(self, node: Node, above: tuple[Node, ...]) -> dict[str, Tree]:
        merged: dict[str, Tree] = {}
        for source in reversed(node.value) if isinstance(node, SequenceNode) else [node]:
            if isinstance(source, MappingNode):
                merged |= self.tree(source, None, above).value or {}
            else:
                self._add(source, "`<<` takes a mapping or a list of mappings")
        return merged

    def _scalar(self, node: Node) -> Any:
        try:
            value = self.yaml.constructor.construct_object(node)
        except MarkedYAMLError:
            owned = node.value in ("=", "<<")
            self._add(node, f"{node.value} has a meaning of its own in YAML; put it in quotes" if owned else NO_TAG)
            return None
        except (ValueError, OverflowError):
            shown = node.value if len(node.value) <= 20 else f"{node.value[:20]}..."
            self._add(node, f"{shown} looks like a number and is none that can be read; put it in quotes")
            return None
        if isinstance(value, datetime.date):
            self._add(node, f"{node.value} is a date to YAML, which DVC cannot track; put it in quotes")
        elif value is not None and type(value) not in (str, int, float, bool):
            self._add(node, NO_TAG)
        elif isinstance(value, str) and SURROGATES.search(value):
            self._add(node, "half of a character (a lone surrogate); write the whole one")
        return value

    def _mark(self, node: Node) -> Mark:
        start = node.start_mark
        return Mark(self.file, start.line + 1, start.column + 1, getattr(node, "style", None) in ("|", ">"))

    def _add(self, node: Node, message: str) -> None:
        self.problems.append(self._mark(node).problem(message))


_yaml_1_1 = yaml.SafeLoader("")
_yaml_1_2 = YAML(typ="safe", pure=True)


def reads_as_text(text: str) -> bool:
    """Whether a text without quotes is a text to every reader: to YAML 1.1 as well as to DVC."""
    return all(
        reader.resolve(kind, text, (True, False)) == TEXT_TAG
        for reader, kind in ((_yaml_1_1, yaml.ScalarNode), (_yaml_1_2.resolver, ScalarNode))
    )
