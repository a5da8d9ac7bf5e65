"""The definitions of a module, from its syntax tree: what each consists of, which names it uses, what it imports."""

import ast
import functools
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Target = tuple[str, tuple[str, ...]]  # a module, and the attributes that lead from it to what is meant


@dataclass(frozen=True)
class Unit:
    """Statements that count together: their digest, dotted names and identifiers in strings, and what they import."""

    digest: str
    names: frozenset[tuple[str, ...]]
    strings: frozenset[str]
    imports: Mapping[str, Sequence[Target]]


@dataclass(frozen=True)
class Module:
    """The definitions of a module by name, what its imports bind, and its side effects."""

    definitions: Mapping[str, Unit]
    imports: Mapping[str, Sequence[Target]]
    effects: Unit | None


@functools.lru_cache(maxsize=1024)
def parse_module(module: str, file: Path, _changed: int, _size: int, *, settings: bool) -> Module:
    """Split a module into definitions and side effects; memoized while the file is as it was. Of the classes of
    `settings` only methods count, and no validators."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    definitions: dict[str, list[ast.stmt]] = defaultdict(list)
    imports: list[ast.AST] = []
    effects: list[ast.stmt] = []
    for statement in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            imports.append(statement)
        elif names := _bound(statement):
            for name in names:
                definitions[name].append(_methods(statement) if settings else statement)
        elif not _does_nothing(statement) and not settings:
            effects.append(statement)
    units = {name: _unit(statements, package) for name, statements in definitions.items()}
    at_top = [*imports, *(node for statement in effects for node in ast.walk(statement))]
    return Module(units, _imports(at_top, package), _unit(effects, package) if effects else None)


def _bound(statement: ast.stmt) -> list[str]:
    """The names that a definition binds; none for a statement that does something else as well."""
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return [statement.name]
        case ast.Assign():
            targets = [one for target in statement.targets for one in getattr(target, "elts", [target])]
        case ast.AnnAssign() | ast.AugAssign():
            targets = [statement.target]
        case _:
            return []
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    return names if len(names) == len(targets) else []


def _does_nothing(statement: ast.stmt) -> bool:
    """Whether a statement has no effect on import: a docstring, or a block for type checkers or for scripts only."""
    if isinstance(statement, ast.If) and not statement.orelse:
        return ast.unparse(statement.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING", "__name__ == '__main__'")
    return isinstance(statement, ast.Pass) or _is_text(statement)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _methods(statement: ast.stmt) -> ast.stmt:
    """A class of settings without its fields and validators."""
    if not isinstance(statement, ast.ClassDef):
        return statement
    body: list[ast.stmt] = [
        one
        for one in statement.body
        if isinstance(one, ast.FunctionDef)
        and not any("validator" in ast.unparse(decorator) for decorator in one.decorator_list)
    ]
    bases = statement.bases
    return ast.ClassDef(name=statement.name, bases=bases, keywords=[], body=body, decorator_list=[])


def _unit(statements: Sequence[ast.stmt], package: str) -> Unit:
    names = {name for statement in statements for name in _names(statement)}
    nodes = [node for statement in statements for node in ast.walk(statement)]
    constants = (node.value for node in nodes if isinstance(node, ast.Constant))
    strings = frozenset(text for text in constants if isinstance(text, str) and text.isidentifier())
    digest = hashlib.sha256(repr(_shape(list(statements))).encode()).hexdigest()
    return Unit(digest, frozenset(names), strings, _imports(nodes, package))


def _names(node: ast.AST) -> Iterator[tuple[str, ...]]:
    """The dotted names in a tree, each as long as it is: `a.b.c`, not `a.b`."""
    attributes: list[str] = []
    inner = node
    while isinstance(inner, ast.Attribute):
        attributes.append(inner.attr)
        inner = inner.value
    if isinstance(inner, ast.Name):
        yield (inner.id, *reversed(attributes))
        return
    for child in ast.iter_child_nodes(inner):
        yield from _names(child)


def _imports(nodes: Iterable[ast.AST], package: str) -> Mapping[str, Sequence[Target]]:
    """What the imports among some nodes bind."""
    found: dict[str, list[Target]] = defaultdict(list)
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name if alias.asname else alias.name.partition(".")[0]
                found[alias.asname or top].append((top, ()))
                if top != alias.name:
                    found[alias.name].append((alias.name, ()))
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            home = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                found[alias.asname or alias.name].append((home, () if alias.name == "*" else (alias.name,)))
    return dict(found)


def _shape(node: Any) -> Any:
    """The tree as nested tuples, without docstrings, places and empty fields: versions of Python that differ in
    what they leave empty agree."""
    if isinstance(node, list):
        return tuple([_shape(item) for item in node if not _is_text(item)])
    if not isinstance(node, ast.AST):
        return node
    fields = ((name, getattr(node, name, None)) for name in sorted(node._fields))
    return (
        type(node).__name__,
        *((name, _shape(value)) for name, value in fields if value is not None and value != []),
    )
