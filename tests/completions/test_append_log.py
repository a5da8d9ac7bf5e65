"""Append-only logs: an append is there or it is not, whatever tears it, and logs of earlier versions are read."""

import json
import os
import resource
import signal
import subprocess
import sys
from decimal import Decimal
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from lema.completions import append_log
from lema.completions.append_log import AppendLog, LogReader, claim_log
from lema.completions.ledger import fold_spending, open_ledger, read_ledger
from lema.completions.store import Store
from lema.errors import RunError
from lema.models.types import Completion

LINES = [{"key": "one", "cost": "0.5"}, ["zwo \u00e9", 2, None], {"key": "three"}]
TEXTS = [(json.dumps(line, sort_keys=True) + "\n").encode() for line in LINES]


def lines(path: Path, *, unterminated: bool = False) -> list[Any]:
    return [line for _, line in LogReader(path, lambda line: line, unterminated=unterminated).lines()]


def appended(path: Path, line: Any, *, new: bool = True) -> None:
    log = AppendLog(path, fsync=False, new=new)
    log.append([line])
    log.close()


def test_lines_are_found_again_by_their_offsets(tmp_path: Path) -> None:
    log = AppendLog.of_this_process(tmp_path / "logs", "a log", fsync=True)
    offsets = [log.append(LINES[:2]), log.append(LINES[2:])]
    reader = LogReader(log.path, lambda line: line)
    assert [line for _, line in reader.lines()] == LINES
    log.path.unlink()  # whoever deletes it takes nothing away
    assert [reader.read(offset) for offset in offsets] == [LINES[0], LINES[2]]


def test_wherever_a_kill_tears_a_log_whole_lines_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = b"".join(TEXTS)
    for end in range(len(content) + 1):
        path = tmp_path / f"{end}.jsonl"
        path.write_bytes(content[:end])
        whole = content[:end].count(b"\n")
        caplog.clear()
        assert lines(path) == LINES[:whole]
        torn = not (b"\n" + content[:end]).endswith(b"\n")
        assert (f"line {whole + 1} is incomplete" in caplog.text) == torn
        # The next writer leaves what is there, and its lines are not glued to the torn one.
        appended(path, "next", new=False)
        unended = content[end : end + 1] == b"\n"
        assert lines(path) == [*LINES[: whole + unended], "next"]
        assert path.read_bytes().startswith(content[:end])


class Interrupted(FileIO):
    """A file that takes so many bytes of a line; then an interrupt comes, and if so another when that is cut off."""

    takes: int | None = None
    twice = False

    def write(self, content: Any, /) -> int:
        if self.takes is None:
            return super().write(content)
        if not self.takes:
            raise KeyboardInterrupt
        written, self.takes = super().write(content[: self.takes]), 0
        return written

    def truncate(self, size: int | None = None, /) -> int:
        if self.twice:
            self.twice, self.takes = False, None
            raise KeyboardInterrupt
        self.takes = None
        return super().truncate(size)


@pytest.mark.parametrize("twice", [False, True])
def test_after_an_interrupt_between_two_parts_of_a_write_lines_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, twice: bool
) -> None:
    monkeypatch.setattr(append_log, "FileIO", Interrupted)
    for end in range(len(TEXTS[1])):
        log = AppendLog(tmp_path / f"{end}.jsonl", fsync=False)
        log.append(LINES[:1])
        log._file.takes, log._file.twice = end, twice  # type: ignore[attr-defined]
        with pytest.raises(KeyboardInterrupt):
            log.append(LINES[1:2])
        assert log.path.read_bytes() == TEXTS[0] + (TEXTS[1][:end] if twice else b"")
        assert lines(log.path) == LINES[:1]
        log.append(LINES[1:2])
        log.close()
        assert lines(log.path) == LINES[:2]


@pytest.mark.parametrize("fsync", [True, False])
def test_a_line_that_finds_no_room_leaves_no_part_of_it(tmp_path: Path, fsync: bool) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    log = AppendLog(tmp_path / "log.jsonl", fsync=fsync)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
        log.append(LINES[:1])
        for _ in range(2):
            with pytest.raises(RunError, match=r"log\.jsonl cannot be written: .*File too large"):
                log.append(["short", "x" * 200])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    log.append(LINES[1:])
    log.close()
    assert lines(log.path) == LINES


WRITER = """
import sys
from pathlib import Path
from lema.completions.append_log import AppendLog
log = AppendLog(Path(sys.argv[1]), fsync=False)
log.append(["mine"])
print("up", flush=True)
sys.stdin.read()
"""


