"""YAML as DVC reads it, with the place of every key and value.

DVC reads YAML 1.2 with ruamel.yaml; plain PyYAML reads 1.1, where `1e-4` is a text, `yes` is true and `012` is ten.
This loader is PyYAML's scanner with the scalars of DVC's reader. What the two could read differently, and what makes
DVC fail (dates, repeated keys, tags, several documents), is a problem with a line instead. Whatever it accepts,
DVC reads the same: held by tests/plan/test_yaml.py.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from lema.errors import Problem, RecipeError

Path_ = tuple[str | int, ...]

# Aliases may multiply: a few lines of them can stand for billions of values.
LARGEST = 100_000
PLAIN = "plain"

WORDS: Mapping[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
WHOLE = re.compile(
    r"(?=[-+0-9])[-+]?(?:0b(?P<two>[01_]+)|0x(?P<sixteen>[0-9a-fA-F_]+)|0o(?P<eight>[0-7_]+)|(?P<ten>[0-9_]+))"
)
REAL = re.compile(
    r"[-+]?[0-9][0-9_]*(?:\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)|[-+]?\.[0-9_]+(?:[eE][-+][0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
DATE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?"
    r"(?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::[0-9]{2})?))?"
)
BREAKS = re.compile("[\x85\u2028\u2029]")


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
    key that it stands under, or else its own."""

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

    def find(self, path: Path_) -> "Tree | None":
        """The tree at a path of keys and indices."""
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


def load(path: Path, file: str) -> Tree:
    """Read a file; `file` is what messages call it. Raises RecipeError with every problem."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RecipeError([Problem(file, 0, 0, f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise RecipeError([Problem(file, 0, 0, "is not a text file in UTF-8")]) from None
    return loads(text, file)


def loads(text: str, file: str) -> Tree:
    """Read a text; nothing at all is an empty mapping. Raises RecipeError with every problem."""
    for number, line in enumerate(text.split("\n"), 1):
        if found := BREAKS.search(line):
            message = f"an invisible line break (U+{ord(found.group()):04X}); write it as an escape in double quotes"
            raise RecipeError([Problem(file, number, found.start() + 1, message)])
    try:
        node = yaml.compose(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        raise RecipeError([Problem(file, *place, f"not valid YAML: {error.problem or error.context}")]) from None
    except yaml.reader.ReaderError as error:
        raise RecipeError([Problem(file, 0, 0, f"not valid YAML: {error.reason}")]) from None
    except RecursionError:
        raise RecipeError([Problem(file, 0, 0, "nested too deeply")]) from None
    top = Mark(file, 1, 1)
    if node is None:
        return Tree({}, top, top)
    reader = _Reader(file)
    try:
        tree = reader.read(node, top)
    except RecursionError:
        raise RecipeError([Problem(file, 0, 0, "nested too deeply")]) from None
    if reader.problems:
        raise RecipeError(reader.problems)
    return Tree({}, top, top) if tree.value in (None, False, 0, "", []) else replace(tree, mark=top)


class _Loader(yaml.SafeLoader):
    """Gives no types: `_Reader` does. Refuses directives and tags, which change what a scalar is."""

    def resolve(self, *_: Any) -> str:
        return PLAIN

    def fetch_value(self) -> None:
        # Without it, as in `[a:]` or `["a":1]`, the readers of YAML 1.1 and 1.2 part ways.
        if self.flow_level and self.peek(1) not in " \t\r\n\0":
            raise yaml.MarkedYAMLError(problem="a space is needed after ':'", problem_mark=self.get_mark())
        super().fetch_value()

    def scan_anchor(self, kind: Any) -> Any:
        token = super().scan_anchor(kind)  # type: ignore[no-untyped-call]
        if self.peek() in "?:%@`":
            raise yaml.MarkedYAMLError(problem="a space is needed after a name", problem_mark=self.get_mark())
        return token

    def scan_directive(self) -> Any:
        raise yaml.MarkedYAMLError(problem="a directive (%) is not allowed", problem_mark=self.get_mark())

    def scan_tag(self) -> Any:
        raise yaml.MarkedYAMLError(problem="a tag (!) is not allowed", problem_mark=self.get_mark())


class _Reader:
    """From nodes to trees, gathering problems."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.size = 0
        self.above: list[Node] = []

    def read(self, node: Node, key: Mark | None = None) -> Tree:
        mark = self._mark(node)
        self.size += 1
        if node in self.above:
            self._say(node, "an alias inside what it stands for")
        elif self.size > LARGEST:
            raise RecipeError([mark.problem(f"aliases make more than {LARGEST:,} values of this file")])
        else:
            self.above.append(node)
            value = self._value(node)
            self.above.pop()
            return Tree(value, mark, key or mark)
        return Tree(None, mark, key or mark)

    def _value(self, node: Node) -> Any:
        if isinstance(node, MappingNode):
            return dict(self._items(node))
        if isinstance(node, SequenceNode):
            return [self.read(child) for child in node.value]
        return self._scalar(node) if isinstance(node, ScalarNode) else None

    def _items(self, node: MappingNode) -> Iterator[tuple[str, Tree]]:
        """Merged keys (`<<`) first, so that the mapping's own replace them; of several merged, the first wins."""
        own: dict[str, Tree] = {}
        seen = set()
        for key_node, value_node in node.value:
            merges = isinstance(key_node, ScalarNode) and key_node.style is None and key_node.value == "<<"
            key = "<<" if merges else self._key(key_node)
            if key is None:
                self.read(value_node)
                continue
            if (merges, key) in seen:
                self._say(key_node, f"the key {key!r} is here a second time")
                self.read(value_node)
                continue
            seen.add((merges, key))
            if merges:
                yield from self._merged(value_node)
            else:
                own[key] = self.read(value_node, self._mark(key_node))
        yield from own.items()

    def _merged(self, node: Node) -> Iterator[tuple[str, Tree]]:
        sources = list(reversed(node.value)) if isinstance(node, SequenceNode) else [node]
        for source in sources:
            if not isinstance(source, MappingNode):
                self._say(source, "`<<` takes a mapping or a list of mappings")
            elif source in self.above:
                self._say(source, "an alias inside what it stands for")
            else:
                self.above.append(source)
                yield from self._items(source)
                self.above.pop()

    def _key(self, node: Node) -> str | None:
        value = self._scalar(node) if isinstance(node, ScalarNode) else None
        if isinstance(value, str):
            return value
        shown = f"the key {node.value}" if isinstance(node, ScalarNode) else "this key"
        self._say(node, f"{shown} is not a text; put it in quotes")
        return None

    def _scalar(self, node: ScalarNode) -> Any:
        text = str(node.value)
        if node.style is not None:
            return text
        try:
            return _plain(text)
        except ValueError as error:
            self._say(node, str(error))
            return None

    def _mark(self, node: Node) -> Mark:
        start = node.start_mark
        return Mark(self.file, start.line + 1, start.column + 1, getattr(node, "style", None) in ("|", ">"))

    def _say(self, node: Node, message: str) -> None:
        self.problems.append(self._mark(node).problem(message))


