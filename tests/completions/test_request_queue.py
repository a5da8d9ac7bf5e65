"""Requests that wait on the disk."""

from contextlib import closing
from pathlib import Path

import pytest

from lema.completions.generate import FRAME, RequestQueue
from lema.models.types import Model, Request, Sampling
from lema.rows import Message


def request(n: int, label: str) -> Request:
    return Request(
        Model(label, "scripted", label, options={"n": 1}), (Message("user", f"secret {n} ☃"),), Sampling(), n
    )


@pytest.mark.parametrize("count", [1, FRAME - 1, FRAME, FRAME + 1, 5 * FRAME + 7])
def test_requests_come_back_by_model_in_their_order(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEMA_HOME", str(tmp_path))
    with closing(RequestQueue()) as waiting:
        for n in range(count):
            waiting.add(request(n, "a"))
            waiting.add(request(n, "b"))
        assert waiting.count == 2 * count
        assert [group.model.label for group in waiting.groups.values()] == ["a", "b"]
        # They are read as they are asked for, also when both are read in turn.
        both = zip(*(waiting.requests(group) for group in waiting.groups.values()), strict=True)
        assert list(both) == [(request(n, "a"), request(n, "b")) for n in range(count)]
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == [], "prompts have no name on the disk"
