"""Atomic outputs, locks and processes that die with their parent."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lema.compute.files import atomic, home, lock
from lema.errors import RunError

HOLDER = """
import sys, time
from pathlib import Path
from lema.compute.files import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEMA_HOME", str(tmp_path / "home"))


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_home_is_in_the_project_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert home().name == "home"
    monkeypatch.delenv("LEMA_HOME")
    assert home() == Path(".lema")


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "out.txt"
    with atomic(path) as partial:
        partial.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    with pytest.raises(UnicodeEncodeError), atomic(path) as partial:
        partial.write_text("half \ud800", "utf-8")
    assert path.read_text() == "new"
    assert names(path.parent) == ["out.txt"]


def test_a_folder_replaces_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "out"
    for name in ("old", "new"):
        with atomic(path) as partial:
            (partial / "sub").mkdir(parents=True)
            (partial / "sub" / name).write_text(name)
    assert [file.name for file in path.rglob("*")] == ["sub", "new"]
    assert names(tmp_path) == ["out"]


def test_what_a_killed_process_left_is_not_in_the_way(tmp_path: Path) -> None:
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "stale").write_text("stale")
    with atomic(tmp_path / "out") as partial:
        partial.mkdir()
        (partial / "fresh").write_text("fresh")
    assert names(tmp_path / "out") == ["fresh"]


def test_making_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nothing was written"), atomic(tmp_path / "out"):
        pass


def test_a_second_maker_is_told_and_the_lock_dies_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "samples.parquet"
    with subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        message = rf"samples\.parquet is being made by another process \(pid {holder.pid}\)"
        with pytest.raises(RunError, match=message), lock(path, wait=False):
            pass
        with lock(tmp_path / "another.parquet", wait=False):
            pass
        holder.send_signal(signal.SIGKILL)
    with lock(path, wait=False):
        pass


def test_waiting_for_the_lock(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "samples.parquet"
    program = HOLDER.replace("sleep(60)", "sleep(0.5)")
    with subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with lock(path):
            assert "waiting for it" in capsys.readouterr().err


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel does this on Linux only")
def test_a_stage_dies_with_its_parent() -> None:
    child = (
        "import time; from lema.compute.files import die_with_parent\n"
        "die_with_parent(); print('up', flush=True); time.sleep(60)"
    )
    parent = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "print(child.pid, flush=True); child.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = {process.stdout.readline().strip() for _ in range(2)}
        (pid,) = (int(line) for line in lines if line.isdigit())
        process.kill()
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text():
            return
        time.sleep(0.05)
    pytest.fail("the child outlived its parent")
