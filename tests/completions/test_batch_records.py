"""Records of what is on the way outlive every end of a process."""

import os
from pathlib import Path

import pytest

from lema.completions import batch_records
from lema.completions.batch_records import Record, alone, begin, on_the_way
from lema.errors import RunError

HERE, THERE = batch_records.place("http://here/v1"), batch_records.place("http://there/v1")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEMA_HOME", str(tmp_path))


def found(*wanted: str, endpoint: str = HERE) -> list[Record]:
    with alone():
        records = list(on_the_way(endpoint, wanted))
    for record in records:
        record.release()
    return records


def made(*keys: str, **steps: str) -> Record:
    with alone():
        record = begin(HERE, keys)
    for step, value in steps.items():
        record.note(step, value)
    record.release()
    return record


def test_a_record_is_read_as_it_was_written() -> None:
    record = made("a", "b", file="f", batch="b1")
    (again,) = found("b", "c")
    assert (again.path, again.keys, again.file, again.batch, again.left) == (record.path, {"a", "b"}, "f", "b1", None)
    assert found("c") == found("a", endpoint=THERE) == []
    assert batch_records.place("http://here/v1/") == HERE


def test_what_was_not_sent_is_forgotten() -> None:
    record = made("a")
    assert found("x") == []
    assert not record.path.exists()


def test_what_another_process_drives_is_left_to_it() -> None:
    with alone():
        record = begin(HERE, ["a"])
    (other,) = found("a")
    assert (other.path, other.handle, other.file) == (record.path, None, None)
    record.note("file", "f")
    record.note("left", [])
    assert found("a")[0].left == frozenset()
    record.delete()
    assert found("a") == []


def test_a_step_that_was_torn_did_not_happen() -> None:
    record = made("a", "b", file="f")
    with record.path.open("a") as file:
        file.write('\n{"batch": "b')
    (again,) = found("a")
    assert (again.file, again.batch) == ("f", None)
    again.handle = os.open(record.path, os.O_RDWR | os.O_APPEND)
    again.note("batch", "b2")
    again.note("left", ["a"])
    (last,) = found("b")
    assert (last.batch, last.left, last.asked) == ("b2", {"a"}, {"b"})
    assert found("a") == []


def test_what_is_over_is_deleted_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    record, waiting = made("a", "b", file="f", batch="b1"), made("c", file="f", batch="b2")
    record.handle = os.open(record.path, os.O_RDWR | os.O_APPEND)
    record.note("left", ["a"])
    record.release()
    os.utime(record.path, (1, 1))
    os.utime(waiting.path, (1, 1))
    assert [one.path for one in found("a", "b", "c")] == [waiting.path]
    assert list(batch_records.folder().glob("*.jsonl")) == [waiting.path]


def test_a_disk_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> int:
        raise OSError(28, "No space left on device")

    made("a", file="f")
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(RunError, match=r"jsonl: cannot be written: No space left on device"):
        made("b")
    monkeypatch.undo()
    assert len(list(batch_records.folder().glob("*.jsonl"))) <= 1
