"""A disk that is full, or that cannot be written: said in a line, nothing that was bought is lost, and it goes on."""

import hashlib
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lema.completions.generate import Generate
from lema.completions.store import Store
from lema.completions.upkeep import verify_store
from lema.compute import parquet
from lema.compute.executor import LocalExecutor
from lema.errors import RunError
from lema.models.types import Completion, Model, Request, Sampling
from lema.recipe.params import Run
from lema.rows import Grade, Message

WORDS = ["".join(random.Random(n).choices("abcdefghijklmnop", k=9)) for n in range(500)]
MODEL = Model(
    "actor", "scripted", "scripted/actor", options={"replies": [" ".join(WORDS[n:] + WORDS[:n]) for n in range(9)]}
)


class Disk:
    """A file system of its own at `path`, in memory, as small as a test needs it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "lema-test", path], check=False, stderr=-1)
        if done.returncode:
            pytest.skip("no right to mount a file system")

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", self.path], check=True)

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", self.path], check=True)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    made = Disk(tmp_path / "disk")
    monkeypatch.setenv("LEMA_HOME", str(made.path / "home"))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def generate(disk: Disk) -> Callable[[], Generate]:
    def make() -> Generate:
        store = Store(disk.path / "home" / "journal", disk.path / "completions")
        return Generate(store, LocalExecutor(), Run(batch=4), name="samples")

    return make


def requests(count: int) -> list[Request]:
    return [Request(MODEL, (Message("user", f"question {n}"),), Sampling(), 0) for n in range(count)]


def test_a_full_disk_stops_the_stage_and_it_goes_on(disk: Disk, generate: Callable[[], Generate]) -> None:
    first = generate()
    with pytest.raises(RunError, match=r"completion store cannot be written: .*No space left") as raised:
        list(first(requests(100)))
    assert "\n" not in str(raised.value)
    kept = first.bought["actor"]
    assert 40 < kept < 100
    assert verify_store(first._store).faults == []
    # Sealing needs room for the pack beside the journal: nothing is lost when there is none.
    fill(disk.path / "filler")
    with pytest.raises(RunError, match="No space left"):
        first._store.seal()
    assert list((disk.path / "completions").iterdir()) == []
    disk.remount("size=4m")
    second = generate()
    replies = list(second(requests(100)))
    assert (second.hits["actor"], second.bought["actor"]) == (kept, 100 - kept)
    assert [reply.text for reply in replies] == [reply.text for reply in generate()(requests(100))]
    assert verify_store(second._store).faults == []


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 1024):
            pass


def test_requests_that_wait_need_room(disk: Disk, generate: Callable[[], Generate]) -> None:
    disk.path.joinpath("home").mkdir()
    fill(disk.path / "filler")
    with pytest.raises(RunError, match=r"no room for what waits in .*No space left"):
        list(generate()(requests(1000)))


def test_a_disk_that_cannot_be_written_serves_what_is_there(disk: Disk, generate: Callable[[], Generate]) -> None:
    bought = generate()
    replies = list(bought(requests(10)))
    bought._store.seal()
    disk.remount("ro")
    again = generate()
    assert list(again(requests(10))) == replies
    assert again._store.seal() == []

    class Nowhere(LocalExecutor):
        def map(self, *args: object, **options: object) -> Iterator[tuple[int, object]]:  # type: ignore[override]
            raise AssertionError("started")
            yield

    refused = Generate(again._store, Nowhere(), Run())
    with pytest.raises(RunError, match=r"completion store cannot be written: .*Read-only"):
        list(refused(requests(11)))
    with pytest.raises(RunError, match="cannot be written: Read-only"):
        parquet.write_rows(disk.path / "grades.parquet", Grade, [])


def test_an_artifact_that_finds_no_room_is_not_there(disk: Disk) -> None:
    rows = [Grade(hashlib.sha256(str(n).encode()).hexdigest(), "q", "s", "correct", None) for n in range(20_000)]
    for count in (16_000, 20_000):  # in one part, and in several
        with pytest.raises(RunError, match="No space left"):
            parquet.write_rows(disk.path / "grades.parquet", Grade, iter(rows[:count]))
        assert list(disk.path.iterdir()) == []


LIMITED = """
import hashlib, resource, sys
from pathlib import Path
from lema.completions.store import Store
from lema.errors import RunError
from lema.models.types import Completion
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
store = Store(Path(sys.argv[1]) / "journal", Path(sys.argv[1]) / "packs")
try:
    for n in range(1000):
        store.add([(hashlib.sha256(str(n).encode()).hexdigest(), Completion(f"{n} " * 500, "stop"))], model="m")
        print(n, flush=True)
except RunError as error:
    print(error, file=sys.stderr)
"""


def test_what_was_acknowledged_before_a_write_failed_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEMA_HOME", str(tmp_path / "home"))
    done = subprocess.run([sys.executable, "-c", LIMITED, tmp_path], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["the completion store cannot be written: [Errno 27] File too large"]
    acknowledged = [int(line) for line in done.stdout.split()]
    assert 5 < len(acknowledged) < 20
    store = Store(tmp_path / "journal", tmp_path / "packs")
    for n in acknowledged:
        assert store.get(hashlib.sha256(str(n).encode()).hexdigest()) == Completion(f"{n} " * 500, "stop")
    assert store.stats()["completions"] == len(acknowledged)
    assert verify_store(store).faults == []