def test_a_log_is_taken_over_only_when_its_writer_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "up\n"
        assert claim_log(path) is None
        with pytest.raises(BlockingIOError):
            AppendLog(path, fsync=True, new=False)
        writer.kill()
    handle = claim_log(path)
    assert handle is not None
    os.close(handle)
    appended(path, "yours", new=False)
    assert lines(path) == ["mine", "yours"]
    path.unlink()
    assert claim_log(path) is None
    with pytest.raises(FileNotFoundError):
        AppendLog(path, fsync=True, new=False)


# As they were written until 2026-11-28, byte for byte.
JOURNAL = (
    '[["{a}", "m", "one \\u2603", "stop", null, 3, 4, 1], ["{b}", "m", "", "failed", "timed out", 0, 0, 0]]\n'
    '[["{c}", "m", "three", "length", null, 3, 4]]\n'
    '[["{d}", "m", "torn'
)
LEDGER = (
    '{"batch": false, "cost": "0.106", "key": "k1", "kind": "reserved", "recipe": "trial", "stage": "samples", '
    '"time": "2026-11-24T12:30:00Z"}\n'
    '{"batch": false, "cached_tokens": 0, "characters": 6, "completion_tokens": 10, "cost": "0.021", '
    '"endpoint": "here", "finish": "stop", "key": "k1", "kind": "request", "model": "strong", "most": "0.021", '
    '"name": "m", "prompt": "digest", "prompt_tokens": 11, "recipe": "trial", "stage": "samples", '
    '"time": "2026-11-24T12:30:00Z"}\n'
    '{"batch": false, "cost": "0.106", "key": "k2", "kind": "reserved", "recipe": "trial", "stage": "samples", '
    '"time": "2026-11-24T12:30:00Z"}\n'
    '{"key": "k2", "kind": "released", "recipe": "trial", "stage": "samples"}\n'
    '{"batch": false, "cost": "0.2", "key": "k3", "kind": "reserved", "recipe": "trial", "stage": "samples", '
    '"time": "2026-11-24T12:31:00Z"}\n'
    '{"key": "k3", "kind": "lost", "recipe": "trial", "stage": "samples"}\n'
    '{"cost": "0.05", "keys": ["k3"], "kind": "settled", "recipe": "trial", "time": "2026-11-25T12:30:00Z"}\n'
    '{"batch": true, "cost": "0.4", "key": "k4", "kind": "reserved", "recipe": "trial", "stage": "samples", '
    '"time": "2026-11-24T12:32:00Z"}\n'
    '{"cached_tokens": 0, "completion_tokens": 9, "cost": null, "endpoint": null, "kind": "saved", "model": "a", '
    '"name": null, "prompt": "", "prompt_tokens": 5, "recipe": "trial", "requests": 2, "stage": "samples", '
    '"time": "2026-11-24T12:33:00Z"}\n'
    '{"batch": tr'
)


def test_journals_of_earlier_versions_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEMA_HOME", str(tmp_path / "home"))
    keys = {name: name * 64 for name in "abcd"}
    (tmp_path / "journal").mkdir()
    text = JOURNAL
    for name, key in keys.items():
        text = text.replace(f"{{{name}}}", key)
    (tmp_path / "journal" / "7-0123456789ab.jsonl").write_text(text)
    store = Store(tmp_path / "journal", tmp_path / "packs")
    expected = [Completion("one ☃", "stop", None, 3, 4, 1), None, Completion("three", "length", None, 3, 4), None]
    assert store.get_many(list(keys.values())) == expected
    assert len(store.seal()) == 1
    assert Store(tmp_path / "journal", tmp_path / "packs").get_many(list(keys.values())) == expected


def test_ledgers_of_earlier_versions_are_read(tmp_path: Path) -> None:
    (tmp_path / "7-0123456789ab.jsonl").write_text(LEDGER)
    found = fold_spending(tmp_path)
    assert (found.booked, found.in_doubt) == ({"trial": Decimal("0.071")}, {"trial": Decimal("0.4")})
    assert found.batched == {("trial", "k4"): Decimal("0.4")}
    assert [line["kind"] for line in read_ledger(tmp_path)] == ["request", "settled", "saved", "in doubt"]
    answer = {"kind": "request", "recipe": "trial", "key": "k4", "batch": True, "time": "2026-11-24T13:00:00Z"}
    open_ledger(tmp_path).append([{**answer, "most": Decimal("0.1")}])  # type: ignore[typeddict-item]
    assert fold_spending(tmp_path).total() == Decimal("0.171")
