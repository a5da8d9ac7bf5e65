"""The completion store: what was paid for is there, after any accident, and nothing else is."""

import hashlib
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lema.completions import index, packs
from lema.completions import store as store_module
from lema.completions.packs import Entry, Pack
from lema.completions.store import Store, packs_folder
from lema.compute import files, parquet
from lema.errors import RunError
from lema.models.types import Completion
from lema.rows import Finish

WRITER = """
import hashlib, sys
from pathlib import Path
from lema.completions.store import Store
from lema.models.types import Completion
def name(text):
    return hashlib.sha256(text.encode()).hexdigest()
root, who, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
store = Store(root / "journal", root / "packs")
for i in range(count):
    store.add([(name(f"{who}-{i}-{j}"), Completion(f"text {i}", "stop", None, 1, 2)) for j in range(2)], model="m")
    print(i, flush=True)
if len(sys.argv) > 4:
    store.seal()
"""


@dataclass(frozen=True, slots=True)
class BeforeCached:
    id: str
    model: str
    text: str
    finish: Finish
    error: str | None
    prompt_tokens: int
    completion_tokens: int


@pytest.fixture
def open_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Store]:
    monkeypatch.setenv("LEMA_HOME", str(tmp_path / "home"))
    return lambda: Store(tmp_path / "journal", tmp_path / "packs")


def name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def reply(text: str) -> Completion:
    return Completion(text, "stop", None, 3, 4)


def test_what_was_added_is_found_by_the_next_process(open_store: Callable[[], Store]) -> None:
    store = open_store()
    assert store.get(name("a")) is None
    cut = Completion('cut\n\u2028 "short" ☃', "length", None, 1, 512)
    store.add([(name("a"), reply("one")), (name("b"), cut)], model="m")
    for other in (store, open_store()):
        assert other.get(name("a")) == reply("one")
        assert other.get(name("b")) == cut
        assert other.get(name("c")) is None


def test_failures_are_recorded_and_never_served(open_store: Callable[[], Store]) -> None:
    store = open_store()
    store.add(
        [(name("a"), Completion("", "failed", "timeout")), (name("b"), Completion("", "refused", "filter"))], model="m"
    )
    assert store.get(name("a")) is None
    assert open_store().get(name("b")) is None
    store.add([(name("a"), reply("at last"))], model="m")
    store.seal()
    again = open_store()
    assert again.get(name("a")) == reply("at last")
    assert again.get(name("b")) is None
    assert again.stats() == {"completions": 1, "unsealed": 0, "packs": 1, "failures": 1}
    assert store.stats() == again.stats()


def test_sealing_moves_everything_into_one_pack(open_store: Callable[[], Store], tmp_path: Path) -> None:
    store = open_store()
    assert store.seal() == []
    store.add([(name("b"), reply("two")), (name("a"), reply("one"))], model="m")
    (pack,) = store.seal()
    assert list((tmp_path / "packs").iterdir()) == [pack]
    assert list((tmp_path / "journal").iterdir()) == []
    assert store.seal() == []
    store.add([(name("c"), reply("three"))], model="m")
    assert [store.get(name(key)) for key in "abc"] == [reply("one"), reply("two"), reply("three")]
    assert [open_store().get(name(key)) for key in "abc"] == [reply("one"), reply("two"), reply("three")]


def test_the_same_replies_in_the_same_order_are_the_same_pack(open_store: Callable[[], Store], tmp_path: Path) -> None:
    names = set()
    for person in "xy":
        store = Store(tmp_path / person / "journal", tmp_path / person / "packs")
        # However they were bought: one by one, or at once.
        pairs = [(name(key), reply(key)) for key in "badc"]
        for batch in [pairs] if person == "x" else [[pair] for pair in pairs]:
            store.add(batch, model="m")
        (pack,) = store.seal()
        names.add(pack.name)
        assert pq.read_table(pack)["text"].to_pylist() == list("badc")
    assert len(names) == 1


def united(tmp_path: Path, **replies: str) -> Store:
    """The store of somebody who has the packs of several people, one a reply to the request `a`."""
    for person, text in replies.items():
        store = Store(tmp_path / person / "journal", tmp_path / person / "packs")
        store.add([(name("a"), reply(text)), (name(text), reply(text))], model="m")
        (pack,) = store.seal()
        (tmp_path / "packs").mkdir(exist_ok=True)
        shutil.copy(pack, tmp_path / "packs" / pack.name)
    return Store(tmp_path / "journal", tmp_path / "packs")


