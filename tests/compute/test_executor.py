"""One contract over both executors."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from lema.compute import ray_head as head_of_ray
from lema.compute.executor import Executor, LocalExecutor, WorkerDiedError, merge_streams, pmap
from lema.compute.factory import make_executor
from lema.compute.ray_head import join_head, lazy_head
from lema.compute.ray_pool import RayExecutor
from lema.compute.worker_pool import worker_resources
from lema.errors import RunError
from lema.recipe.params import Run

Block = list[int]


@pytest.fixture(scope="module", params=["local", "ray"])
def where(request: pytest.FixtureRequest) -> Executor:
    return LocalExecutor() if request.param == "local" else request.getfixturevalue("ray")  # type: ignore[no-any-return]


def test_params_choose_the_executor() -> None:
    assert isinstance(make_executor(Run(executor="local")), LocalExecutor)
    assert isinstance(make_executor(Run()), RayExecutor)


def doubling() -> Callable[[Block], Block]:
    return lambda block: [2 * number for number in block]


def identity() -> Callable[[Any], Any]:
    return lambda block: block


def counting(note: Path) -> Callable[[Block], Block]:
    with note.open("a") as file:
        file.write("built\n")
    return lambda block: block


def failing(kind: type[Exception]) -> Callable[[Block], Block]:
    def work(block: Block) -> Block:
        if block == [2]:
            raise kind("it broke\nand this line says more")
        return block

    return work


def unbuildable() -> Callable[[Block], Block]:
    raise RunError("no such model")


def where_am_i() -> Callable[[Block], list[str]]:
    return lambda block: [str(Path.cwd()), *sys.path]


class Echo:
    """An exchanger: returns what it is given and variables of its environment, fails or dies, as it is asked."""

    def __init__(self, error: str | None = None) -> None:
        if error:
            raise RunError(error)

    async def exchange(self, what: str, *names: str) -> Any:
        if what == "fail":
            raise ValueError("it broke\nand this line says more")
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "wait":
            await asyncio.sleep(60)
        return what, [os.environ.get(name) for name in names]

    def close(self) -> None: ...


def alarm(number: int) -> int:
    signal.alarm(5)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(0)
    return -number


def suicidal(note: Path) -> Callable[[Block], Block]:
    def work(block: Block) -> Block:
        if block == [3] and not note.exists():
            note.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return block

    return work


def always_dying() -> Callable[[Block], Block]:
    return lambda block: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[return-value]


def flat(stream: Iterable[list[tuple[int, Any]]]) -> list[tuple[int, Any]]:
    return [one for done in stream for one in done]


@pytest.mark.parametrize("workers", [1, 2])
def test_every_block_comes_back_once_with_its_number(where: Executor, workers: int) -> None:
    work = [[number, number + 1] for number in range(20)]
    results = flat(where.map(doubling, work, workers=workers))
    assert len(results) == 20
    assert dict(results) == {number: [2 * number, 2 * number + 2] for number in range(20)}


def test_no_blocks(where: Executor) -> None:
    assert flat(where.map(doubling, [])) == []


def test_the_factory_is_called_once_a_worker(where: Executor, tmp_path: Path) -> None:
    note = tmp_path / "note"
    assert len(flat(where.map(partial(counting, note), [[n] for n in range(10)], workers=1))) == 10
    assert note.read_text() == "built\n"


def test_blocks_are_taken_only_when_there_is_room(where: Executor) -> None:
    taken = 0

    def endless() -> Iterator[Block]:
        nonlocal taken
        while True:
            taken += 1
            yield [taken]

    stream = where.map(identity, endless(), workers=1)
    done = sum(len(next(stream)) for _ in range(5))
    assert taken <= done + 3 + 1
    stream.close()  # type: ignore[attr-defined]


def test_a_service_knows_the_variables_of_this_process(where: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a Ray that was started without them, or with others."""
    assert len(flat(where.map(identity, [[1]], workers=1))) == 1
    monkeypatch.setenv("LEMA_TEST_KEY", "set after Ray was started")
    service = where.serve(Echo, 0, ["LEMA_TEST_KEY", "LEMA_TEST_NONE"])
    names = ("LEMA_TEST_KEY", "LEMA_TEST_NONE")
    for _ in range(2):
        assert service.exchange("echo", *names).result(60) == ("echo", ["set after Ray was started", None])
    with pytest.raises(Exception, match="it broke"):
        service.exchange("fail").result(60)
    assert service.exchange("echo").result(60) == ("echo", [])
    service.close()


