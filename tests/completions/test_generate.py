"""Generation: every request is paid for once, whatever happens."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lema.completions.client import most_held
from lema.completions.generate import FRAME, Generate, RequestQueue, encodable
from lema.completions.store import Store
from lema.compute.executor import Executor, LocalExecutor
from lema.errors import RunError
from lema.models import api_errors
from lema.models.types import Completion, Model, Request, Sampling, Worker
from lema.recipe.params import Endpoint, Run
from lema.rows import Message
from tests.fake_server import FakeServer

REPLIES = {"replies": ["one", "two", "three"]}
LOCAL = Model("actor", "scripted", "scripted/actor", options=REPLIES)
OTHER = Model("other", "scripted", "scripted/other", options={"replies": ["other"]})
REMOTE = Model("strong", "openai", "openai/m", name="m", endpoint="here")


def request(text: str, index: int = 0, model: Model = LOCAL) -> Request:
    return Request(model, (Message("user", text),), Sampling(), index)


def requests(count: int, model: Model = LOCAL) -> list[Request]:
    return [request(f"question {n}", model=model) for n in range(count)]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Generate]:
    monkeypatch.setenv("LEMA_HOME", str(tmp_path / "home"))

    def make(run: Run | None = None, executor: Executor | None = None, **options: Any) -> Generate:
        store = Store(tmp_path / "journal", tmp_path / "packs")
        return Generate(store, executor or LocalExecutor(), run or Run(batch=4), name="samples", **options)

    return make


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(api_errors, "FIRST_WAIT", 0.01)
    with FakeServer() as running:
        yield running


class Nowhere:
    """An executor that must not be used."""

    def map(self, *args: Any, **options: Any) -> Iterator[Any]:
        raise AssertionError("started")

    def close(self) -> None: ...


def remote(server: Any, **options: Any) -> Run:
    endpoint = Endpoint(url=server.url, **{"retries": 1, "timeout": 2.0, "concurrency": 8, **options})
    return Run(endpoints={"here": endpoint}, batch=4)


def test_local_models_of_one_folder_take_turns_in_the_same_processes(make: Callable[..., Generate]) -> None:
    maps: list[list[str]] = []

    class Counting(LocalExecutor):
        def map(self, factory: Any, blocks: Any, **options: Any) -> Iterator[Any]:
            taken = list(blocks)
            maps.append([block[0].model.label for block in taken])
            return super().map(factory, taken, **options)

    arms = [
        Model(label, "scripted", label, options=REPLIES, folder=folder, adapter=label)
        for label, folder in (("one", "base"), ("two", "base"), ("three", "other base"))
    ]
    options = Model("four", "scripted", "four", options={"replies": ["x"]}, folder="base")
    asked = [request(f"question {n}", model=model) for n in range(5) for model in (*arms, LOCAL, options, OTHER)]
    assert len(list(make(executor=Counting())(asked))) == 30
    assert maps == [["one", "one", "two", "two"], ["three", "three"], ["actor"] * 2, ["four"] * 2, ["other"] * 2]


def test_replies_come_in_the_order_of_the_requests(make: Callable[..., Generate]) -> None:
    asked = [request(f"question {n % 7}", n % 3, model) for n in range(40) for model in (LOCAL, OTHER)]
    generate = make()
    texts = [reply.text for reply in generate(asked)]
    assert texts[1::2] == ["other"] * 40
    alone = make()
    assert texts == [next(alone([one])).text for one in asked]
    assert len(set(texts[::2])) == 3


def test_identical_requests_are_asked_once(make: Callable[..., Generate], server: Any) -> None:
    generate = make(remote(server))
    replies = list(generate(requests(3, REMOTE) * 4))
    assert len(replies) == 12
    assert len(server.requests) == 3
    assert generate.bought == {"strong": 3}


def test_what_is_in_the_store_needs_no_executor(make: Callable[..., Generate]) -> None:
    first = list(make()(requests(10)))
    generate = make(executor=Nowhere())
    assert list(generate(requests(10))) == first
    assert (generate.hits, generate.bought) == ({"actor": 10}, {})
    assert generate.summary() == "samples: 10 requests, 10 hits, 0 bought"


def test_more_paths_buy_only_the_new_ones(make: Callable[..., Generate]) -> None:
    list(make()([request("q", index) for index in range(4)]))
    generate = make()
    list(generate([request("q", index) for index in range(8)]))
    assert (generate.hits, generate.bought) == ({"actor": 4}, {"actor": 4})


def test_offline_names_what_is_missing(make: Callable[..., Generate]) -> None:
    list(make()(requests(2)))
    generate = make(executor=Nowhere(), offline=True)
    assert len(list(generate(requests(2)))) == 2
    with pytest.raises(RunError, match=f"'actor' with key {requests(3)[2].key}"):
        list(generate(requests(3)))


def test_everything_is_in_the_journal_before_anything_is_yielded(make: Callable[..., Generate], tmp_path: Path) -> None:
    stream = make()(requests(10))
    next(stream)
    again = Store(tmp_path / "journal", tmp_path / "packs")
    assert all(again.get(one.key) for one in requests(10))


def test_some_failures_are_rows(make: Callable[..., Generate]) -> None:
    rules = [{"when": "question 3", "fail": "timed out"}, {"when": "question 5", "refuse": "policy"}]
    model = Model("actor", "scripted", "x", options={**REPLIES, "rules": rules})
    generate = make()
    replies = list(generate(requests(10, model)))
    assert [reply.finish for reply in replies].count("stop") == 8
    assert replies[3] == Completion("", "failed", "timed out")
    assert replies[5] == Completion("", "refused", "policy")
    assert generate.summary() == (
        "samples: 10 requests, 0 hits, 8 bought, 1 refused, 1 failed: actor: policy (1x), actor: timed out (1x)"
    )
    mended = make()
    list(mended(requests(10, Model("actor", "scripted", "x", options=REPLIES))))
    assert (mended.hits, mended.bought) == ({"actor": 8}, {"actor": 2})


def test_too_many_failures_stop_the_stage_and_keep_the_rest(make: Callable[..., Generate]) -> None:
    rules = [{"when": f"question {n}", "fail": "timed out"} for n in (3, 4)]
    model = Model("actor", "scripted", "x", options={**REPLIES, "rules": rules})
    with pytest.raises(RunError, match=r"2 of 10 requests failed.*actor: timed out \(2x\)"):
        list(make()(requests(10, model)))
    generate = make()
    list(generate(requests(10, Model("actor", "scripted", "x", options=REPLIES))))
    # Two blocks of four were bought before the stop, less the two that failed.
    assert generate.hits["actor"] >= 6


def test_failures_are_counted_over_all_calls(make: Callable[..., Generate]) -> None:
    rules = [{"when": f"question {n}", "fail": "timed out"} for n in (3, 17)]
    model = Model("actor", "scripted", "x", options={**REPLIES, "rules": rules})
    generate = make()
    first, rest = requests(20, model)[:10], requests(20, model)[10:]
    assert [reply.finish for half in (first, rest) for reply in generate(half)].count("failed") == 2
    with pytest.raises(RunError, match="3 of 21 requests failed"):
        list(generate([request("question 3 again", model=model)]))


def test_a_model_that_never_answers_is_given_up(make: Callable[..., Generate], server: Any) -> None:
    server.always = "500"
    with pytest.raises(RunError, match=r"of 1000 requests failed.*server error"):
        list(make(remote(server, retries=0))(requests(1000, REMOTE)))
    assert len(server.requests) < 100


@pytest.mark.parametrize("fault", ["401", "404", "quota"])
def test_a_wrong_key_stops_at_once_and_what_was_bought_is_kept(
    make: Callable[..., Generate], server: Any, fault: str
) -> None:
    list(make(remote(server))(requests(5, REMOTE)))
    server.faults, server.always = [None] * 8, fault
    with pytest.raises(RunError, match=r"strong: endpoint here|strong: no credit left"):
        list(make(remote(server))(requests(500, REMOTE)))
    sent = len(server.requests)
    assert sent < 60
    server.always = None
    generate = make(remote(server))
    list(generate(requests(500, REMOTE)))
    assert generate.hits["strong"] == 13
    assert len(server.requests) == sent + 487


def test_a_missing_key_is_named_before_anything_is_sent(make: Callable[..., Generate], server: Any) -> None:
    run = remote(server, key="NO_SUCH_KEY")
    with pytest.raises(RunError, match="environment variable NO_SUCH_KEY"):
        list(make(run)([*requests(3), *requests(3, REMOTE)]))
    assert server.requests == []
    with pytest.raises(RunError, match=r"no endpoint 'here' in params\.yaml; allowed: none"):
        list(make(Run())(requests(3, REMOTE)))


def test_models_run_at_once(make: Callable[..., Generate], server: Any) -> None:
    server.latency = 0.05
    there = Model("there", "openai", "openai/t", name="t", endpoint="there")
    weak = Model("weak", "openai", "openai/w", name="w", endpoint="here")
    run = remote(server)
    run = run.model_copy(update={"endpoints": {**run.endpoints, "there": run.endpoints["here"].model_copy()}})
    generate = make(run)
    asked = [request(f"q {n}", model=model) for model in (REMOTE, there, weak, LOCAL) for n in range(12)]
    assert len(list(generate(asked))) == 48
    assert generate.bought == {"strong": 12, "there": 12, "weak": 12, "actor": 12}
    early = [body["model"] for body in server.requests[:16]]
    assert set(early) == {"m", "t", "w"}


@pytest.mark.parametrize(("in_flight", "held"), [(1, 2), (3, 5), (64, 96), (512, 768)])
def test_half_as_many_again_are_held(in_flight: int, held: int) -> None:
    assert most_held(in_flight) == held


def test_half_characters_are_mended() -> None:
    assert encodable(Completion("a \ud83d b ☃", "stop")).text == "a ? b ☃"


def test_a_backend_that_loses_a_request_is_refused(
    make: Callable[..., Generate], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs.py").write_text(
        "def lazy(model, run):\n    return lambda requests: []\ndef bad(model, run):\n    raise OSError('no weights')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RunError, match="theirs:lazy gave 0 completions for 3 requests"):
        list(make()(requests(3, Model("x", "theirs:lazy", "x"))))
    with pytest.raises(RunError, match="OSError: no weights"):
        list(make()(requests(3, Model("x", "theirs:bad", "x"))))


def test_a_backend_that_fails_loses_no_reply_of_others(
    make: Callable[..., Generate], server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of an endpoint are under way when a model that runs here fails."""
    (tmp_path / "failing.py").write_text(
        "import pathlib, time\n"
        "def part(model, run):\n"
        "    while not pathlib.Path('asked').exists():\n"
        "        time.sleep(0.01)\n"
        "    raise OSError('no weights')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    server.latency = 0.2

    def answer(_: Any) -> str:
        if len(server.requests) > 4:
            Path("asked").touch()
        return "reply"

    server.answer = answer
    with pytest.raises(RunError, match="OSError: no weights"):
        list(make(remote(server))([*requests(50, REMOTE), *requests(1, Model("x", "failing:part", "x"))]))
    sent = len(server.requests)
    assert 0 < sent < 50
    again = make(remote(server))
    list(again(requests(50, REMOTE)))
    assert (again.hits["strong"], len(server.requests)) == (sent, 50)


BUYER = """
import sys
from pathlib import Path
from lema.compute.factory import make_executor
from lema.completions.generate import Generate
from lema.completions.store import Store
from lema.models.types import Model, Request, Sampling
from lema.recipe.params import Endpoint, Run
from lema.rows import Message
root, url, count, where = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
run = Run(executor=where, endpoints={"here": Endpoint(url=url, concurrency=8)})
model = Model("strong", "openai", "openai/m", name="m", endpoint="here")
generate = Generate(Store(root / "journal", root / "packs"), make_executor(run), run)
asked = [Request(model, (Message("user", f"question {n}"),), Sampling(), 0) for n in range(count)]
for reply in generate(asked):
    print(reply.text)
"""


@pytest.mark.parametrize("where", ["local", "ray"])
def test_a_killed_run_buys_the_rest(tmp_path: Path, server: Any, where: str) -> None:
    count, bound = 200, 12
    server.latency = 0.02
    command = [sys.executable, "-c", BUYER, str(tmp_path), server.url, str(count), where]
    environment = {**os.environ, "LEMA_HOME": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment) as buyer:
        while len(server.requests) < count // 2 and buyer.poll() is None:
            time.sleep(0.005)
        buyer.kill()
    assert buyer.returncode == -9
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"reply to question {n} #0" for n in range(count)]
    assert [line for line in done.stderr.splitlines() if not line.startswith("requests: ")] == []
    assert count <= len(server.requests) <= count + 2 * bound


