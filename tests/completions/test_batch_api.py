"""Batches: the same replies as online, none bought twice, whatever happens to them or to us."""

import multiprocessing
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lema.completions import batch_api, batch_client, batch_records, batch_requests
from lema.completions.budget import BudgetTracker
from lema.completions.generate import Generate
from lema.completions.ledger import fold_spending, ledger_folder
from lema.completions.store import Store
from lema.compute.executor import LocalExecutor
from lema.errors import RunError
from lema.models.types import Completion, Model, Request, Sampling
from lema.recipe.params import Budget, Endpoint, Price, Run
from lema.rows import Message
from tests.batch_buyer import buy
from tests.batch_server import FULL, BatchServer

MODEL = Model("strong", "openai", "openai/m", name="m", endpoint="here")
OTHER = Model("weak", "openai", "openai/w", name="w", endpoint="here")
PLAIN = Model("base", "openai", "openai/b", name="b", endpoint="here", chat=False)


def request(text: str, index: int = 0, model: Model = MODEL) -> Request:
    return Request(model, (Message("user", text),), Sampling(stop=("\nQuestion:",), seed=7), index)


def requests(count: int, model: Model = MODEL) -> list[Request]:
    return [request(f"question {n}", model=model) for n in range(count)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[BatchServer]:
    monkeypatch.setenv("LEMA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HERE_KEY", "sk-SECRET")
    monkeypatch.setattr(batch_api, "FIRST_POLL", 0.005)
    monkeypatch.setattr(batch_api, "LONGEST_POLL", 0.02)
    monkeypatch.setattr(batch_api, "SETTLE", 0.2)
    monkeypatch.setattr(batch_api, "FIRST_FULL", 0.02)
    monkeypatch.setattr(batch_api, "LONGEST_FULL", 0.05)
    with BatchServer() as running:
        yield running


@pytest.fixture
def make(server: BatchServer, tmp_path: Path) -> Callable[..., Generate]:
    def make(mode: str = "batch", home: str = "store", budget: BudgetTracker | None = None, **options: Any) -> Generate:
        endpoint = Endpoint(url=server.url, key="HERE_KEY", retries=0, timeout=2.0, mode=mode)  # type: ignore[arg-type]
        run = Run(endpoints={"here": endpoint}, **options)
        store = Store(tmp_path / home / "journal", tmp_path / home / "packs")
        return Generate(store, LocalExecutor(), run, budget=budget)

    return make


def once(server: BatchServer, count: int) -> bool:
    """Every request was answered, and paid for, once."""
    return len(server.bought) == count == server.bought.total()


def records() -> list[Path]:
    return sorted(batch_records.records_folder().glob("*.jsonl"))


def test_replies_are_those_of_an_online_run(make: Callable[..., Generate], server: BatchServer) -> None:
    server.answer = lambda body: f"\u2028 {body.get('seed')} half \ud83d\x85 {str(body)[-9:]}\nQuestion: 5"
    asked = [
        request(f"question {n}", index, model)
        for n in range(9)
        for index in range(2)
        for model in (MODEL, OTHER, PLAIN)
    ]
    online = list(make("online", home="online")(asked))
    server.requests.clear()
    server.plans = [{"shuffle": True, "twice": 3}] * 3
    assert list(make()(asked)) == online
    assert once(server, 54)
    assert server.sizes == [18, 18, 18]
    assert {name.rpartition(".")[2] for name in server.names.values()} == {"jsonl"}
    assert all(header["Authorization"] == "Bearer sk-SECRET" for header in server.headers)
    again = make()
    assert list(again(asked)) == online
    assert again.hits.total() == 54
    assert once(server, 54)


def test_files_keep_to_the_limits(
    make: Callable[..., Generate], server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_requests, "MAX_REQUESTS", 10)
    server.most = 10
    assert len(list(make()(requests(25)))) == 25
    assert server.sizes == [10, 10, 5]
    monkeypatch.setattr(batch_requests, "MAX_BYTES", 1000)
    list(make()([request("x" * n) for n in (1, 50, 1500, 2, 3)]))
    assert server.sizes[3:] == [2, 1, 2]
    assert once(server, 30)


@pytest.mark.parametrize(
    ("plan", "again", "said"),
    [
        ({"expire": 4}, 6, "6 of 10 replies are missing (no reply in the batch (batch_expired)); they are asked for"),
        ({"cancel": 4}, 6, "(no reply in the batch (batch_cancelled))"),
        ({"lose": 3}, 3, "3 of 10 replies are missing (no reply in the batch); they are asked for again"),
        ({"torn": True}, 1, "1 of 10 replies are missing (no reply in the batch)"),
        ({"lines": {2: "500", 3: "429"}}, 2, "2 of 10 replies are missing (rate limit (429 rate_limit_exceeded))"),
        ({"lines": {2: "empty"}}, 1, "1 of 10 replies are missing (malformed reply); they are asked for again"),
        ({"expire": 0}, 10, "10 of 10 replies are missing"),
    ],
)
def test_only_what_is_missing_is_sent_again(
    make: Callable[..., Generate],
    server: BatchServer,
    capsys: pytest.CaptureFixture[str],
    plan: Any,
    again: int,
    said: str,
) -> None:
    server.plans = [plan]
    generate = make()
    assert [reply.text for reply in generate(requests(10))] == [f"reply to question {n} #7" for n in range(10)]
    assert server.sizes == [10, again]
    assert generate.summary() == "requests: 10 requests, 0 hits, 10 bought"
    assert said in capsys.readouterr().err


def test_what_is_missing_every_time_fails(make: Callable[..., Generate], server: BatchServer) -> None:
    server.plans = [{"lose": 1}, {"lines": {0: "503"}}, {"expire": 0}]
    generate = make()
    replies = list(generate(requests(10)))
    assert server.sizes == [10, 1, 1]
    assert replies[0] == Completion("", "failed", "no reply in the batch (batch_expired)")
    assert next(make()(requests(10))).finish == "stop"
    assert server.sizes == [10, 1, 1, 1]


def test_failures_of_requests_are_rows(make: Callable[..., Generate], server: BatchServer) -> None:
    server.plans = [{"lines": {1: "400", 2: "filter", 3: "refusal", 4: "length", 5: "long"}}]
    replies = list(make(max_failures=0.5)(requests(10)))
    assert server.sizes == [10]
    assert [(reply.finish, reply.error) for reply in replies[:7]] == [
        ("stop", None),
        ("failed", "bad request (400 weird)"),
        ("refused", "refused by the content filter (400 content_filter)"),
        ("refused", "refused by the model or its content filter"),
        ("length", None),
        ("failed", "the prompt is too long for the model (400)"),
        ("stop", None),
    ]
    list(make(max_failures=0.5)(requests(10)))
    assert server.sizes == [10, 4]


@pytest.mark.parametrize(
    ("plan", "calls", "message"),
    [
        ({"lines": {4: "401"}}, {}, "strong: endpoint here refuses the key in HERE_KEY; what was bought is kept"),
        ({"lines": dict.fromkeys(range(10), "404")}, {}, "strong: endpoint here knows no model m"),
        ({"fail": {"code": "billing_hard_limit_reached", "message": "PROMPT TEXT"}}, {}, "a batch .billing_hard"),
        ({"fail": {"code": "invalid_json_line", "message": "PROMPT TEXT", "line": 3}}, {}, r"\(invalid_json_line 3\)"),
        ({}, {"upload": ["404"]}, "endpoint here has no Batch API, or its url is wrong"),
        ({}, {"upload": ["401"]}, "strong: endpoint here refuses the key in HERE_KEY"),
        ({}, {"create": ["quota"]}, "no credit left at endpoint here"),
        ({}, {"create": ["drop"] * 9}, "the connection to endpoint here was lost.* when it was to make a batch"),
    ],
)
def test_what_concerns_every_request_stops(
    make: Callable[..., Generate], server: BatchServer, plan: Any, calls: Any, message: str
) -> None:
    server.plans, server.calls = [plan], calls
    with pytest.raises(RunError, match=message) as caught:
        list(make()(requests(10)))
    assert "PROMPT" not in str(caught.value)
    assert len(server.batches) == bool(plan)
    server.calls = {}
    list(make()(requests(10)))
    assert once(server, 10)


def test_a_full_queue_is_waited_for_with_smaller_batches(make: Callable[..., Generate], server: BatchServer) -> None:
    server.room = 30
    assert len(list(make()(requests(100)))) == 100
    assert once(server, 100)
    assert server.sizes[:3] == [100, 50, 25]
    server.plans, server.room = [{"fail": FULL}, {"fail": FULL}], None
    list(make()([request(f"another {n}") for n in range(10)]))
    assert once(server, 110)
    assert server.sizes[-6:-3] == [10, 5, 2]


def test_a_queue_that_stays_full_is_given_up(
    make: Callable[..., Generate], server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_api, "GIVE_UP", 0.3)
    server.room = 0
    with pytest.raises(RunError, match="endpoint here takes no batch: its queue is full"):
        list(make()(requests(5)))
    assert not records()


@pytest.mark.parametrize(
    "calls",
    [
        {"upload": ["500", "drop", "drop after", "429 later", "full"]},
        {"create": ["404", "429", "full", "full"]},
        {"create": ["drop", "drop after"]},
        {"create": ["503", "500 after"]},
        {"create": ["html after"]},
        {"look": ["500", "drop", "429", "html"]},
        {"content": ["500", "drop", "torn", "404", "429"]},
        {"list": ["500", "drop"], "create": ["500 after"]},
    ],
)
def test_calls_that_fail_are_made_again_and_none_twice(
    make: Callable[..., Generate], server: BatchServer, calls: dict[str, list[str]]
) -> None:
    server.calls = {kind: list(faults) for kind, faults in calls.items()}
    generate = make()
    assert len(list(generate(requests(10)))) == 10
    assert generate.bought == {"strong": 10}
    assert once(server, 10)
    assert not any(server.calls.values())


def test_files_and_batches_that_show_late(make: Callable[..., Generate], server: BatchServer) -> None:
    server.plans = [{"late": 3, "unknown": 2}]
    assert len(list(make()(requests(10)))) == 10
    assert once(server, 10)


def test_an_endpoint_that_is_gone_is_said_to_be(
    make: Callable[..., Generate], server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_client, "OUTAGE_PATIENCE", 0.2)
    for kind in ("look", "content"):
        server.calls = {kind: ["drop"] * 1000}
        with pytest.raises(
            RunError, match=r"endpoint here was lost.*; what was submitted runs on, and the next run fetches it"
        ):
            list(make()(requests(10)))
    server.calls = {}
    list(make()(requests(10)))
    assert server.sizes == [10]


def test_an_endpoint_that_nobody_reaches_is_not_waited_for(
    make: Callable[..., Generate], server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_client, "OUTAGE_PATIENCE", 1e9)
    monkeypatch.setattr(server, "port", 1)  # nobody listens there
    with pytest.raises(RunError, match=r"strong: endpoint here refuses the connection to http://127\.0\.0\.1:1/v1"):
        list(make()(requests(10)))
    assert records() == []


@pytest.mark.parametrize(
    ("plan", "calls", "named"),
    [
        ({"unknown": 10_000}, {}, "batch_0"),
        ({"late": 10_000}, {}, "batch_0"),
        ({"gone": True}, {}, "batch_0"),
        ({}, {"create": ["500 after"]}, "of file-in-0"),
    ],
)
def test_a_batch_that_is_lost_is_bought_again_only_by_a_person(
    make: Callable[..., Generate], server: BatchServer, plan: Any, calls: Any, named: str
) -> None:
    """In the last case because the endpoint lists no batches."""
    server.plans, server.calls, server.listed = [plan], calls, False
    for _ in range(2):
        generate = make()
        with pytest.raises(
            RunError, match=rf"does not give batch {named}; if it is lost, delete .*jsonl to ask for its 10"
        ):
            list(generate(requests(10)))
        assert not generate.failed
    assert server.sizes == [10]
    (record,) = records()
    record.unlink()
    list(make()(requests(10)))
    assert server.sizes == [10, 10]


def test_only_one_backend_makes_batches(make: Callable[..., Generate], server: BatchServer) -> None:
    theirs = Model("theirs", "my_pkg.mod:theirs", "x", name="m", endpoint="here")
    with pytest.raises(RunError, match=r"'theirs': endpoint here is asked in batches, which the backend my_pkg\.mod"):
        list(make()([*requests(3), *requests(3, theirs)]))
    assert not server.files


def test_an_online_run_does_not_pay_for_what_is_in_a_batch(make: Callable[..., Generate], server: BatchServer) -> None:
    server.calls = {"look": ["401"]}
    with pytest.raises(RunError, match="refuses the key"):
        list(make()(requests(10)))
    with pytest.raises(RunError, match="10 requests to endpoint here are in batches that were submitted before; with"):
        list(make("online")(requests(12)))
    list(make("online")([request("another")]))
    list(make()(requests(10)))
    assert once(server, 10)
    list(make("online")(requests(12)))
    assert len(server.requests) == 13


def test_a_stage_that_stops_leaves_its_batches(make: Callable[..., Generate], server: BatchServer) -> None:
    stop = threading.Event()
    server.on = lambda what: stop.set() if what == "in_progress" else None
    endpoint = Endpoint(url=server.url)
    driver = batch_api.BatchDriver(MODEL, lambda: [requests(10)], endpoint, stop, lambda text: None)
    assert list(driver.stream()) == []
    assert len(list(make()(requests(12)))) == 12
    assert server.sizes == [10, 2]
    assert once(server, 12)


class Purse:
    """A budget in requests."""

    def __init__(self, count: int, later: int = 0) -> None:
        self.count, self.later = count, later
        self.aside: set[str] = set()

    def reserve(self, block: Sequence[Request], /) -> bool:
        new = {one.key for one in block} - self.aside
        if len(self.aside) + len(new) > self.count:
            return False
        self.aside |= new
        return True

    def wait_for_room(self, block: Sequence[Request], stop: threading.Event, /) -> bool:
        """There is more room once, when what is under way elsewhere is answered."""
        more, self.later = self.later, 0
        self.count += more
        return more > 0

    def release(self, keys: Iterable[str], /) -> None:
        self.aside -= set(keys)


def test_a_budget_bounds_what_is_sent(
    server: BatchServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(batch_requests, "MAX_REQUESTS", 20)
    endpoint, asked = Endpoint(url=server.url), [requests(20), requests(60)[20:]]
    purse, said = Purse(25), list[str]()

    def stream() -> list[Request]:
        driver = batch_api.BatchDriver(MODEL, lambda: asked, endpoint, threading.Event(), said.append, purse)
        return [one for block, _ in driver.stream() for one in block]

    server.plans = [{"lose": 3}, {}, {"fail": FULL}]
    assert {one.key for one in stream()} == {one.key for one in requests(25)}
    assert server.sizes[:2] == [20, 5]
    assert (len(purse.aside), server.bought.total()) == (25, 28)
    purse.count = 0
    # What was paid for is fetched without any.
    assert {one.key for one in stream()} == {one.key for one in requests(25)}
    assert server.bought.total() == 28
    assert capsys.readouterr().err.count("a batch that was submitted before") == 5


@pytest.mark.parametrize("now", [0, 4])
def test_room_in_the_budget_that_others_make_is_waited_for(server: BatchServer, now: int) -> None:
    purse, stop, here = Purse(now, later=6), threading.Event(), Endpoint(url=server.url)
    driver = batch_api.BatchDriver(MODEL, lambda: [requests(12)], here, stop, lambda _: None, purse)
    assert len([one for block, _ in driver.stream() for one in block]) == now + 6
    assert server.bought.total() == now + 6


MOST, COST = Decimal("0.053"), Decimal("0.0105")  # of 106 tokens at most, and of 21


@pytest.fixture
def spend(make: Callable[..., Generate], server: BatchServer) -> Callable[[object], Any]:
    """Buys 60 replies under a budget of so many dollars."""
    server.answer = lambda _: "w " * 10

    def spend(total: object) -> Any:
        price = Price(input=Decimal(1000), output=Decimal(1000), batch=Decimal("0.5"))
        endpoint, prices = Endpoint(url=server.url, mode="batch"), {"m": price}
        run = Run(endpoints={"here": endpoint}, prices=prices, budget=Budget.model_validate({"total": total}))
        asked = [Request(MODEL, (Message("user", f"ask {n:02d}"),), Sampling(max_tokens=20)) for n in range(60)]
        with closing(BudgetTracker(run, "trial", "samples")) as tracker:
            return list(make(budget=tracker)(asked))

    return spend


def test_no_more_is_submitted_than_may_be_spent(spend: Callable[[object], Any], server: BatchServer) -> None:
    with pytest.raises(RunError, match="budget"):
        spend(0.3)
    spent = fold_spending(ledger_folder())
    assert spent.total() == server.bought.total() * COST <= Decimal("0.3")
    assert spent.total() > Decimal("0.3") - MOST
    assert spent.in_doubt == {}
    assert len(spend(3)) == 60
    assert once(server, 60)
    assert fold_spending(ledger_folder()).total() == 60 * COST


def test_a_batch_that_was_taken_over_is_paid_once(spend: Callable[[object], Any], server: BatchServer) -> None:
    def end(*_: Any) -> None:
        raise RunError("the process ends when the batch is submitted")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_api.BatchDriver, "_notify", end)
        with pytest.raises(RunError, match="the process ends"):
            spend(4)
    assert fold_spending(ledger_folder()).total() == 60 * MOST
    assert len(spend(4)) == 60
    assert once(server, 60)
    spent = fold_spending(ledger_folder())
    assert (spent.total(), spent.in_doubt) == (60 * COST, {})


def test_nothing_secret_is_kept(make: Callable[..., Generate], server: BatchServer, tmp_path: Path) -> None:
    seen: list[str] = []
    server.on = lambda what: seen.extend(
        f"{path}: {word}"
        for path in tmp_path.rglob("*")
        if path.is_file()
        for word in ("SECRET", "PROMPT TEXT", "127.0.0.1")
        if word in path.read_text()
    )
    list(make()([request("PROMPT TEXT")]))
    assert seen == []
    assert (batch_records.records_folder() / "lock").exists()
    assert request("PROMPT TEXT").key in records()[0].read_text()


def test_what_was_handed_out_is_fetched_again_rather_than_bought(
    make: Callable[..., Generate], server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a process is killed between the last line of its record and the journal."""
    server.plans = [{"lines": {3: "400"}}]
    first = list(make(max_failures=0.5)(requests(10)))
    again = list(make(home="new")(requests(10)))
    assert [*first[:3], *first[4:]] == [*again[:3], *again[4:]]
    assert server.sizes == [10, 1]
    assert once(server, 10)
    monkeypatch.setattr(batch_records, "RECORD_LIFETIME", 0.0)
    list(make(home="newer")(requests(10)))
    assert server.sizes == [10, 1, 10]


def test_what_ended_before_it_was_kept_is_not_bought_again_online(
    make: Callable[..., Generate], server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where another model is asked beside: a batch is handed out when its replies are in the store."""
    local = Model("actor", "scripted", "scripted/actor", options={"replies": ["one"]})
    add = Store.add

    def ends(store: Store, pairs: Any, *, model: str) -> None:
        if model == "strong":
            raise RunError("the process ends")
        add(store, pairs, model=model)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "add", ends)
        with pytest.raises(RunError, match="the process ends"):
            list(make()([*requests(10), *requests(10, local)]))
        time.sleep(0.2)
    with pytest.raises(RunError, match="10 requests to endpoint here are in batches"):
        list(make("online")(requests(10)))
    assert len(list(make()(requests(10)))) == 10
    assert once(server, 10)


MINE = [f"{when} {what}" for when in ("before", "after") for what in ("write", "file", "batch", "left", "add")]
THEIRS = ["upload", "create", "validating", "in_progress", "finalizing", "completed", "half", "content"]


@contextmanager
def buying(tmp_path: Path, server: BatchServer, moment: str = "never") -> Iterator[Any]:
    """A process that buys 60 replies and writes them to a file; it is waited for at the end of the block."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.batch_buyer"])
    process = context.Process(target=buy, args=(tmp_path, server.url, moment, f"{tmp_path}/{uuid.uuid4().hex}.txt"))
    process.start()
    yield process
    process.join()


def bought(tmp_path: Path) -> list[list[str]]:
    return [path.read_text().splitlines() for path in tmp_path.glob("*.txt")]


@pytest.mark.parametrize("moment", [*MINE, *THEIRS])
def test_a_killed_run_buys_nothing_twice(tmp_path: Path, server: BatchServer, moment: str) -> None:
    """Killed at a step of its own, or while the server answers, and once more while the rest is fetched."""
    server.calls = {"content": ["torn"]} if moment == "half" else {}
    with buying(tmp_path, server, moment) as first:
        if moment in THEIRS:
            server.on = lambda what: first.kill() if what == moment else None
    assert first.exitcode == -9
    with buying(tmp_path, server) as second:
        server.on = lambda what: second.kill() if what == "finalizing" else None
    server.on = lambda what: None
    with buying(tmp_path, server) as third:
        pass
    assert (second.exitcode in (0, -9), third.exitcode) == (True, 0)
    assert bought(tmp_path)
    assert all(lines == [f"reply to question {n} #7" for n in range(60)] for lines in bought(tmp_path))
    assert once(server, 60)


def test_two_processes_share_their_batches(tmp_path: Path, server: BatchServer) -> None:
    with buying(tmp_path, server) as first, buying(tmp_path, server) as second:
        pass
    assert (first.exitcode, second.exitcode) == (0, 0)
    assert bought(tmp_path) == [[f"reply to question {n} #7" for n in range(60)]] * 2
    assert once(server, 60)
