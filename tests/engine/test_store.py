"""The completion store: what was paid for is there, after any accident, and nothing else is."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lema.engine import files
from lema.engine.store import Store, packs_folder
from lema.errors import RunError
from lema.models import Completion

WRITER = """
import sys
from pathlib import Path
from lema.engine.store import Store
from lema.models import Completion
root, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
store = Store(root / "journal", root / "packs")
for i in range(count):
    store.add([(f"{name}-{i}-{j}", Completion(f"text {i}", "stop", None, 1, 2)) for j in range(2)], model="m")
    print(i, flush=True)
if len(sys.argv) > 4:
    store.seal()
"""


@pytest.fixture
def open_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Store]:
    monkeypatch.setenv("LEMA_HOME", str(tmp_path / "home"))
    return lambda: Store(tmp_path / "journal", tmp_path / "packs")


def reply(text: str) -> Completion:
    return Completion(text, "stop", None, 3, 4)


def test_what_was_added_is_found_by_the_next_process(open_store: Callable[[], Store]) -> None:
    store = open_store()
    assert store.get("a") is None
    cut = Completion('cut\n\u2028 "short" ☃', "length", None, 1, 512)
    store.add([("a", reply("one")), ("b", cut)], model="m")
    for other in (store, open_store()):
        assert other.get("a") == reply("one")
        assert other.get("b") == cut
        assert other.get("c") is None


def test_failures_are_recorded_and_never_served(open_store: Callable[[], Store]) -> None:
    store = open_store()
    store.add([("a", Completion("", "failed", "timeout")), ("b", Completion("", "refused", "filter"))], model="m")
    assert store.get("a") is None
    assert open_store().get("b") is None
    store.add([("a", reply("at last"))], model="m")
    store.seal()
    again = open_store()
    assert again.get("a") == reply("at last")
    assert again.get("b") is None
    assert again.stats() == {"completions": 1, "unsealed": 0, "packs": 1, "failures": 1}
    assert store.stats() == again.stats()


def test_sealing_moves_everything_into_one_pack(open_store: Callable[[], Store], tmp_path: Path) -> None:
    store = open_store()
    assert store.seal() is None
    store.add([("b", reply("two")), ("a", reply("one"))], model="m")
    pack = store.seal()
    assert pack is not None
    assert list((tmp_path / "packs").iterdir()) == [pack]
    assert list((tmp_path / "journal").iterdir()) == []
    assert store.seal() is None
    store.add([("c", reply("three"))], model="m")
    assert [store.get(key) for key in "abc"] == [reply("one"), reply("two"), reply("three")]
    assert [open_store().get(key) for key in "abc"] == [reply("one"), reply("two"), reply("three")]


def test_the_same_replies_are_the_same_pack(open_store: Callable[[], Store], tmp_path: Path) -> None:
    names = set()
    for keys in ("ab", "ba"):
        store = Store(tmp_path / keys / "journal", tmp_path / keys / "packs")
        for key in keys:
            store.add([(key, reply(key))], model="m")
        pack = store.seal()
        assert pack is not None
        names.add(pack.name)
    assert len(names) == 1


def test_of_two_replies_the_same_one_is_served_by_everybody(open_store: Callable[[], Store]) -> None:
    one, two = open_store(), open_store()
    one.get("a"), two.get("a")
    one.add([("a", reply("first"))], model="m")
    two.add([("a", reply("second"))], model="m")
    packs = sorted(pack for store in (one, two) if (pack := store.seal()))
    assert len(packs) == 2
    served = {store.get("a") for store in (open_store(), open_store())}
    assert len(served) == 1


def test_a_damaged_pack_is_refused_by_name(open_store: Callable[[], Store]) -> None:
    store = open_store()
    store.add([("a", reply("one"))], model="m")
    pack = store.seal()
    assert pack is not None
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    pack.write_bytes(content)
    with pytest.raises(RunError, match=pack.name):
        open_store().get("a")


def test_a_torn_last_line_is_skipped_and_reported(
    open_store: Callable[[], Store], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store()
    store.add([("a", reply("one"))], model="m")
    store.add([("b", reply("two")), ("c", reply("three"))], model="m")
    (journal,) = (tmp_path / "journal").iterdir()
    whole = journal.read_bytes()
    for length in range(whole.index(b"\n") + 2, len(whole)):
        journal.write_bytes(whole[:length])
        caplog.clear()
        again = open_store()
        assert [again.get(key) is not None for key in "abc"] == [True, False, False]
        assert "line 2 is incomplete" in caplog.text


def test_no_acknowledged_reply_is_lost_to_kill_9(open_store: Callable[[], Store], tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, tmp_path, "dead", "100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(50):
            last = int(writer.stdout.readline())
        assert open_store().get("dead-0-1") == Completion("text 0", "stop", None, 1, 2)
        # Its process is alive: nobody else may seal its journal.
        assert open_store().seal() is None
        writer.kill()
        last = max([last, *(int(line) for line in writer.stdout if line.endswith("\n"))])
    for sealed in (False, True):
        store = open_store()
        assert all(store.get(f"dead-{i}-{j}") for i in range(last + 1) for j in range(2))
        if not sealed:
            assert store.seal() is not None
    assert list((tmp_path / "journal").iterdir()) == []


def test_processes_write_and_seal_at_once(open_store: Callable[[], Store], tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, tmp_path, name, "20", "seal"], stdout=subprocess.DEVNULL)
        for name in ("x", "y", "z")
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    store = open_store()
    assert all(store.get(f"{name}-{i}-{j}") for name in "xyz" for i in range(20) for j in range(2))
    assert store.stats()["completions"] == 120


def test_a_kill_between_pack_and_journal_pays_nothing_twice(
    open_store: Callable[[], Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    store.add([("a", reply("one"))], model="m")
    with monkeypatch.context() as patch:

        def die(path: Path) -> None:
            raise KeyboardInterrupt

        patch.setattr(Path, "unlink", lambda path, missing_ok=False: die(path) if path.suffix == ".jsonl" else None)
        with pytest.raises(KeyboardInterrupt):
            store.seal()
    again = open_store()
    assert again.stats()["completions"] == 1
    assert again.seal() is None
    assert list((tmp_path / "journal").iterdir()) == []
    assert len(list((tmp_path / "packs").iterdir())) == 1


def test_where_packs_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEMA_HOME", raising=False)
    assert packs_folder() == Path("completions")
    monkeypatch.setenv("LEMA_HOME", "/somewhere")
    assert packs_folder() == files.home() / "completions" == Path("/somewhere/completions")