def test_a_service_that_cannot_be_made_or_dies(ray: RayExecutor) -> None:
    with pytest.raises(RunError, match=r"^no such model$"):
        ray.serve(partial(Echo, "no such model"), 0).exchange("echo").result(60)
    service = ray.serve(Echo, 1)
    assert service.exchange("echo").result(60) == ("echo", [])
    held = service.exchange("wait")
    with pytest.raises(WorkerDiedError):
        service.exchange("die").result(60)
    with pytest.raises(WorkerDiedError):
        held.result(60)


@pytest.mark.parametrize(("kind", "message"), [(KeyError, "KeyError: "), (ValueError, "ValueError: it broke")])
def test_an_exception_is_one_line(where: Executor, kind: type[Exception], message: str) -> None:
    with pytest.raises(RunError) as caught:
        list(where.map(partial(failing, kind), [[n] for n in range(5)], workers=1))
    assert str(caught.value).startswith(message)
    assert len(str(caught.value).splitlines()) == 1


def test_our_own_errors_keep_their_words(where: Executor) -> None:
    with pytest.raises(RunError) as caught:
        list(where.map(unbuildable, [[1]], workers=1))
    assert str(caught.value) == "no such model"


def test_workers_run_in_the_project(where: Executor) -> None:
    ((_, (folder, *path)),) = flat(where.map(where_am_i, [[1]], workers=1))
    assert folder == str(Path.cwd())
    assert {str(Path(entry).resolve()) for entry in sys.path} <= {str(Path(entry).resolve()) for entry in path}


def test_alarms_work_in_computing_workers(where: Executor) -> None:
    assert list(pmap(where, alarm, range(5), block=2, small=0)) == [0, -1, -2, -3, -4]


def test_a_killed_worker_is_replaced_and_nothing_is_lost(ray: RayExecutor, tmp_path: Path) -> None:
    work = [[n] for n in range(8)]
    results = flat(ray.map(partial(suicidal, tmp_path / "died"), work, workers=1))
    assert sorted(results) == [(n, [n]) for n in range(8)]
    assert (tmp_path / "died").exists()


def test_a_worker_that_always_dies_is_an_error(ray: RayExecutor) -> None:
    with pytest.raises(RunError, match="a worker died 4 times"):
        list(ray.map(always_dying, [[1]], workers=1))


def test_more_workers_than_processors_is_an_error(ray: RayExecutor) -> None:
    with pytest.raises(RunError, match=r"run\.workers or run\.trainings is 5000, but Ray has \d+ processors"):
        list(ray.map(identity, [[1]], workers=5000))


@pytest.mark.parametrize(
    ("nodes", "workers", "demand"),
    [
        ([(2, 0)], 1, (1, {"num_cpus": 2})),
        ([(2, 0)], 2, (2, {"num_cpus": 1})),
        ([(2, 0)], None, (2, {"num_cpus": 1})),
        ([(8, 0), (8, 0)], 1, (1, {"num_cpus": 8})),
        ([(8, 0), (4, 0)], 3, (3, {"num_cpus": 4})),
        ([(8, 2)], 1, (1, {"num_cpus": 1, "num_gpus": 1})),
        ([(8, 2)], 4, (4, {"num_cpus": 1, "num_gpus": 0.5})),
        ([(8, 2)], None, (8, {"num_cpus": 1})),
    ],
)
def test_what_workers_reserve(
    nodes: list[tuple[int, int]], workers: int | None, demand: tuple[int, dict[str, float]]
) -> None:
    cluster = [{"Alive": True, "Resources": {"CPU": cpu, "GPU": gpu}} for cpu, gpu in nodes]
    assert worker_resources([*cluster, {"Alive": False, "Resources": {"CPU": 64}}], workers) == demand


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11])
def test_pmap_keeps_the_order(where: Executor, count: int) -> None:
    assert list(pmap(where, str, range(count), block=3, small=5)) == [str(n) for n in range(count)]


def test_small_work_stays_here() -> None:
    class Nowhere(LocalExecutor):
        def map(self, *args: Any, **options: Any) -> Iterator[Any]:
            raise AssertionError("was started")

    assert list(pmap(Nowhere(), str, range(5), small=5)) == ["0", "1", "2", "3", "4"]
    with pytest.raises(AssertionError):
        list(pmap(Nowhere(), str, range(6), small=5))