def test_batches_are_of_the_asked_size_and_of_one_model(make: Callable[..., Generate], tmp_path: Path) -> None:
    sizes: list[tuple[str, int]] = []

    def counting(model: Model, run: Run) -> Worker:
        def worker(block: Sequence[Request], /) -> list[Completion]:
            assert all(one.model == model for one in block)
            sizes.append((model.label, len(block)))
            return [Completion("x", "stop") for _ in block]

        return worker

    module = type(sys)("counted")
    module.counting = counting  # type: ignore[attr-defined]
    sys.modules["counted"] = module
    try:
        models = [Model(name, "counted:counting", name) for name in "ab"]
        list(make()([request(f"q {n}", model=model) for n in range(6) for model in models]))
    finally:
        del sys.modules["counted"]
    assert sizes == [("a", 4), ("a", 2), ("b", 4), ("b", 2)]


def test_blocks_are_read_when_there_is_room(make: Callable[..., Generate]) -> None:
    """Of a thousand requests that wait on the disk only those in flight are in memory."""
    taken: list[int] = []

    class Slow(LocalExecutor):
        def map(self, factory: Any, blocks: Any, **options: Any) -> Iterator[Any]:
            def counted() -> Iterator[Any]:
                for number, block in enumerate(blocks):
                    taken.append(number)
                    yield block

            for done in super().map(factory, counted(), **options):
                assert len(taken) <= done[-1][0] + 2
                yield done

    assert len(list(make(executor=Slow())(requests(1000)))) == 1000
    assert taken == list(range(250))


