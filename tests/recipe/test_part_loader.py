"""Parts by name: ours, the user's, and what is said when there is none."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest

from lema.recipe.part_loader import PartError, load_part, option_problems, part_names, part_summary


@pytest.fixture
def user(tmp_path, monkeypatch):
    """A package of a user's, importable from the project's folder."""
    package = tmp_path / "lema_test_parts"
    package.mkdir()
    docstring = '"""Keep few,\n    and measure all.\n\n    Never two.\n    """'
    (package / "good.py").write_text(f"def mine(candidates, *, limit: int):\n    {docstring}\n    yield None\n")
    (package / "bad.py").write_text("import nothing_of_this_name\n")
    (package / "worse.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize("kind", ["tasks", "filters", "models"])
def test_every_name_of_ours_loads_and_has_a_summary(kind):
    assert part_names(kind)
    for name in part_names(kind):
        assert not name.startswith("_")
        assert load_part(kind, name) is not None
        assert part_summary(kind, name)


def test_part_of_the_user(user):
    assert load_part("filters", "lema_test_parts.good:mine").__name__ == "mine"
    assert part_summary("filters", "lema_test_parts.good:mine") == "Keep few, and measure all."


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("tasks", "gsm8", "unknown task 'gsm8'; did you mean 'gsm8k'? allowed: "),
        ("filters", "_text", "unknown filter '_text'; "),
        ("models", "lema.models.openai", "unknown backend 'lema.models.openai'; "),
        ("models", "", "unknown backend ''; "),
        (
            "filters",
            "lema_test_parts.good:min",
            "good has no 'min'; did you mean 'mine'? allowed: mine",
        ),
        ("filters", "lema_test_parts.none:mine", "there is no module 'lema_test_parts.none'"),
        ("filters", "lema_test_partz.good:mine", "there is no module 'lema_test_partz'"),
        ("filters", "lema_test_parts.bad:mine", "importing lema_test_parts.bad failed: ModuleNotFoundError: No module"),
        ("filters", "lema_test_parts.worse:mine", "importing lema_test_parts.worse failed: ZeroDivisionError"),
        ("filters", "a b:c", "is not of the form my_pkg.my_mod:my_part"),
        ("filters", "a.b:c.d", "is not of the form my_pkg.my_mod:my_part"),
        ("filters", "../x:y", "is not of the form my_pkg.my_mod:my_part"),
        ("filters", "os:system", "parts do not come from Python's standard library"),
        ("filters", "builtins:eval", "parts do not come from Python's standard library"),
        ("models", "hydra.utils:instantiate", "hydra.utils is no module of parts: it is installed, and"),
    ],
)
def test_no_such_part(user, kind, name, message):
    with pytest.raises(PartError) as error:
        load_part(kind, name)
    assert message in str(error.value)


def part(
    rows: object,
    other: int = 0,
    *,
    count: int,
    share: float = 0.5,
    name: str | None = None,
    flag: bool = False,
    kind: Literal["a", "b"] = "a",
    sizes: Sequence[int] = (),
    pair: tuple[int, str] = (1, ""),
    table: Mapping[str, float] | None = None,
    free: Any = None,
    mixed: Sequence[int | None] = (),
) -> None:
    """A part with an option of each type."""


KNOWN = "allowed: count, flag, free, kind, mixed, name, pair, share, sizes, table"


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        ({"count": 1}, []),
        ({"count": 1, "share": 1, "name": None, "flag": True, "kind": "b", "sizes": (1, 2), "table": {"x": 1}}, []),
        ({"count": 1, "pair": [1, "x"], "free": {"any": ["thing"]}}, []),
        ({}, ["missing option 'count'"]),
        ({"count": True}, ["option 'count' needs a whole number, got True"]),
        ({"count": 1.0}, ["option 'count' needs a whole number, got 1.0"]),
        ({"count": 1, "share": "x"}, ["option 'share' needs a number, got 'x'"]),
        ({"count": 1, "name": 3}, ["option 'name' needs a text or null, got 3"]),
        ({"count": 1, "flag": 1}, ["option 'flag' needs true or false, got 1"]),
        ({"count": 1, "kind": "c"}, ["option 'kind' needs 'a' or 'b', got 'c'"]),
        ({"count": 1, "sizes": ["x"]}, ["option 'sizes' needs a list, each a whole number, got ['x']"]),
        ({"count": 1, "sizes": "12"}, ["option 'sizes' needs a list, each a whole number, got '12'"]),
        ({"count": 1, "pair": [1]}, ["option 'pair' needs a list of a whole number, a text, got [1]"]),
        ({"count": 1, "table": {"x": "y"}}, ["option 'table' needs a mapping or null, got {'x': 'y'}"]),
        ({"count": 1, "mixed": [1, None]}, []),
        ({"count": 1, "mixed": ["x"]}, ["option 'mixed' needs a list, each a whole number or null, got ['x']"]),
        ({"cuont": 1}, [f"unknown option 'cuont'; did you mean 'count'? {KNOWN}", "missing option 'count'"]),
        ({"count": 1, "other": 1}, [f"unknown option 'other'; {KNOWN}"]),
    ],
)
def test_options(options, messages):
    assert [message for _, message in option_problems(part, options)] == messages


def test_options_of_anything_that_can_be_called():
    class Callable:
        def __init__(self, rows, *, size: int) -> None: ...

        def __call__(self, rows, *, depth: int) -> None: ...

    for part_, name in ((Callable, "size"), (Callable(None, size=1), "depth")):
        assert option_problems(part_, {name: "x"}) == [(name, f"option {name!r} needs a whole number, got 'x'")]
    assert option_problems(lambda rows, **rest: rest, {"x": 1}) == []
    assert option_problems(lambda rows, *, x=1: x, {"x": "any"}) == []