def test_of_two_replies_the_same_one_is_served_by_everybody(open_store: Callable[[], Store], tmp_path: Path) -> None:
    store = united(tmp_path, x="first", y="second")
    first = min((tmp_path / "packs").iterdir())
    assert store.get(name("a")) == reply(pq.read_table(first)["text"][0].as_py())
    assert store.stats() == {"completions": 3, "unsealed": 0, "packs": 2, "failures": 0}
    store.add([(name("a"), reply("third"))], model="m")
    assert store.get(name("a")) == open_store().get(name("a")) != reply("third")


def test_a_damaged_pack_is_refused_by_name(open_store: Callable[[], Store]) -> None:
    store = open_store()
    store.add([(name("a"), reply("one"))], model="m")
    (pack,) = store.seal()
    assert open_store().get(name("a")) == reply("one")
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    pack.write_bytes(content)
    with pytest.raises(RunError, match=rf"{pack.name} is damaged.*lema completions pull"):
        open_store().get(name("a"))


def test_a_bit_that_turns_later_is_not_served(open_store: Callable[[], Store]) -> None:
    """Size, time and inode say that a pack was verified; the pages have checksums of their own."""
    store = open_store()
    store.add([(name(str(n)), reply(f"text {n}")) for n in range(100)], model="m")
    (pack,) = store.seal()
    assert open_store().get(name("1")) == reply("text 1")
    state = pack.stat()
    content = pack.read_bytes()
    at = pq.ParquetFile(pack).metadata.row_group(0).column(2).dictionary_page_offset
    at = pq.ParquetFile(pack).metadata.row_group(0).column(2).data_page_offset if at is None else at
    with pack.open("r+b") as file:
        file.seek(at + 60)
        file.write(bytes([content[at + 60] ^ 4]))
    os.utime(pack, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(RunError, match=f"{pack.name} is damaged"):
        open_store().get(name("1"))


def old_pack(folder: Path, texts: list[str]) -> Path:
    """As packs were until 2026-11: canonical Parquet, sorted by key, without `cached_tokens`."""
    rows = [BeforeCached(name(text), "m", text, "stop", None, 3, 4) for text in texts]
    parquet.write_rows(folder / "x", BeforeCached, rows)
    path = folder / f"{hashlib.sha256((folder / 'x').read_bytes()).hexdigest()[:32]}.parquet"
    (folder / "x").rename(path)
    return path


def test_packs_of_before_are_read(open_store: Callable[[], Store], tmp_path: Path) -> None:
    (tmp_path / "packs").mkdir()
    old_pack(tmp_path / "packs", [f"text {n}" for n in range(300)])
    store = open_store()
    assert store.get_many([name(f"text {n}") for n in range(301)]) == [*(reply(f"text {n}") for n in range(300)), None]
    store.add([(name("new"), Completion("new", "stop", None, 9, 1, 8))], model="m")
    store.seal()
    assert open_store().get(name("new")) == Completion("new", "stop", None, 9, 1, 8)
    assert open_store().get(name("text 7")) == reply("text 7")


def test_foreign_files_are_refused(open_store: Callable[[], Store], tmp_path: Path) -> None:
    packs = tmp_path / "packs"
    packs.mkdir()
    for number, table in enumerate(
        [pa.table({"id": ["a"]}), parquet.rows_to_table(Entry, [Entry("no key", "m", "x", "stop", None, 1, 1)])]
    ):
        pq.write_table(table, packs / "x")
        content = (packs / "x").read_bytes()
        path = packs / f"{hashlib.sha256(content).hexdigest()[:32]}.parquet"
        (packs / "x").rename(path)
        with pytest.raises(RunError, match=f"{path.name} does not hold completions: {('column', 'ids are')[number]}"):
            open_store().get(name("a"))
        path.unlink()


def test_many_are_read_back_whatever_their_order(
    open_store: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several packs of several row groups, a journal, and less memory than all of it."""
    for limit, size in (("GROUP", 2_000), ("PACK", 20_000)):
        monkeypatch.setattr(packs, limit, size)
    monkeypatch.setattr(store_module, "CACHE", 5_000)
    monkeypatch.setattr(store_module, "OPEN", 2)
    monkeypatch.setattr(index, "RECENT", 50)
    store, texts = open_store(), [f"text {n}" for n in range(500)]
    for start in range(0, 400, 20):
        store.add([(name(text), reply(text)) for text in texts[start : start + 20]], model="m")
    made = store.seal()
    assert len(made) > 3
    assert pq.ParquetFile(made[0]).num_row_groups > 5
    for start in range(400, 500, 20):
        store.add([(name(text), reply(text)) for text in texts[start : start + 20]], model="m")
    assert store.stats() == {"completions": 500, "unsealed": 100, "packs": len(made), "failures": 0}
    for draw in range(4):
        if draw:
            random.Random(draw).shuffle(texts)
        assert store.get_many([name(text) for text in texts]) == [reply(text) for text in texts]
    assert store.known([name("text 1"), name("other"), name("text 499")]) == [True, False, True]


def test_what_another_process_seals_or_prunes_is_found_again(
    open_store: Callable[[], Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "OPEN", 1)
    writer, reader = open_store(), open_store()
    writer.add([(name("a"), reply("a"))], model="m")
    assert reader.get(name("a")) == reply("a")
    (one,) = writer.seal()
    # Its journal is deleted and still open.
    assert reader.get(name("a")) == reply("a")
    writer.add([(name("b"), reply("b"))], model="m")
    (two,) = writer.seal()
    late = open_store()
    assert late.known([name("a"), name("b")]) == [True, True]
    # Only the last pack is open; the other one is now part of a new pack.
    gone = min(one, two)
    packs.write_packs(tmp_path / "packs", [entry for path in (one, two) for entry in Pack(path).entries()])
    gone.unlink()
    assert late.get_many([name("a"), name("b")]) == [reply("a"), reply("b")]


def test_a_torn_last_line_is_skipped_and_reported(
    open_store: Callable[[], Store], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store()
    store.add([(name("a"), reply("one"))], model="m")
    store.add([(name("b"), reply("two")), (name("c"), reply("three"))], model="m")
    (journal,) = (tmp_path / "journal").iterdir()
    whole = journal.read_bytes()
    for length in range(whole.index(b"\n") + 2, len(whole)):
        journal.write_bytes(whole[:length])
        caplog.clear()
        again = open_store()
        assert [again.get(name(key)) is not None for key in "abc"] == [True, False, False]
        assert "line 2 is incomplete" in caplog.text


def test_no_acknowledged_reply_is_lost_to_kill_9(open_store: Callable[[], Store], tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, tmp_path, "dead", "100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(50):
            last = int(writer.stdout.readline())
        assert open_store().get(name("dead-0-1")) == Completion("text 0", "stop", None, 1, 2)
        # Its process is alive: nobody else may seal its journal.
        assert open_store().seal() == []
        writer.kill()
        last = max([last, *(int(line) for line in writer.stdout if line.endswith("\n"))])
    for sealed in (False, True):
        store = open_store()
        assert all(store.get(name(f"dead-{i}-{j}")) for i in range(last + 1) for j in range(2))
        if not sealed:
            assert store.seal() != []
    assert list((tmp_path / "journal").iterdir()) == []


def test_processes_write_and_seal_at_once(open_store: Callable[[], Store], tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, tmp_path, who, "20", "seal"], stdout=subprocess.DEVNULL)
        for who in "xyz"
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    store = open_store()
    assert all(store.get(name(f"{who}-{i}-{j}")) for who in "xyz" for i in range(20) for j in range(2))
    assert store.stats()["completions"] == 120


def test_a_kill_between_pack_and_journal_pays_nothing_twice(
    open_store: Callable[[], Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    store.add([(name("a"), reply("one"))], model="m")
    with monkeypatch.context() as patch:

        def die(path: Path) -> None:
            raise KeyboardInterrupt

        patch.setattr(Path, "unlink", lambda path, missing_ok=False: die(path) if path.suffix == ".jsonl" else None)
        with pytest.raises(KeyboardInterrupt):
            store.seal()
    again = open_store()
    assert again.stats()["completions"] == 1
    assert again.seal() == []
    assert list((tmp_path / "journal").iterdir()) == []
    assert len(list((tmp_path / "packs").iterdir())) == 1


def test_where_packs_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEMA_HOME", raising=False)
    assert packs_folder() == Path("completions")
    monkeypatch.setenv("LEMA_HOME", "/somewhere")
    assert packs_folder() == files.home() / "completions" == Path("/somewhere/completions")
