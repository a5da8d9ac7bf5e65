"""Fingerprints see what code does: which edit makes which artifacts stale."""

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lema
from lema.pipeline.fingerprint import LEFT_OUT, CodeGraph, fingerprint
from lema.pipeline.plan import make_plan
from lema.recipe.load import load_recipe
from lema.recipe.part_loader import PartError
from tests.small_project import Project, small_project

PACKAGE = Path(lema.__file__).parent
NEW = "NEW"  # a new function at the end of a file
EFFECT = "EFFECT"  # a statement that runs when the module is imported
ROWS = {"source", "questions", "samples", "grades", "corrections", "verdicts", "mix", "answers", "probe"}
ASKING = {"samples", "corrections", "answers", "probe"}
TASK = {"questions", "grades", "corrections", "verdicts", "answers"}

# One edit a row: a file of lema, which definition of it gets another statement, and the artifacts of the recipe `good`
# that become stale. Its base is an embedded model, its corrector an endpoint; it filters by `max_tokens`.
EDITS: list[tuple[str, str, set[str]]] = [
    # Of a stage, what it calls; of what stages share, what each of them uses.
    ("stages/mix.py", NEW, set()),
    ("stages/mix.py", "mix", {"mix"}),
    ("stages/corrections.py", "corrections", {"corrections"}),
    ("stages/grades.py", "grade_text", {"grades", "samples", "answers"}),
    ("stages/common.py", "trained_models", {"answers", "probe"}),
    # Reading of files decides the bytes of `source` and of what else reads files.
    ("text/record_files.py", "_jsonl", {"source", "questions", "samples"}),
    ("text/record_files.py", NEW, set()),
    # Text: the plain base and the adapter use none of it.
    ("text/correction_format.py", NEW, set()),
    ("text/correction_format.py", "parse_correction", {"corrections"}),
    ("text/steps.py", NEW, set()),
    ("text/steps.py", "split_steps", {"samples", "corrections", "verdicts", "mix", "export", "probe", "report"}),
    ("text/arithmetic.py", NEW, set()),
    ("text/arithmetic.py", "equations", {"samples"}),
    ("text/ngrams.py", EFFECT, {"questions", "verdicts"}),
    # The recipe: fields and their values stand in the plan, so only what renders prompts counts.
    ("recipe/prompt.py", NEW, set()),
    ("recipe/prompt.py", "render", ASKING | {"mix", "export"}),
    ("recipe/schema.py", "SourceSpec", set()),
    ("recipe/training_schema.py", "AdapterSpec", set()),
    # Rows: their class decides the schema of who writes and who reads them.
    ("rows.py", NEW, set()),
    ("rows.py", "Grade", {"grades", "corrections", "mix", "export", "report"}),
    ("rows.py", "Example", {"mix", "export", "adapter", "report"}),
    # Models: a backend concerns those that ask it, what all share those that ask.
    ("models/openai.py", NEW, set()),
    ("models/openai.py", "openai", {"corrections"}),
    ("models/transformers.py", "transformers", {"samples", "answers", "probe"}),
    ("models/throttle.py", NEW, set()),
    ("models/types.py", NEW, set()),
    ("models/types.py", "Request", ASKING),
    ("models/tokenize.py", "prompt_token_ids", {"samples", "mix", "adapter", "answers", "probe"}),
    # Parts by name: those that the recipe names.
    ("filters/max_tokens.py", "max_tokens", {"verdicts"}),
    ("filters/contamination.py", "contamination", {"verdicts"}),
    ("filters/duplicate.py", "duplicate", set()),
    ("tasks/word_problems.py", "generate", TASK | {"source"}),
    ("tasks/numeric.py", "extract_number", TASK | {"source"}),
    ("tasks/gsm8k.py", "gsm8k", set()),
    ("correctors/alignment.py", NEW, set()),
    # Training.
    ("train/lora.py", "train_adapter", {"adapter"}),
    ("train/base.py", "write_base", {"base"}),
    ("train/embedded.py", "ensure_embedded", {"base"}),
    ("train/pretrain.py", "pretrain", set()),
    ("train/distributed.py", NEW, set()),
    ("train/likelihood.py", "completion_losses", {"probe"}),
    # What moves bytes decides none, but for the schema and the layout of the files.
    ("compute/parquet.py", "write_rows", set()),
    ("compute/parquet.py", "arrow_schema", ROWS),
    ("compute/parquet.py", "LAYOUT", ROWS),
    ("compute/executor.py", EFFECT, set()),
    ("completions/store.py", EFFECT, set()),
    ("report/card.py", NEW, set()),
    ("report/templates/report.md.j2", NEW, {"report"}),
    ("report/templates/card.md.j2", NEW, {"export"}),
    ("pipeline/plan.py", EFFECT, set()),
    ("check/check.py", EFFECT, set()),
    ("errors.py", EFFECT, set()),
    ("cli.py", EFFECT, set()),
    ("__init__.py", "__version__", set()),
]


