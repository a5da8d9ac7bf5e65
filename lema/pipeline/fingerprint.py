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
from collections.abc import Iterable, Sequence
from pathlib import Path

import lema
from lema.pipeline.definitions import Module, Target, parse_module
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


def fingerprint(roots: Iterable[str], root: Path, without: Iterable[str] = ()) -> str:
    """Sixteen hexadecimal digits for `module` or `module:name` roots; modules of the user's are looked for below `root`
    first. What lies in the modules `without` is not followed.

    Raises:
        PartError: a module has no source file.
    """
    reached = _Reached(root, (*LEFT_OUT, *without))
    for one in sorted(set(roots)):
        module, _, name = one.partition(":")
        if find(module, root) is None:
            raise PartError(f"there is no source file of the module {module}")
        reached.start(module, name or EVERYTHING)
    return reached.digest()


def find(module: str, root: Path) -> Path | None:
    """The source file of a module, found without importing it where that is possible."""
    own = _is_own(module)
    base = OWN.parent if own else root
    place = base.joinpath(*module.split("."))
    for file in (place.with_suffix(".py"), place / "__init__.py"):
        if file.is_file():
            return file
    return None if own else source_file(module)


def _is_own(module: str) -> bool:
    return module == "lema" or module.startswith("lema.")


class _Reached:
    """Graph search over definitions; nodes are (module, name), where a name may be EVERYTHING or EFFECTS."""

    def __init__(self, root: Path, left_out: Sequence[str]) -> None:
        self._root, self._left_out = root, left_out
        self._packages = {"lema"}  # whose modules may lie outside the project
        self._found: dict[tuple[str, str], str] = {}
        self._todo: list[tuple[str, str]] = []
        self._seen: set[tuple[str, str]] = set()
        self._followed: set[Target] = set()

    def start(self, module: str, name: str) -> None:
        """Add a root, also of a module that is left out."""
        self._packages.add(module.partition(".")[0])
        self._need(module, name if name in self._read(module).definitions else EVERYTHING)

    def digest(self) -> str:
        while self._todo:
            self._visit(*self._todo.pop())
        lines = "".join(f"{module}:{name} {digest}\n" for (module, name), digest in sorted(self._found.items()))
        return hashlib.sha256(lines.encode()).hexdigest()[:16]

    def _need(self, module: str, name: str) -> None:
        node = module, name if _is_own(module) or name == EFFECTS else EVERYTHING
        if node not in self._seen:
            self._seen.add(node)
            self._todo.append(node)

    def _visit(self, module: str, name: str) -> None:
        read = self._read(module)
        self._run_imports(module)
        if name == EVERYTHING:
            units = list(read.definitions.items())
            for target in itertools.chain(*read.imports.values()):
                # Of lema, what the user's definitions use is followed by name.
                if not _is_own(target[0]) or _is_own(module):
                    self._follow(*target)
        elif name == EFFECTS:
            units = [(EFFECTS, read.effects)] if read.effects else []
            for start, path in itertools.chain(*read.imports.values()):
                self._run_imports(".".join((start, *path)))
        else:
            units = [(name, read.definitions[name])]
        for one, unit in units:
            self._found[module, one] = unit.digest
            for target in itertools.chain(*unit.imports.values()):
                self._follow(*target)
            for head, *attributes in unit.names:
                for start, path in (*unit.imports.get(head, ()), *read.imports.get(head, ())):
                    self._follow(start, (*path, *attributes))
            for head in {names[0] for names in unit.names} | unit.strings:
                if head in read.definitions:
                    self._need(module, head)

    def _follow(self, module: str, path: tuple[str, ...]) -> None:
        """Add what attributes lead to from a module: a definition, one that it imports, or a module below it."""
        if self._file(module) is None or (module, path) in self._followed:
            return
        self._followed.add((module, path))
        self._run_imports(module)
        if not _is_own(module):
            self._need(module, EVERYTHING)
        read, name, rest = self._read(module), path[0] if path else EVERYTHING, path[1:]
        below = f"{module}.{name}"
        if path and find(below, self._root) is not None:
            self._follow(below, rest)
        elif name in read.imports:
            for start, more in read.imports[name]:
                self._follow(start, (*more, *rest))
        elif module != "lema":  # whose version decides nothing
            self._need(module, name if name in read.definitions else EVERYTHING)

    def _run_imports(self, module: str) -> None:
        """Importing a module runs its side effects and those of the packages above it."""
        parts = module.split(".")
        for count in range(1, len(parts) + 1):
            if self._file(package := ".".join(parts[:count])) is not None:
                self._need(package, EFFECTS)

    def _file(self, module: str) -> Path | None:
        """The source of a module whose code counts."""
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or any(f"{module}.".startswith(f"{name}.") for name in self._left_out):
            return None
        if top not in self._packages and not ((self._root / f"{top}.py").is_file() or (self._root / top).is_dir()):
            return None
        return find(module, self._root)

    def _read(self, module: str) -> Module:
        file = find(module, self._root)
        assert file is not None
        stat = file.stat()
        return parse_module(module, file, stat.st_mtime_ns, stat.st_size, settings=module in SETTINGS)
