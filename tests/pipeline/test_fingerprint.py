"""Fingerprints see what code does."""

import pytest

from lema.pipeline.fingerprint import fingerprint
from lema.recipe.part_loader import PartError

MAIN = '''"""A module."""

import json
from lema_test_code import one

# A comment.
def main(x, *, y=1):
    """A function."""
    from lema_test_code.two import inner
    return inner(x) + one.value + len(json.dumps(y))
'''


@pytest.fixture
def code(tmp_path):
    package = tmp_path / "lema_test_code"
    package.mkdir()
    (package / "main.py").write_text(MAIN)
    (package / "one.py").write_text("value = 1\n")
    (package / "two.py").write_text("from . import three\n\ndef inner(x):\n    return three.f(x)\n")
    (package / "three.py").write_text("def f(x):\n    return x\n")
    (package / "four.py").write_text("unused = True\n")
    return package


def of(code, **more):
    return fingerprint(["lema_test_code.main"], code.parent, **more)


def edited(code, name, old, new):
    """Whether an edit changes the fingerprint."""
    before = of(code)
    file = code / f"{name}.py"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    return of(code) != before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("main", "# A comment.", "# Another."),
        ("main", '"""A module."""', '"""Something longer\n\nand else."""'),
        ("main", '"""A module."""\n', ""),
        ("main", '    """A function."""\n', ""),
        ("main", "def main(x, *, y=1):", "def main(\n    x,\n    *,\n    y = 1,\n):"),
        ("three", "return x", "return (x)"),
        ("four", "True", "False"),
    ],
)
def test_what_does_not_count(code, name, old, new):
    assert not edited(code, name, old, new)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("main", "y=1", "y=2"),
        ("main", "inner(x) +", "inner(x) -"),
        ("one", "value = 1", "value = 1.0"),
        ("one", "value = 1", "value = '1'"),
        ("two", "def inner", "async def inner"),
        ("three", "return x", "return -x"),
    ],
)
def test_what_counts(code, name, old, new):
    assert edited(code, name, old, new)


def test_modules_left_out(code):
    before = of(code, without=["lema_test_code.two"])
    (code / "three.py").write_text("def f(x):\n    return 3\n")
    assert of(code, without=["lema_test_code.two"]) == before


def test_order_and_place_do_not_count(code, tmp_path):
    names = ["lema_test_code.main", "lema_test_code.four"]
    here = fingerprint(names, tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code.rename(elsewhere / "lema_test_code")
    assert fingerprint([*reversed(names), *names], elsewhere) == here
    assert len(here) == 16


def test_no_source(tmp_path):
    with pytest.raises(PartError, match=r"no source file of the module lema\.stages\.nothing"):
        fingerprint(["lema.stages.nothing"], tmp_path)
