"""Fingerprints of code: what a stage runs, not how it is written down.

A fingerprint covers definitions (functions, classes, constants), not files: those that are reachable by name from some
roots, found in the syntax trees without importing anything. Comments, docstrings and formatting do not count; nor does
a definition beside a used one. Statements with side effects on import count as soon as their module is imported. Where
a name cannot be followed, the whole module counts. Modules of the user's count whole, with all that they import from
the project: nothing is known of their habits, such as registries; those of lema are held by a test.

Left out of lema: what moves bytes without changing them, messages of errors, and the fields of settings, whose values
stand in the plan themselves (what a setting's own methods compute does count).
"""

import hashlib
import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import lema
from lema.pipeline.definitions import Module, Target, Unit, parse_module
from lema.recipe.part_loader import PartError, source_file

OWN = Path(lema.__file__).parent
LEFT_OUT = (
    *("lema.compute", "lema.completions", "lema.errors", "lema.check", "lema.cli", "lema.pipeline"),
    *("lema.recipe.part_loader", "lema.models.throttle"),
)
# Modules of settings: of their classes only methods count, and no validators.
SETTINGS = tuple(
    f"lema.recipe.{name}" for name in ("basic_types", "schema", "sampler_schema", "training_schema", "params")
)
EVERYTHING, EFFECTS = "*", ""  # beside the names of definitions


Node = tuple[str, str]  # a module and a definition of it, EVERYTHING or EFFECTS


def fingerprint(roots: Iterable[str], root: Path) -> str:
    """The fingerprint of one thing; see `CodeGraph.fingerprint`."""
    return CodeGraph(root).fingerprint(roots)


class CodeGraph:
    """The definitions of lema and of a project, with an edge to each that one uses. Files are read when they are first
    asked for, and once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: dict[str, Path | None] = {}
        self._modules: dict[str, Module] = {}
        self._edges: dict[Node, set[Node]] = {}

    def fingerprint(self, roots: Iterable[str], without: Iterable[str] = ()) -> str:
        """Sixteen hexadecimal digits for `module` or `module:name` roots; those of the user are looked for below the
        project first. What lies in the modules `without` does not count.

        Raises:
            PartError: a module has no source file, or one of lema no such definition.
        """
        left_out = tuple(f"{name}." for name in (*LEFT_OUT, *without))
        todo = [self._start(one) for one in sorted(set(roots))]
        found: dict[Node, str] = {}
        while todo:
            node = todo.pop()
            if node in found:
                continue
            if node not in self._edges:
                self._edges[node] = set(self._follow_unit(*node))
            found[node] = self._digest(*node)
            todo += [other for other in self._edges[node] if not f"{other[0]}.".startswith(left_out)]
        lines = "".join(
            f"{module}:{name} {found[module, name]}\n" for module, name in sorted(found) if found[module, name]
        )
        return hashlib.sha256(lines.encode()).hexdigest()[:16]

    def _start(self, root: str) -> Node:
        module, _, name = root.partition(":")
        self._files[module] = find(module, self._root)
        if self._files[module] is None:
            raise PartError(f"there is no source file of the module {module}")
        if not _is_own(module) or not name:
            return module, EVERYTHING
        if name not in self._module(module).definitions:
            raise PartError(f"there is no definition of {name} in the module {module}")
        return module, name

    def _unit(self, module: str, name: str) -> Unit | None:
        read = self._module(module)
        return read.effects if name == EFFECTS else read.definitions[name]

    def _digest(self, module: str, name: str) -> str:
        """Of a node that stands for others, nothing: these are its successors."""
        unit = None if name == EVERYTHING else self._unit(module, name)
        return unit.digest if unit else ""

    def _follow_unit(self, module: str, name: str) -> Iterator[Node]:
        read = self._module(module)
        yield from self._imported(module)
        if name == EVERYTHING:
            yield from ((module, one) for one in read.definitions)
            for target in itertools.chain(*read.imports.values()):
                # Of lema, what the user's definitions use is followed by name.
                if not _is_own(target[0]) or _is_own(module):
                    yield from self._follow(*target)
            return
        if name == EFFECTS:
            for start, path in itertools.chain(*read.imports.values()):
                yield from self._imported(".".join((start, *path)))
        if (unit := self._unit(module, name)) is None:
            return
        for target in itertools.chain(*unit.imports.values()):
            yield from self._follow(*target)
        for head, *attributes in unit.names:
            for start, path in (*unit.imports.get(head, ()), *read.imports.get(head, ())):
                yield from self._follow(start, (*path, *attributes))
        used = {names[0] for names in unit.names} | unit.strings
        yield from ((module, head) for head in used if head in read.definitions)

    def _follow(self, module: str, path: tuple[str, ...], above: tuple[Target, ...] = ()) -> Iterator[Node]:
        """What attributes lead to from a module: a definition, one that it imports, or a module below it."""
        if (module, path) in above:
            return
        yield from self._imported(module)
        if self._file(module) is None:
            if path and self._file(f"{module}.{path[0]}") is not None:  # of a package without __init__.py
                yield from self._follow(f"{module}.{path[0]}", path[1:])
            return
        if not _is_own(module):
            yield module, EVERYTHING
        above = (*above, (module, path))
        read, name, rest = self._module(module), path[0] if path else EVERYTHING, path[1:]
        if path and self._file(f"{module}.{name}") is not None:
            yield from self._follow(f"{module}.{name}", rest, above)
        elif name in read.imports:
            for start, more in read.imports[name]:
                yield from self._follow(start, (*more, *rest), above)
        elif module != "lema":  # whose version decides nothing
            yield module, name if _is_own(module) and name in read.definitions else EVERYTHING

    def _imported(self, module: str) -> Iterator[Node]:
        """Importing a module runs its side effects and those of the packages above it."""
        parts = module.split(".")
        names = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
        return ((name, EFFECTS) for name in names if self._file(name) is not None)

    def _file(self, module: str) -> Path | None:
        """The source of a module of lema or of the project, or of an installed package that a root lies in."""
        if module not in self._files:
            top = module.partition(".")[0]
            ours = top == "lema" or top in {name.partition(".")[0] for name, file in self._files.items() if file}
            here = (self._root / f"{top}.py").is_file() or (self._root / top).is_dir()
            known = top not in sys.stdlib_module_names and (ours or here)
            self._files[module] = find(module, self._root) if known else None
        return self._files[module]

    def _module(self, module: str) -> Module:
        if module not in self._modules:
            file = self._files[module]
            assert file is not None
            stat = file.stat()
            self._modules[module] = parse_module(
                module, file, stat.st_mtime_ns, stat.st_size, settings=module in SETTINGS
            )
        return self._modules[module]


def find(module: str, root: Path) -> Path | None:
    """The source file of a module, found without importing it where that is possible."""
    base = OWN.parent if _is_own(module) else root
    place = base.joinpath(*module.split("."))
    for file in (place.with_suffix(".py"), place / "__init__.py"):
        if file.is_file():
            return file
    return None if _is_own(module) else source_file(module)


def _is_own(module: str) -> bool:
    return module == "lema" or module.startswith("lema.")
