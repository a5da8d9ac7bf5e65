"""Care of the store: what is wrong is said, and what was paid for is never dropped by itself."""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from lema.completions.packs import Entry, Pack, pack_paths
from lema.completions.store import Store
from lema.completions.upkeep import Pruned, prune_packs, verify_store
from lema.errors import RunError
from lema.models.types import Completion

FAILED = Completion("", "failed", "timed out")


def name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def reply(text: str) -> Completion:
    return Completion(text, "stop", None, 3, 4, 1)


@pytest.fixture
def person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Store]:
    """The store of one of several people, whose packs lie in one folder; what each bought is sealed."""
    monkeypatch.setenv("LEMA_HOME", str(tmp_path / "home"))

    def make(who: str = "me", **bought: Completion) -> Store:
        own = Store(tmp_path / who / "journal", tmp_path / who / "packs")
        (tmp_path / "packs").mkdir(exist_ok=True)
        for text, completion in bought.items():
            own.add([(name(text), completion)], model="judge" if text.startswith("j") else "m")
        for pack in own.seal():
            pack.rename(tmp_path / "packs" / pack.name)
        return Store(tmp_path / "journal", tmp_path / "packs")

    return make


def test_nothing_is_wrong_with_a_good_store(person: Callable[..., Store]) -> None:
    store = person("x", a=reply("one"), b=reply("two"), c=FAILED)
    person("y", a=reply("other"))
    store.add([(name("d"), reply("four"))], model="m")
    found = verify_store(store)
    assert found.faults == []
    assert (found.packs, found.journals, found.completions, found.copies, found.failures) == (2, 1, 3, 1, 1)
    assert verify_store(Store(Path("nowhere"), Path("nowhere"))).faults == []


def test_every_fault_is_a_line(person: Callable[..., Store], tmp_path: Path) -> None:
    store = person("x", a=reply("one"))
    person("y", b=reply("two"))
    store.add([(name("c"), reply("three"))], model="m")
    store._own.close()  # as if its process was gone
    damaged, good = pack_paths(store.packs)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    (store.packs / "notes.txt").write_text("mine")
    (store.packs / ".pack.partial").write_text("half")
    (journal,) = store.journals.iterdir()
    journal.write_bytes(journal.read_bytes() + b'[["' + b"\n" + b'[["half')
    found = verify_store(store)
    assert [fault.split(" ")[0].rstrip(",") for fault in found.faults] == [
        str(path) for path in (damaged, journal, journal, store.packs / ".pack.partial", store.packs / "notes.txt")
    ]
    assert "lema completions pull" in found.faults[0]
    assert "line 2 is incomplete" in found.faults[1]
    assert (found.packs, found.completions) == (2, 2)
    assert good.exists()


def test_the_line_that_somebody_writes_now_is_no_fault(person: Callable[..., Store]) -> None:
    store = person()
    store.add([(name("a"), reply("one"))], model="m")
    (journal,) = store.journals.iterdir()
    with journal.open("ab") as file:
        file.write(b'[["half')
    assert verify_store(store).faults == []


def test_prune_drops_what_is_never_served(person: Callable[..., Store]) -> None:
    store = person("x", a=reply("one"))
    person("y", a=reply("other"), c=reply("three"))
    person("z", b=FAILED, d=reply("four"))
    before, served = pack_paths(store.packs), [store.get(name(key)) for key in "abcd"]
    dry = prune_packs(store)
    assert dry == Pruned(copies=1, failures=1, packs=2)
    assert pack_paths(store.packs) == before
    assert prune_packs(store, really=True) == dry
    again = Store(store.journals, store.packs)
    assert [again.get(name(key)) for key in "abcd"] == served
    assert again.stats() == {"completions": 3, "unsealed": 0, "packs": 2, "failures": 0}
    assert verify_store(again).faults == []
    assert prune_packs(again, really=True) == Pruned()
    # Who had the store open finds what was moved.
    assert [store.get(name(key)) for key in "abcd"] == served


def test_replies_go_only_when_it_is_said_what_is_needed(person: Callable[..., Store]) -> None:
    store = person("x", a=reply("one"), b=reply("two"), j=reply("verdict"))
    assert prune_packs(store, needed={name("a")}, labels={"judge"}) == Pruned(unneeded=1, packs=1)
    assert store.get(name("b")) == reply("two")
    prune_packs(store, needed={name("a")}, labels={"judge"}, really=True)
    again = Store(store.journals, store.packs)
    assert [again.get(name(key)) for key in "abj"] == [reply("one"), None, reply("verdict")]


def test_nothing_is_pruned_beside_a_damaged_pack(person: Callable[..., Store]) -> None:
    store = person("x", a=reply("one"), b=FAILED)
    person("y", c=reply("three"))
    last = pack_paths(store.packs)[-1]
    last.write_bytes(last.read_bytes() + b"x")
    with pytest.raises(RunError, match=f"{last.name} is damaged"):
        prune_packs(store, really=True)
    assert len(pack_paths(store.packs)) == 2


SEALER = """
import hashlib, sys
from pathlib import Path
from lema.completions.store import Store
from lema.completions.upkeep import prune_packs
from lema.models.types import Completion
root, who = Path(sys.argv[1]), sys.argv[2]
for turn in range(6):
    store = Store(root / "journal", root / "packs")
    for n in range(5):
        text = f"{turn} {n}"
        key = hashlib.sha256(text.encode()).hexdigest()
        bad = hashlib.sha256(f"{who} {text}".encode()).hexdigest()
        assert store.known([key]) in ([True], [False])
        store.add([(key, Completion(text, "stop")), (bad, Completion("", "failed", "no"))], model="m")
        assert store.get(key) == Completion(text, "stop")
    store.seal()
    prune_packs(store, really=True)
    assert store.get(key) == Completion(text, "stop")
"""


def test_processes_buy_seal_and_prune_at_once(person: Callable[..., Store], tmp_path: Path) -> None:
    store = person()
    running = [subprocess.Popen([sys.executable, "-c", SEALER, tmp_path, who], stderr=-1, text=True) for who in "xyz"]
    assert [process.communicate()[1] for process in running if process.wait()] == []
    prune_packs(store, really=True)
    assert verify_store(store).faults == []
    assert store.stats() == {"completions": 30, "unsealed": 0, "packs": store.stats()["packs"], "failures": 0}
    texts = {entry.text for path in pack_paths(store.packs) for entry in Pack(path).entries()}
    assert texts == {f"{turn} {n}" for turn in range(6) for n in range(5)}
    kept = [field.name for field in fields(Completion) if not field.kw_only]
    assert [field.name for field in fields(Entry)][2:] == kept
