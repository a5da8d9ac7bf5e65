"""Fingerprints of code: what it does, not how it is written down.

A fingerprint covers modules and all that they import from their own package and from lema, also inside functions.
Comments, docstrings and formatting do not count. Left out of lema: `engine`, which moves bytes without changing
them; `errors`; `component`, which only looks parts up; `recipe`, whose values stand in the plan themselves; and the
version number.
"""

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import lema
from lema.recipe.part_loader import PartError, source_file

OWN = Path(lema.__file__).parent
LEFT_OUT = (
    *("lema.compute", "lema.completions", "lema.errors", "lema.check", "lema.cli", "lema.pipeline"),
    *(
        f"lema.recipe.{name}"
        for name in ("part_loader", "basic_types", "schema", "sampler_schema", "training_schema", "params")
    ),
)


def fingerprint(modules: Iterable[str], root: Path, without: Iterable[str] = ()) -> str:
    """Sixteen hexadecimal digits for modules by their dotted names; those of the user are looked for below `root`
    first. What only the modules `without` import does not count. Raises PartError for a module that has no source
    file."""
    left_out = (*LEFT_OUT, *without)
    seen: dict[str, str] = {}
    todo = sorted(set(modules))
    for name in todo:
        if find(name, root) is None:
            raise PartError(f"there is no source file of the module {name}")
    while todo:
        name = todo.pop()
        file = find(name, root)
        if name in seen or file is None:
            continue
        stat = file.stat()
        seen[name], imported = _read(name, file, stat.st_mtime_ns, stat.st_size)
        todo += [
            other
            for other in imported
            if other != "lema" and not any(f"{other}.".startswith(f"{name}.") for name in left_out)
        ]
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(seen.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def find(module: str, root: Path) -> Path | None:
    """The source file of a module, found without importing it where that is possible."""
    own = module == "lema" or module.startswith("lema.")
    base = OWN.parent if own else root
    place = base.joinpath(*module.split("."))
    for file in (place.with_suffix(".py"), place / "__init__.py"):
        if file.is_file():
            return file
    return None if own else source_file(module)


@functools.lru_cache(maxsize=1024)
def _read(module: str, file: Path, changed: int, size: int) -> tuple[str, tuple[str, ...]]:
    """The digest of one module's code, and the names that it may import from its package and from lema."""
    del changed, size  # they only tell one state of the file from another
    tree = ast.parse(file.read_text(encoding="utf-8"))
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    known = {"lema", module.partition(".")[0]}
    imported = {name for name in _imports(tree, package) if name.partition(".")[0] in known}
    return hashlib.sha256(repr(_shape(tree)).encode()).hexdigest(), tuple(sorted(imported - {module}))


def _imports(tree: ast.Module, package: str) -> Iterator[str]:
    """What is imported anywhere, as dotted names; of `from a import b`, both a and a.b, one of which is a module."""
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            home = ".".join([*above, *([node.module] if node.module else [])])
            yield home
            yield from (f"{home}.{alias.name}" for alias in node.names)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """All statements below a node, which are never in an expression."""
    for field in ("body", "orelse", "finalbody", "handlers", "cases"):
        for child in getattr(node, field, ()):
            yield child
            yield from _statements(child)


def _shape(node: Any) -> Any:
    """The tree as nested tuples, without docstrings, places and empty fields: versions of Python that differ in
    what they leave empty agree."""
    if isinstance(node, list):
        return tuple([_shape(item) for item in node])
    if not isinstance(node, ast.AST):
        return node
    kept = []
    for name in sorted(node._fields):
        value: Any = getattr(node, name, None)
        if name == "body" and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            value = value[1:] if ast.get_docstring(node, clean=False) is not None else value
        if value is not None and value != []:
            kept.append((name, _shape(value)))
    return (type(node).__name__, *kept)
