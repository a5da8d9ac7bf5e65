"""Requests that wait on the disk."""

from pathlib import Path

import pytest

from lema.completions.request_queue import FRAME, RequestQueue
from lema.models.types import Model, Request, Sampling
from lema.rows import Message


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LEMA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def request(n: int, label: str) -> Request:
    return Request(
        Model(label, "scripted", label, options={"n": 1}), (Message("user", f"secret {n} ☃"),), Sampling(), n
    )


@pytest.mark.parametrize("count", [1, FRAME - 1, FRAME, FRAME + 1, 5 * FRAME + 7])
@pytest.mark.parametrize("size", [1, 8, 100])
def test_requests_come_back_by_model_in_their_order(count: int, size: int) -> None:
    with RequestQueue() as waiting:
        for n in range(count):
            waiting.add(request(n, "a"))
            waiting.add(request(n, "b"))
        assert waiting.count == 2 * count
        assert [group.model.label for group in waiting.groups.values()] == ["a", "b"]
        for group in waiting.groups.values():
            blocks = list(waiting.blocks(group, size))
            assert [one for block in blocks for one in block] == [request(n, group.model.label) for n in range(count)]
            assert {len(block) for block in blocks[:-1]} <= {size}
            assert 0 < len(blocks[-1]) <= size


def test_prompts_have_no_name_on_the_disk(home: Path) -> None:
    with RequestQueue() as waiting:
        for n in range(3 * FRAME):
            waiting.add(request(n, "a"))
        assert [path for path in home.rglob("*") if path.is_file()] == []
        # Blocks are read as they are asked for, also when several are read in turn.
        (group,) = waiting.groups.values()
        one, two = waiting.blocks(group, 2), waiting.blocks(group, 3)
        assert next(one)[0] == next(two)[0]
