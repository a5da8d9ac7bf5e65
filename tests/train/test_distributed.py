"""What the processes of one job reserve and exchange; that they run on a real Ray: `test_jobs.py`."""

from pathlib import Path

import pytest

from lema.compute.archive import pack_folder, unpack_folder
from lema.errors import RunError
from lema.train.distributed import CheckpointBroker, reserved_resources

pytest.importorskip("torch", reason="needs the extra `train`")


def node(**resources: float) -> dict[str, object]:
    return {"Alive": True, "Resources": resources}


def test_what_a_process_reserves() -> None:
    two = [node(CPU=8), node(CPU=4)]
    assert reserved_resources(two, 2, 1) == {"CPU": 4}
    assert reserved_resources(two, 3, 2) == {"CPU": 2}
    assert reserved_resources(two, 12, 9) == {"CPU": 1}, "more jobs than fit wait for one another"
    assert reserved_resources([node(CPU=8, GPU=2), node(CPU=8, GPU=2)], 4, 3) == {"CPU": 1, "GPU": 1}
    with pytest.raises(RunError, match=r"run.trainers is 13, but Ray has 12 processors"):
        reserved_resources(two, 13, 1)
    with pytest.raises(RunError, match=r"run.trainers is 3, but Ray has 2 GPUs"):
        reserved_resources([node(CPU=64, GPU=2)], 3, 1)


def test_a_folder_survives_the_way(tmp_path: Path) -> None:
    (tmp_path / "a" / "deep" / "empty").mkdir(parents=True)
    (tmp_path / "a" / "deep" / "file").write_bytes(b"\0\1")
    unpack_folder(pack_folder(tmp_path / "a"), tmp_path / "b")
    assert (tmp_path / "b" / "deep" / "file").read_bytes() == b"\0\1"
    assert (tmp_path / "b" / "deep" / "empty").is_dir()
    unpack_folder(pack_folder(tmp_path / "a" / "deep"), tmp_path / "b")  # another process was first
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a", "b"]
    assert (tmp_path / "b" / "deep" / "file").read_bytes() == b"\0\1"


def test_what_is_kept_is_handed_out_and_only_what_is_to_stay_stays_beside_it(tmp_path: Path) -> None:
    broker = CheckpointBroker(str(tmp_path / "kept"))
    assert broker.folders("steps") == []
    for step, stay in enumerate((None, ["0"], ["1"])):
        (tmp_path / "new").mkdir(exist_ok=True)
        (tmp_path / "new" / "total").write_text(f"{step}")
        broker.keep(f"steps/{step}", pack_folder(tmp_path / "new"), stay)
    given = broker.folders("steps")
    assert [name for name, _ in given] == ["1", "2"]
    unpack_folder(given[1][1], tmp_path / "fetched")
    assert (tmp_path / "fetched" / "total").read_text() == "2"