class Lema:
    """A copy of the package whose files a test may edit, and the plan of a recipe that is made with it."""

    def __init__(self, folder: Path, project: Project) -> None:
        self.folder, self.root = folder, project.root
        self.loaded = load_recipe(project.root / "recipes/good.yaml", project.root)
        self.before = self.plan()

    def plan(self) -> dict[str, Any]:
        return make_plan(self.loaded, self.root)

    def stale(self, file: str, text: str) -> set[str]:
        """The artifacts that become stale when a file has this text; it is put back then."""
        path = self.folder / file
        old = path.read_text(encoding="utf-8")
        assert old != text
        path.write_text(text, encoding="utf-8")
        try:
            now = self.plan()
        finally:
            path.write_text(old, encoding="utf-8")
        return {artifact for artifact, key in self.before.items() if now[artifact] != key}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lema]:
    root = tmp_path_factory.mktemp("code")
    shutil.copytree(PACKAGE, root / "lema", ignore=shutil.ignore_patterns("__pycache__"))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("lema.pipeline.fingerprint.OWN", "lema.pipeline.plan.OWN"):
            patch.setattr(name, root / "lema")
        yield Lema(root / "lema", small_project(root / "project"))


def edited(text: str, name: str) -> str:
    """A module with another statement in one of its definitions."""
    if name in (NEW, EFFECT):
        return text + {NEW: "\n\ndef another():\n    return 1\n", EFFECT: "\nprint()\n"}[name]
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef) and statement.name == name:
            last = statement.body[-1]
            lines = text.splitlines(keepends=True)
            at = min(one.lineno for one in (last, *getattr(last, "decorator_list", ())))
            lines.insert(at - 1, " " * last.col_offset + "assert True\n")
            return "".join(lines)
    assert f"\n{name}" in text, f"there is no {name}"
    return f"{text}\n{name} = {name}\n"


@pytest.mark.parametrize(("file", "name", "expected"), EDITS, ids=[f"{file}-{name}" for file, name, _ in EDITS])
def test_what_an_edit_makes_stale(copy: Lema, file: str, name: str, expected: set[str]) -> None:
    assert copy.stale(file, edited((copy.folder / file).read_text(encoding="utf-8"), name)) == expected


@pytest.mark.parametrize("file", ["stages/mix.py", "train/lora.py", "rows.py"])
def test_comments_docstrings_and_formatting_make_nothing_stale(copy: Lema, file: str) -> None:
    text = (copy.folder / file).read_text(encoding="utf-8")
    assert copy.stale(file, "# A comment.\n" + text.replace('"""', '"""Also: ').replace("Also: \n", "\n")) == set()
    assert copy.stale(file, ast.unparse(ast.parse(text))) == set()


def test_every_package_of_lema_is_in_the_table() -> None:
    packages = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert packages == {file.partition("/")[0] for file, _, _ in EDITS if "/" in file}
    files = [PACKAGE.parent.joinpath(*name.split(".")) for name in LEFT_OUT]
    assert all(file.is_dir() or file.with_suffix(".py").is_file() for file in files)


def test_code_of_lema_looks_nothing_up_that_cannot_be_followed() -> None:
    """No registries, no star imports, no look-ups in namespaces: what is used stands there by name."""
    known = {
        "dataclass",
        "cache",
        "lru_cache",
        "contextmanager",
        "fixed",
        "row_class",
        "dataclass_transform",
        "pass_context",
        "cpu_bound",
        "runtime_checkable",
        "overload",
    }
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        if f"{name}.".startswith(tuple(f"{one}." for one in LEFT_OUT)):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert not calls & {"globals", "eval", "exec", "__import__", "import_module", "importlib.import_module"}, path
        assert "__subclasses__" not in ast.unparse(tree), path
        for node in tree.body:
            assert not (isinstance(node, ast.ImportFrom) and node.names[0].name == "*"), path
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                decorators = {ast.unparse(one).partition("(")[0].rpartition(".")[2] for one in node.decorator_list}
                assert decorators <= known, path