def test_a_merged_stream_goes_on_when_its_item_was_used() -> None:
    used: list[int] = []
    early: list[int] = []

    def stream(number: int) -> Iterator[int]:
        for item in range(number, 60, 10):
            yield item
            early.extend({item} - set(used))

    for item in merge_streams([stream(number) for number in range(3)], Event()):
        time.sleep(0.001)
        used.append(item)
    assert sorted(used) == sorted(item for number in range(3) for item in range(number, 60, 10))
    assert early == []


def test_when_a_merged_stream_fails_the_others_come_to_an_end_and_nothing_of_theirs_is_lost() -> None:
    stop, late = Event(), list(range(5))

    def broken() -> Iterator[int]:
        yield 10
        raise RunError("broken")

    def under_way() -> Iterator[int]:
        """Begins nothing new once it is told to stop, and then yields what it has begun."""
        assert stop.wait(10)
        yield from late

    got: list[int] = []
    with pytest.raises(RunError, match="broken"):
        got.extend(merge_streams([broken(), under_way()], stop))
    assert got == [10, *late]


def test_threads_of_merged_streams_that_nobody_reads_end() -> None:
    before = threading.active_count()
    merged = merge_streams([iter(range(1000)) for _ in range(3)], Event())
    next(merged)
    merged.close()  # type: ignore[attr-defined]
    for _ in range(100):
        if threading.active_count() <= before:
            break
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_an_address_where_nothing_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_of_ray, "REACH", 0.1)
    for address, message in [
        ("127.0.0.1:1", "no Ray answers at RAY_ADDRESS=127.0.0.1:1"),
        ("nowhere", "must be host:port"),
    ]:
        with pytest.raises(RunError, match=message):
            head_of_ray.reach(address)


USER = """
import sys
from lema.compute.executor import pmap
from lema.compute.ray_pool import RayExecutor
with RayExecutor() as it:
    print(list(pmap(it, abs, range(-3, 0), block=1, small=0)))
"""


def left_of(environment: dict[str, str]) -> list[str]:
    """Processes that have this head's token, once they had time to end."""
    token = environment["RAY_AUTH_TOKEN"].encode()
    for _ in range(150):
        left = [path.parent.name for path in Path("/proc").glob("[0-9]*/environ") if token in _read(path)]
        if not left:
            return []
        time.sleep(0.1)
    return left


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_head_serves_its_block_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEMA_HOME", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with lazy_head(os.environ) as environment:
        assert not (tmp_path / "ray.log").exists()  # nobody has asked
        command = [sys.executable, "-c", f"{USER}\nimport os\nprint(os.environ['RAY_AUTH_TOKEN'])"]
        done = [subprocess.run(command, env=environment, capture_output=True, text=True, check=False) for _ in range(2)]
        assert [one.stderr for one in done] == ["", ""]
        ((result, token),) = {tuple(one.stdout.splitlines()) for one in done}  # both joined the same one
        assert result == "[3, 2, 1]"
    assert left_of({"RAY_AUTH_TOKEN": token}) == []
    monkeypatch.setenv("LEMA_RAY_HEAD", environment["LEMA_RAY_HEAD"])
    with pytest.raises(RunError, match="the Ray of `lema repro` cannot be had"):
        join_head()


OWNER = """
import json, time
from lema.compute.ray_head import head, reach
with head() as environment:
    reach(environment["RAY_ADDRESS"])
    print(json.dumps(environment), flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel does this on Linux only")
def test_a_head_dies_with_its_owner(tmp_path: Path) -> None:
    environment = {**os.environ, "LEMA_HOME": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True, env=environment) as owner:
        assert owner.stdout is not None
        ours = json.loads(owner.stdout.readline())
        owner.kill()
    assert left_of(ours) == []


def test_a_local_ray_is_quiet() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run([sys.executable, "-c", USER], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[3, 2, 1]\n", "")


PASSING = """
import threading, time
from lema.compute.ray_pool import RayExecutor
where = RayExecutor()
starter = threading.Thread(target=where.start)
starter.start()
starter.join()
time.sleep(1)
print(where.start().is_initialized())
where.close()
"""


def test_ray_outlives_the_thread_that_has_started_it() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", PASSING], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "True\n")
