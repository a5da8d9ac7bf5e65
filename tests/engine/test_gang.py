"""Several processes for one job, on a real Ray."""

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from lema.engine.gang import Seat, _demand, gang
from lema.engine.ray import RayExecutor
from lema.engine.ship import packed, unpack
from lema.errors import RunError

pytest.importorskip("torch", reason="needs the extra `train`")


@pytest.fixture(scope="module")
def where() -> Iterator[RayExecutor]:
    with RayExecutor() as it:
        yield it


def node(**resources: float) -> dict[str, object]:
    return {"Alive": True, "Resources": resources}


def test_what_a_process_reserves() -> None:
    two = [node(CPU=8), node(CPU=4)]
    assert _demand(two, 2, 1) == {"CPU": 4}
    assert _demand(two, 3, 2) == {"CPU": 2}
    assert _demand(two, 12, 9) == {"CPU": 1}, "more gangs than fit wait for one another"
    assert _demand([node(CPU=8, GPU=2), node(CPU=8, GPU=2)], 4, 3) == {"CPU": 1, "GPU": 1}
    with pytest.raises(RunError, match=r"run.trainers is 13, but Ray has 12 processors"):
        _demand(two, 13, 1)
    with pytest.raises(RunError, match=r"run.trainers is 3, but Ray has 2 GPUs"):
        _demand([node(CPU=64, GPU=2)], 3, 1)


def test_a_folder_survives_the_way(tmp_path: Path) -> None:
    (tmp_path / "a" / "deep" / "empty").mkdir(parents=True)
    (tmp_path / "a" / "deep" / "file").write_bytes(b"\0\1")
    unpack(packed(tmp_path / "a"), tmp_path / "b")
    assert (tmp_path / "b" / "deep" / "file").read_bytes() == b"\0\1"
    assert (tmp_path / "b" / "deep" / "empty").is_dir()
    unpack(packed(tmp_path / "a" / "deep"), tmp_path / "b")  # another process was first
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a", "b"]
    assert (tmp_path / "b" / "deep" / "file").read_bytes() == b"\0\1"


def counting(mark: Path, seat: Seat) -> None:
    """Adds the ranks up, keeps a file that it counts up, and dies once, the other process in the middle of waiting."""
    import torch
    from torch.distributed import all_reduce

    place = Path(f"{mark}-{os.getpid()}")
    seat.fetch("steps", place)
    step = len(list(place.iterdir()))
    while step < 3:
        total = torch.tensor([seat.rank + 1])
        all_reduce(total)
        if seat.rank == 0:
            new = place / f"new-{step}"
            new.mkdir()
            (new / "total").write_text(f"{total.item()} of {seat.count} at {step}")
            seat.keep(new, f"steps/{step}", [str(one) for one in range(step)])
        elif step == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        step += 1
        seat.tell(step, 3, "")


@pytest.mark.slow
@pytest.mark.timeout(1800)  # Ray Train starts many processes, which takes minutes on a busy machine
def test_a_process_that_dies_lets_all_go_on_from_what_was_kept(where: RayExecutor, tmp_path: Path) -> None:
    news: list[tuple[int, int, str]] = []
    folder = tmp_path / "kept"
    gang(where, partial(counting, tmp_path / "mark"), 2, folder, lambda *said: news.append(said), at_once=1)
    assert (tmp_path / "mark").exists()
    kept = {path.parent.name: path.read_text() for path in sorted(folder.glob("steps/*/total"))}
    assert kept == {str(step): f"3 of 2 at {step}" for step in range(3)}
    assert news[-1] == (3, 3, "")


def failing(seat: Seat) -> None:
    from torch.distributed import barrier

    if seat.rank:
        raise RunError("no such model")
    barrier()


@pytest.mark.slow
@pytest.mark.timeout(1800)  # Ray Train starts many processes, which takes minutes on a busy machine
def test_an_error_of_one_process_is_one_line_and_not_tried_again(where: RayExecutor, tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        gang(where, failing, 2, tmp_path, lambda *_: None, at_once=1)
    assert str(caught.value) == "no such model"