# A package of the user's: all of a module counts, with what it imports from the project and from lema by name.

MAIN = '''"""A module."""

import json
import lema_test_helpers
from lema_test_code import one
from lema.text import steps

# A comment.
def main(x, *, y=1):
    """A function."""
    from lema_test_code.two import inner
    return inner(x) + one.value + len(json.dumps(y)) + len(steps.split_steps(x)) + lema_test_helpers.one
'''


@pytest.fixture
def code(tmp_path: Path) -> Path:
    package = tmp_path / "lema_test_code"
    package.mkdir()
    (package / "main.py").write_text(MAIN)
    (package / "one.py").write_text("value = 1\n")
    (package / "two.py").write_text("from . import three\n\ndef inner(x):\n    return three.f(x)\n")
    (package / "three.py").write_text("from .five import *\n\ndef f(x):\n    return x\n")
    (package / "four.py").write_text("unused = True\n")
    (package / "five.py").write_text("used = True\n")
    (tmp_path / "lema_test_helpers.py").write_text("one = 1\n")
    return package


def of(code: Path) -> str:
    return fingerprint(["lema_test_code.main:main"], code.parent)


@pytest.mark.parametrize(
    ("name", "old", "new", "counts"),
    [
        ("main", "# A comment.", "# Another.", False),
        ("main", '"""A module."""', '"""Something longer\n\nand else."""', False),
        ("main", '"""A module."""\n', "", False),
        ("main", '    """A function."""\n', "", False),
        ("main", "def main(x, *, y=1):", "def main(\n    x,\n    *,\n    y = 1,\n):", False),
        ("three", "return x", "return (x)", False),
        ("four", "True", "False", False),
        ("main", "y=1", "y=2", True),
        ("main", "inner(x) +", "inner(x) -", True),
        ("main", "# A comment.", "register(main)", True),
        ("one", "value = 1", "value = 1.0", True),
        ("one", "value = 1", "value = '1'", True),
        ("one", "value = 1", "value = 1\nother = 2", True),
        ("two", "def inner", "async def inner", True),
        ("three", "return x", "return -x", True),
        ("five", "True", "False", True),
        ("../lema_test_helpers", "one = 1", "one = 2", True),
    ],
)
def test_edits_of_the_users_code(code: Path, name: str, old: str, new: str, counts: bool) -> None:
    before = of(code)
    file = code / f"{name}.py"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    assert (of(code) != before) is counts


def test_the_users_code_is_stale_with_what_it_uses_of_lema(copy: Lema, code: Path) -> None:
    file = copy.folder / "text/steps.py"
    text, found = file.read_text(encoding="utf-8"), []
    for name in ("split_steps", NEW):
        before = of(code)
        file.write_text(edited(text, name), encoding="utf-8")
        found.append(of(code) != before)
        file.write_text(text, encoding="utf-8")
    assert found == [True, False]


def test_order_and_place_do_not_count(code: Path, tmp_path: Path) -> None:
    names = ["lema_test_code.main", "lema_test_code.four"]
    here = fingerprint(names, tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in (code, tmp_path / "lema_test_helpers.py"):
        path.rename(elsewhere / path.name)
    assert fingerprint([*reversed(names), *names], elsewhere) == here
    assert len(here) == 16


def test_modules_without(code: Path) -> None:
    def found() -> str:
        return CodeGraph(code.parent).fingerprint(["lema_test_code.main"], without=["lema_test_code.two"])

    before = found()
    (code / "three.py").write_text("def f(x):\n    return 3\n")
    assert found() == before


@pytest.mark.parametrize("root", ["lema.stages.nothing", "lema_test_nothing", "lema.stages.mix:nothing"])
def test_no_such_code(root: str, tmp_path: Path) -> None:
    with pytest.raises(PartError, match=r"^there is no (source file|definition)"):
        fingerprint([root], tmp_path)