class Recorder(LocalExecutor):
    """Keeps how many workers were wanted."""

    def __init__(self) -> None:
        self.workers: list[int | None] = []

    def map(self, *args: Any, workers: int | None = None, **options: Any) -> Any:
        self.workers.append(workers)
        return super().map(*args, workers=workers, **options)


@pytest.mark.parametrize(
    ("backend", "small", "wanted"), [("reference", 2, [None]), ("reference", 9, []), ("scripted", 2, [3])]
)
def test_a_backend_that_only_computes_has_all_processors_if_there_is_enough_to_do(
    make: Callable[..., Generate], monkeypatch: pytest.MonkeyPatch, backend: str, small: int, wanted: list[int | None]
) -> None:
    monkeypatch.setattr("lema.completions.local.SMALL", small)
    executor = Recorder()
    model = Model("m", backend, backend, options=REPLIES if backend == "scripted" else {})
    generate = make(Run(batch=4, workers=3, max_failures=1.0), executor)
    assert len(list(generate(requests(5, model)))) == 5
    assert executor.workers == wanted


def secret(n: int, label: str) -> Request:
    return request(f"secret {n} \u2603", n, Model(label, "scripted", label, options={"n": 1}))


@pytest.mark.parametrize("count", [1, FRAME - 1, FRAME, FRAME + 1, 5 * FRAME + 7])
def test_requests_come_back_by_model_in_their_order(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEMA_HOME", str(tmp_path))
    with closing(RequestQueue()) as waiting:
        for n in range(count):
            waiting.add(secret(n, "a"))
            waiting.add(secret(n, "b"))
        assert waiting.count == 2 * count
        assert [group.model.label for group in waiting.groups.values()] == ["a", "b"]
        # They are read as they are asked for, also when both are read in turn.
        both = zip(*(waiting.requests(group) for group in waiting.groups.values()), strict=True)
        assert list(both) == [(secret(n, "a"), secret(n, "b")) for n in range(count)]
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == [], "prompts have no name on the disk"