def _plain(text: str) -> Any:
    """The value of a scalar without quotes; raises ValueError for what DVC cannot read."""
    if text in WORDS:
        return WORDS[text]
    sign = -1 if text.startswith("-") else 1
    if found := WHOLE.fullmatch(text):
        base = {"two": 2, "eight": 8, "sixteen": 16}.get(found.lastgroup or "", 10)
        return sign * _number(text, lambda: int(found[found.lastgroup or 0].replace("_", ""), base))
    if REAL.fullmatch(text):
        return _number(text, lambda: float(re.sub(r"\.(?=inf|nan)|_", "", text.lower())))
    if DATE.fullmatch(text):
        raise ValueError(f"{text} is a date to YAML, which DVC cannot track; put it in quotes")
    if text in ("=", "<<"):
        raise ValueError(f"{text} has a meaning of its own in YAML; put it in quotes")
    return text


def _number(text: str, read: Callable[[], float]) -> Any:
    try:
        return read()
    except ValueError:
        shown = text if len(text) <= 20 else f"{text[:20]}..."
        raise ValueError(f"{shown} looks like a number and is none that can be read; put it in quotes") from None


_ELEVEN = yaml.SafeLoader("")


def reads_as_text(text: str) -> bool:
    """Whether a text without quotes is a text to every reader: to YAML 1.1 as well as to DVC."""
    try:
        resolved: str = _ELEVEN.resolve(ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        return _plain(text) is text and resolved.endswith(":str")
    except ValueError:
        return False
