"""Records of what is on the way outlive every end of a process."""

import os
from io import FileIO
from pathlib import Path

import pytest

from lema.completions import append_log, batch_records
from lema.completions.append_log import AppendLog
from lema.completions.batch_records import BatchRecord, create_record, find_records, records_lock
from lema.errors import RunError

HERE, THERE = "http://here/v1", "http://there/v1"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEMA_HOME", str(tmp_path))


def found(*wanted: str, endpoint: str = HERE) -> list[BatchRecord]:
    with records_lock():
        records = list(find_records(endpoint, wanted))
    for record in records:
        record.release()
    return records


def made(*keys: str, **steps: str) -> BatchRecord:
    with records_lock():
        record = create_record(HERE, keys)
    for step, value in steps.items():
        record.note({step: value})  # type: ignore[misc]
    record.release()
    return record


def test_a_record_is_read_as_it_was_written() -> None:
    record = made("a", "b", file="f", batch="b1")
    (again,) = found("b", "c")
    assert (again.path, again.keys, again.file, again.batch, again.unanswered) == (
        record.path,
        {"a", "b"},
        "f",
        "b1",
        None,
    )
    assert found("c") == found("a", endpoint=THERE) == []
    assert len(found("a", endpoint="http://here/v1/")) == 1


def test_what_was_not_sent_is_forgotten() -> None:
    record = made("a")
    assert found("x") == []
    assert not record.path.exists()


def test_what_another_process_drives_is_left_to_it() -> None:
    with records_lock():
        record = create_record(HERE, ["a"])
    (other,) = found("a")
    assert (other.path, other.ledger, other.file) == (record.path, None, None)
    record.note({"file": "f"})
    record.note({"left": []})
    assert found("a")[0].unanswered == frozenset()
    record.delete()
    assert found("a") == []


def test_a_step_that_was_torn_did_not_happen() -> None:
    record = made("a", "b", file="f")
    with record.path.open("a") as file:
        file.write('\n{"batch": "b')
    (again,) = found("a")
    assert (again.file, again.batch) == ("f", None)
    again.ledger = AppendLog(record.path, fsync=True, new=False)
    again.note({"batch": "b2"})
    again.note({"left": ["a"]})
    (last,) = found("b")
    assert (last.batch, last.unanswered, last.covered) == ("b2", {"a"}, {"b"})
    assert found("a") == []


def test_what_is_over_is_deleted_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    record, waiting = made("a", "b", file="f", batch="b1"), made("c", file="f", batch="b2")
    record.ledger = AppendLog(record.path, fsync=True, new=False)
    record.note({"left": ["a"]})
    record.release()
    os.utime(record.path, (1, 1))
    os.utime(waiting.path, (1, 1))
    assert [one.path for one in found("a", "b", "c")] == [waiting.path]
    assert list(batch_records.records_folder().glob("*.jsonl")) == [waiting.path]


def test_a_disk_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(FileIO):
        def write(self, content: object, /) -> int:
            raise OSError(28, "No space left on device")

    made("a", file="f")
    monkeypatch.setattr(append_log, "FileIO", Full)
    with pytest.raises(RunError, match=r"the ledger cannot be written: .*No space left on device"):
        made("b")
    monkeypatch.undo()
    assert len(list(batch_records.records_folder().glob("*.jsonl"))) <= 1


def test_records_of_earlier_versions_are_read() -> None:
    """Each line began with its newline, so that the last one had none; and one was torn by a kill."""
    batch_records.records_folder().mkdir(parents=True)
    path = batch_records.records_folder() / "0123.jsonl"
    path.write_text('\n{"endpoint": "33f2d5f41f4b78ba", "keys": ["a", "b"]}\n{"file": "f"}\n{"batch": "b1"}')
    driven = AppendLog(path, fsync=True, new=False)  # as by a process of the version before
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    (record,) = found("a")
    assert (record.ledger, record.keys, record.file, record.batch) == (None, {"a", "b"}, "f", "b1")
    driven.close()
    with path.open("a") as file:
        file.write('\n{"left": ["a"')
    (record,) = found("b")
    assert (record.batch, record.unanswered) == ("b1", None)
    record.ledger = AppendLog(path, fsync=True, new=False)
    record.note({"left": ["a"]})
    record.release()
    assert [one.covered for one in found("b")] == [{"b"}]
    assert path.read_text().splitlines()[-1] == '{"left": ["a"]}'
