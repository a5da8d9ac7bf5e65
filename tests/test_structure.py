"""The tree as CONTRIBUTING tells it: small modules, one reading order, floors without private doors, one name for one
thing."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from lema.compute.artifacts import ARTIFACTS

ROOT = Path(__file__).resolve().parents[1]
MODULES: Mapping[str, Path] = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "lema").rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
LARGEST_MODULE = 300
LARGEST_CORRIDOR = 3500
# The logger of a module.
SHARED = {"logger"}


def corridor() -> list[Path]:
    """The files of the reading order in CONTRIBUTING.md; of the stages a module an artifact, and what they share."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("## Reading order")[2].partition("\n## ")[0]
    stages = [f"lema/stages/{name}.py" for name in ARTIFACTS if name not in ("plan", "samples")]
    named = [*re.findall(r"^\d+\. `(lema/[\w/]+\.py)`", section, re.MULTILINE), *stages]
    return [ROOT / name for name in (*named, "lema/stages/common.py", "lema/stages/samples/__init__.py")]


def imports(name: str) -> Iterator[str]:
    """The modules of lema that a module imports, inside functions too, but for type checking only."""
    package = MODULES[name].name == "__init__.py"

    def walk(node: ast.AST) -> Iterator[ast.AST]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            yield child
            yield from walk(child)

    for node in walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            above = name.split(".")[: len(name.split(".")) - node.level + package] if node.level else []
            home = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{home}.{alias.name}"
                if full in MODULES or home in MODULES:
                    yield full if full in MODULES else home


def definitions(tree: ast.Module) -> Iterator[str]:
    """The names that a module defines at its top."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def test_only_the_ends_lie_at_the_top() -> None:
    top = {path.stem for path in (ROOT / "lema").glob("*.py")}
    assert top == {"__init__", "__main__", "cli", "errors", "rows"} - ({"__main__"} - top)


def test_the_corridor_is_read_in_an_hour() -> None:
    files = corridor()
    assert {"rows.py", "schema.py", "run.py", "generate.py", "store.py", "types.py", "cli.py"} <= {
        file.name for file in files
    }
    assert sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files) <= LARGEST_CORRIDOR


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_small(name: str) -> None:
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) <= LARGEST_MODULE


def test_no_module_imports_another_packages_private_one() -> None:
    found = [
        (name, other)
        for name in MODULES
        for other in imports(name)
        if any(part.startswith("_") for part in other.split(".")) and name.split(".")[:2] != other.split(".")[:2]
    ]
    assert found == []


def test_there_is_no_circle_of_imports() -> None:
    """Inside functions neither."""
    below = {name: {other for other in imports(name) if other != name} for name in MODULES}
    while free := [name for name, others in below.items() if not others & below.keys()]:
        for name in free:
            del below[name]
    assert sorted(below) == []


def test_a_name_means_one_thing() -> None:
    homes = defaultdict(list)
    for module, tree in TREES.items():
        for name in set(definitions(tree)) - {"__all__", "__version__"}:
            homes[name].append(module.removeprefix("lema."))
    assert {name: where for name, where in sorted(homes.items()) if len(where) > 1 and name not in SHARED} == {}
