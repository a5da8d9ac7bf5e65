"""Money: what is spent never passes the budget, whatever is under way, and all that was sent is in the ledger."""

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from lema.completions import ledger
from lema.completions.budget import BudgetTracker
from lema.completions.generate import Generate
from lema.completions.prices import max_request_cost
from lema.completions.store import Store
from lema.compute.executor import LocalExecutor, WorkerDiedError
from lema.errors import RunError
from lema.models import api_errors
from lema.models.types import Completion, Model, Request, Sampling
from lema.recipe.params import Budget, Endpoint, Price, Run
from lema.rows import Message
from tests.fake_server import FakeServer

STRONG = Model("strong", "openai", "openai here m", name="m", endpoint="here")
DEAR = Price(input=Decimal(1000), output=Decimal(1000))
LIMITED = Sampling(max_tokens=20)
MOST = Decimal("0.106")  # of a request of six characters: 64 + 16 + 6 tokens of prompt at most, 20 of a reply
COST = Decimal("0.021")  # of 11 and 10 tokens


def request(number: int, model: Model = STRONG) -> Request:
    return Request(model, (Message("user", f"ask {number:02d}"),), LIMITED, prompt="digest")


def reply(completion_tokens: int = 10) -> Completion:
    return Completion("text", "stop", None, 11, completion_tokens)


def run(total: object = None, url: str = "http://127.0.0.1:1/v1", **recipes: object) -> Run:
    budget = Budget.model_validate({"total": total, "recipes": recipes})
    return Run(
        endpoints={"here": Endpoint(url=url, concurrency=8)}, prices={"m": DEAR}, budget=budget, executor="local"
    )


def _set() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[Callable[..., BudgetTracker]]:
    made: list[BudgetTracker] = []

    def tracker(settings: Run, recipe: str = "trial", **options: Any) -> BudgetTracker:
        now = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)
        made.append(BudgetTracker(settings, recipe, "samples", folder=tmp_path / "ledger", now=lambda: now, **options))
        made[-1].open([STRONG])
        return made[-1]

    yield tracker
    for one in made:
        one.close()


def book(tracker: BudgetTracker, *requests: Request, replies: Sequence[Completion] = ()) -> None:
    tracker.record(requests, replies or [reply()] * len(requests))


def test_what_is_under_way_counts_with_the_most_that_it_can_cost(tracker: Callable[..., BudgetTracker]) -> None:
    assert max_request_cost(DEAR, request(1)) == MOST
    one = tracker(run(total=0.25))
    assert one.reserve([request(1)])
    assert one.reserve([request(2)])
    assert not one.reserve([request(3)])
    book(one, request(1))
    assert one.reserve([request(3)])
    assert not one.reserve([request(4)])
    assert "run.budget.total" in one.exceeded_message(7)


def test_no_order_of_events_spends_more_than_the_budget(tracker: Callable[..., BudgetTracker]) -> None:
    """Blocks of several sizes from several threads, replies that cost anything up to the most that they may."""
    one = tracker(run(total=9, trial=5))
    draw, requests = random.Random(4), iter(range(10_000))
    blocks = [[request(next(requests)) for _ in range(draw.choice((1, 1, 2, 5)))] for _ in range(120)]
    costs: list[Decimal] = []

    def work(block: list[Request]) -> None:
        if one.reserve(block) or (one.wait_for_room(block, threading.Event()) and one.reserve(block)):
            replies = [reply(random.Random(str(each.messages)).choice((1, 10, 20))) for each in block]
            book(one, *block, replies=replies)
            costs.append(sum((Decimal(11 + each.completion_tokens) / 1000 for each in replies), Decimal(0)))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, blocks))
    assert sum(costs, Decimal(0)) <= 5
    assert sum(costs, Decimal(0)) > 5 - 5 * MOST - Decimal("0.2")
    assert len(costs) < len(blocks)


def test_the_limit_of_a_recipe_and_that_of_all_both_hold(tracker: Callable[..., BudgetTracker]) -> None:
    other = tracker(run(total=0.25), recipe="other")
    assert other.reserve([request(1)])
    book(other, request(1))
    other.close()
    mine = tracker(run(total=0.14, trial=100))
    assert mine.reserve([request(2)])
    assert not mine.reserve([request(3)])
    book(mine, request(2))
    assert not mine.reserve([request(3)])  # 0.042 are spent
    assert "run.budget.total" in mine.exceeded_message(1)


def test_what_was_under_way_when_a_process_was_killed_stays_spent(
    tracker: Callable[..., BudgetTracker], tmp_path: Path
) -> None:
    killed = BudgetTracker(run(total=0.25), "trial", "samples", folder=tmp_path / "ledger")
    killed.open([STRONG])
    assert killed.reserve([request(1), request(2)])
    book(killed, request(1))
    killed._lock.close()  # type: ignore[union-attr]  # what the kernel does
    again = tracker(run(total=0.25))
    found = ledger.fold_spending(tmp_path / "ledger")
    assert (found.booked["trial"], found.in_doubt["trial"]) == (COST, MOST)
    assert again.reserve([request(3)])
    assert not again.reserve([request(4)])


def test_a_batch_without_a_reply_settles_no_later_one(tmp_path: Path) -> None:
    """The same request is in two batches: the first had no reply to it, the second runs."""
    line = {"recipe": "trial", "key": "k", "batch": True}
    ledger.open_ledger(tmp_path).append(
        [
            {**line, "kind": "reserved", "time": "2026-11-24T12:30:00Z", "cost": "1"},
            {**line, "kind": "request", "time": "2026-11-24T13:30:00Z", "most": "0"},
        ]
    )
    assert ledger.fold_spending(tmp_path).in_doubt == {}
    ledger.open_ledger(tmp_path).append([{**line, "kind": "reserved", "time": "2026-11-24T14:30:00Z", "cost": "1"}])
    assert ledger.fold_spending(tmp_path).in_doubt == {"trial": 1}
    ledger.open_ledger(tmp_path).append([{**line, "kind": "request", "time": "2026-11-24T15:30:00Z", "most": "0.5"}])
    assert (ledger.fold_spending(tmp_path).in_doubt, ledger.fold_spending(tmp_path).total()) == ({}, Decimal("0.5"))


def test_a_batch_of_an_earlier_process_is_settled_by_its_replies(
    tracker: Callable[..., BudgetTracker], tmp_path: Path
) -> None:
    """It counted with the most that it can cost, and then with what it did cost."""
    most = {"kind": "reserved", "recipe": "trial", "key": request(1).key, "cost": str(MOST), "batch": True}
    ledger.open_ledger(tmp_path / "ledger").append([most])
    one = tracker(run(total=0.22))
    assert one.reserve([request(2)])
    assert not one.reserve([request(3)])
    book(one, request(1))
    assert not one.reserve([request(3)])
    book(one, request(2))
    assert one.reserve([request(3)])


def test_what_was_not_sent_is_given_back(tracker: Callable[..., BudgetTracker], tmp_path: Path) -> None:
    one = tracker(run(total=0.22))
    assert one.reserve([request(1)])
    assert one.reserve([request(1)])  # sent again: the same money
    assert one.reserve([request(2)])
    assert not one.reserve([request(3)])
    one.release([request(1).key, "unknown"])
    assert one.reserve([request(3)])
    one.release([request(2).key, request(3).key])
    assert ledger.fold_spending(tmp_path / "ledger").total() == 0


def test_what_a_dead_sender_may_have_had_answered_is_spent_before_it_is_sent_again(
    tracker: Callable[..., BudgetTracker], tmp_path: Path
) -> None:
    one = tracker(run(total=0.33))
    assert one.reserve([request(1)])
    assert one.reserve([request(2)])
    one.mark_lost([request(1)])
    assert one.reserve([request(1)])
    one.mark_lost([request(2)])
    assert not one.reserve([request(2)])  # three times the most are spent or set aside
    assert not one.wait_for_room([request(2)], _set())
    book(one, request(1))
    found = ledger.fold_spending(tmp_path / "ledger")
    assert (found.booked["trial"], found.in_doubt["trial"]) == (COST, 2 * MOST)
    assert not one.reserve([request(2)])
    one.close()
    more = tracker(run(total=0.34))
    assert more.reserve([request(2)])
    assert not more.reserve([request(3)])


class Resetting(FakeServer):
    """Bills each request, then loses every third reply on its way."""

    billed = 0

    async def _reply(self, request: web.Request, body: dict[str, Any], fault: str | None) -> web.StreamResponse:
        self.billed += 1
        lost = "reset" if self.billed % 3 == 0 else fault
        return await super()._reply(request, body, "drop" if lost else None)


@pytest.fixture
def executor(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue("ray") if request.param == "ray" else LocalExecutor()


@pytest.mark.parametrize(
    ("executor", "total"), [("local", None), ("local", 1), ("local", 100), ("ray", 100)], indirect=["executor"]
)
def test_what_a_server_bills_for_lost_replies_is_never_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: Any, total: int | None
) -> None:
    """Within the budget, too."""
    monkeypatch.setenv("LEMA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(api_errors, "FIRST_WAIT", 0.01)
    with Resetting() as server:
        settings, place = run(total=total, url=server.url), tmp_path / "home" / "ledger"
        with closing(BudgetTracker(settings, "trial", "samples", warn=lambda _: None)) as tracker:
            generate = Generate(Store(tmp_path / "journal", tmp_path / "packs"), executor, settings, budget=tracker)
            asked = [request(number) for number in range(30)]
            if total == 1:
                with pytest.raises(RunError, match="the budget does not allow the next request"):
                    list(generate(asked))
            else:
                assert all(one.finish == "stop" for one in generate(asked))
    found, bill = ledger.fold_spending(place), server.billed * Decimal("0.016")  # 11 tokens and 5
    lost = server.billed // 3
    assert lost
    assert found.in_doubt["trial"] == lost * MOST
    assert found.booked["trial"] == (server.billed - lost) * Decimal("0.016")
    assert bill <= found.total() <= (total or 100)


def test_what_never_reached_a_server_is_in_no_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEMA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(api_errors, "FIRST_WAIT", 0.01)
    settings = run(total=1)  # nobody listens at its address
    with closing(BudgetTracker(settings, "trial", "samples")) as tracker:
        generate = Generate(Store(tmp_path / "journal", tmp_path / "packs"), LocalExecutor(), settings, budget=tracker)
        with pytest.raises(RunError, match=r"strong: endpoint here refuses the connection to http://127\.0\.0\.1:1/v1"):
            list(generate([request(1), request(2)]))
    assert list(ledger.read_ledger(tmp_path / "home" / "ledger")) == []


def test_what_costs_nothing_is_sent_again_without_a_line(tmp_path: Path) -> None:
    one = BudgetTracker(run(total=0), "trial", "answers", folder=tmp_path / "ledger")
    local = request(1, Model("here", "scripted", "scripted"))
    assert one.reserve([local])
    one.mark_lost([local])
    assert one.reserve([local])
    assert list(tmp_path.rglob("*.jsonl")) == []


def test_a_line_says_everything_but_text(tracker: Callable[..., BudgetTracker], tmp_path: Path) -> None:
    book(tracker(run()), request(1))
    (line,) = ledger.read_ledger(tmp_path / "ledger")
    assert line == {
        "kind": "request",
        "time": "2026-11-24T12:30:00Z",
        "recipe": "trial",
        "stage": "samples",
        "model": "strong",
        "name": "m",
        "endpoint": "here",
        "prompt": "digest",
        "key": request(1).key,
        "characters": 6,
        "prompt_tokens": 11,
        "cached_tokens": 0,
        "completion_tokens": 10,
        "finish": "stop",
        "cost": COST,
        "most": COST,
        "batch": False,
    }


@pytest.mark.parametrize(
    ("got", "cost"),
    [
        (Completion("", "failed", "timed out"), Decimal(0)),
        (Completion("", "refused", "policy", 11, 0), Decimal("0.011")),
        (Completion("text", "stop", None, 10, 5, 4), Decimal("0.015")),
        (Completion("text", "stop"), None),
    ],
)
def test_what_a_reply_costs(
    tracker: Callable[..., BudgetTracker], tmp_path: Path, got: Completion, cost: Decimal | None
) -> None:
    book(tracker(run()), request(1), replies=[got])
    assert [line["cost"] for line in ledger.read_ledger(tmp_path / "ledger")] == [cost]


def test_a_reply_of_unknown_cost_takes_the_most_from_the_budget(
    tracker: Callable[..., BudgetTracker], tmp_path: Path
) -> None:
    one = tracker(run(total=0.25))
    assert one.reserve([request(1)])
    book(one, request(1), replies=[Completion("text", "stop")])
    (line,) = (line for line in ledger.read_ledger(tmp_path / "ledger") if line["kind"] == "request")
    assert (line["cost"], line["most"]) == (None, MOST)
    assert one.reserve([request(2)])
    assert not one.reserve([request(3)])


def test_with_a_budget_every_price_is_known_before_anything_is_sent(tracker: Callable[..., BudgetTracker]) -> None:
    settings = run(total=1).model_copy(update={"prices": {}})
    with pytest.raises(RunError, match=r"model m has no known price.*prices: \{m: .*Nothing was sent"):
        tracker(settings)
    tracker(settings.model_copy(update={"budget": Budget()}))
    endless = Model("strong", "openai", "x", name="m", endpoint="here", options={"omit": ["max_tokens"]})
    with pytest.raises(RunError, match="without a limit of tokens"):
        BudgetTracker(run(total=1), "trial", "samples").open([endless])


def test_what_runs_here_needs_no_budget(tracker: Callable[..., BudgetTracker]) -> None:
    local = Model("here", "scripted", "scripted")
    buying, one = tracker(run(total=0)), BudgetTracker(run(total=0), "trial", "answers")
    one.open([local])  # does not wait for the one that buys
    assert one.reserve([request(1, local)])
    assert buying.reserve([request(1, local)])
    assert not buying.reserve([request(1)])


def test_what_was_bought_before_its_price_was_known_counts_with_it(
    tracker: Callable[..., BudgetTracker], tmp_path: Path
) -> None:
    unpriced = run().model_copy(update={"prices": {}})
    own = Model("own", "theirs.module:backend", "own")
    book(tracker(unpriced), request(1), request(2), replies=[reply(), Completion("", "failed", "gone")])
    book(tracker(unpriced), request(3, own))
    assert ledger.fold_spending(tmp_path / "ledger").total() == 0

    def room(total: Decimal, **prices: Price) -> bool:
        settings = run(total=total).model_copy(update={"prices": {"m": DEAR, **prices}})
        with closing(tracker(settings)) as one:
            admitted = one.reserve([request(4)])
            one.release([request(4).key])
            return admitted

    assert [room(MOST + COST - Decimal("0.001")), room(MOST + COST)] == [False, True]
    assert [room(MOST + COST, own=DEAR), room(MOST + 2 * COST, own=DEAR)] == [False, True]


@pytest.mark.parametrize("cached", [None, Decimal(0)])
def test_what_is_free_needs_no_limit_of_tokens(tracker: Callable[..., BudgetTracker], cached: Decimal | None) -> None:
    free = Price(input=Decimal(0), output=Decimal(0), cached=cached)
    endless = Model("own", "openai", "x", name="own", endpoint="here", options={"omit": ["max_tokens"]})
    one = tracker(run(total=0).model_copy(update={"prices": {"m": DEAR, "own": free}}))
    one.open([endless])
    assert one.reserve([request(1, endless)])


def test_who_waits_for_room_goes_when_all_stop(tracker: Callable[..., BudgetTracker]) -> None:
    """A batch that runs on after a fatal fault keeps what was set aside for it."""
    one, stop = tracker(run(total=MOST)), threading.Event()
    assert one.reserve([request(1)])
    waited: list[bool] = []
    waiting = threading.Thread(target=lambda: waited.append(one.wait_for_room([request(2)], stop)), daemon=True)
    waiting.start()
    stop.set()
    waiting.join(10)
    assert waited == [False]


def test_warnings_come_once_each(tracker: Callable[..., BudgetTracker]) -> None:
    told: list[str] = []
    one = tracker(run(total=0.21), warn=told.append)
    for number in range(10):
        if one.reserve([request(number)]):
            book(one, request(number))
    assert told == []  # a block is refused before three quarters are spent
    book(one, *map(request, range(20, 23)))
    assert told == ["warning: $0.17 of $0.21 spent, more than 75% of run.budget.total"]
    book(one, request(30))
    assert told[1:] == ["warning: $0.19 of $0.21 spent, more than 90% of run.budget.total"]


def test_one_process_at_a_time_buys_under_a_budget(tracker: Callable[..., BudgetTracker], tmp_path: Path) -> None:
    first, told = tracker(run(total=0.25)), list[str]()
    assert first.reserve([request(1)])
    second: list[BudgetTracker] = []
    waiting = threading.Thread(target=lambda: second.append(tracker(run(total=0.25), warn=told.append)))
    waiting.start()
    waiting.join(0.3)
    assert (second, told) == ([], ["another process buys under this budget; waiting for it"])
    book(first, request(1))
    first.close()
    waiting.join(10)
    assert second[0].reserve([request(2)])
    assert [line["most"] for line in ledger.read_ledger(tmp_path / "ledger") if line["kind"] == "request"] == [COST]


@pytest.fixture
def generate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], tuple[Generate, BudgetTracker]]:
    monkeypatch.setenv("LEMA_HOME", str(tmp_path / "home"))

    def generate(settings: Run) -> tuple[Generate, BudgetTracker]:
        tracker = BudgetTracker(settings, "trial", "samples", folder=tmp_path / "ledger")
        store = Store(tmp_path / "journal", tmp_path / "packs")
        return Generate(store, LocalExecutor(), settings, name="samples", budget=tracker), tracker

    return generate


def test_a_budget_stops_a_stage_and_raising_it_finishes_it(
    generate: Callable[[Run], tuple[Generate, BudgetTracker]], tmp_path: Path
) -> None:
    asked = [request(number) for number in range(100)]
    with FakeServer(answer=lambda _: "w " * 10, latency=0.005) as server:
        first, tracker = generate(run(total=1.00, url=server.url))
        with pytest.raises(
            RunError, match=r"of \$1\.00 spent \(run\.budget\.total\), and \d+ replies are missing.*lema make"
        ):
            list(first(asked))
        tracker.close()
        sent = len(server.requests)
        spent = ledger.fold_spending(tmp_path / "ledger")
        assert spent.total() == sent * COST <= 1
        assert spent.total() > 1 - MOST
        assert spent.in_doubt == {}
        second, tracker = generate(run(total=3.00, url=server.url))
        assert len(list(second(asked))) == 100
        tracker.close()
        assert len(server.requests) == 100
        assert (second.hits["strong"], second.bought["strong"]) == (sent, 100 - sent)
    assert ledger.fold_spending(tmp_path / "ledger").total() == 100 * COST
    (saved,) = (line for line in ledger.read_ledger(tmp_path / "ledger") if line["kind"] == "saved")
    assert (saved["requests"], Decimal(saved["cost"])) == (sent, sent * COST)


class Dying(LocalExecutor):
    """Its first worker has requests answered, as many as it is given after the first, and dies with the replies."""

    lost = 0

    def serve(self, *given: Any) -> Any:
        service = super().serve(*given)
        return SimpleNamespace(exchange=partial(self._die, service.exchange), close=service.close)

    def _die(self, exchange: Any, requests: list[Request], *rest: Any) -> "Future[Any]":
        if self.lost or len(requests) == 1:
            return exchange(requests, *rest)  # type: ignore[no-any-return]
        while self.lost < len(requests):
            done, *_ = exchange([] if self.lost else requests, *rest).result()
            self.lost += len(done)
        dead: Future[Any] = Future()
        dead.set_exception(WorkerDiedError())
        return dead


def test_what_a_dead_worker_had_answered_unseen_is_within_the_budget(tmp_path: Path) -> None:
    asked = [request(number) for number in range(60)]
    with FakeServer(answer=lambda _: "w " * 10, latency=0.005) as server:
        settings = run(total=1.00, url=server.url)
        tracker = BudgetTracker(settings, "trial", "samples", folder=tmp_path / "ledger")
        dying = Dying()
        buy = Generate(Store(tmp_path / "journal", tmp_path / "packs"), dying, settings, budget=tracker)
        with pytest.raises(RunError, match=r"run\.budget\.total.*replies are missing"):
            list(buy(asked))
        tracker.close()
        spent = ledger.fold_spending(tmp_path / "ledger")
        assert dying.lost == 9  # as many as the budget allows
        assert len(server.requests) == 9 + buy.bought["strong"]
        assert len(server.requests) * COST <= spent.total() <= 1
        assert spent.in_doubt["trial"] == 9 * MOST
        settings = run(total=3.00, url=server.url)
        tracker = BudgetTracker(settings, "trial", "samples", folder=tmp_path / "ledger")
        more = Generate(Store(tmp_path / "journal", tmp_path / "packs"), LocalExecutor(), settings, budget=tracker)
        assert len(list(more(asked))) == 60
        tracker.close()
        assert len(server.requests) == 69


def test_two_endpoints_share_a_budget(
    generate: Callable[[Run], tuple[Generate, BudgetTracker]], tmp_path: Path
) -> None:
    other = Model("other", "openai", "openai there m", name="m", endpoint="there")
    asked = [request(number, model) for number in range(60) for model in (STRONG, other)]
    with FakeServer(answer=lambda _: "w " * 10, latency=0.005) as here, FakeServer(answer=lambda _: "w " * 10) as there:
        settings = run(total=1.00, url=here.url)
        endpoints = {**settings.endpoints, "there": Endpoint(url=there.url, concurrency=8)}
        buy, tracker = generate(settings.model_copy(update={"endpoints": endpoints}))
        with pytest.raises(RunError, match="budget"):
            list(buy(asked))
        tracker.close()
        sent = len(here.requests) + len(there.requests)
        assert 1 - MOST < sent * COST <= 1
        assert here.requests
        assert there.requests


def test_a_stage_that_gives_up_on_models_without_a_price_says_why(
    generate: Callable[[Run], tuple[Generate, BudgetTracker]],
) -> None:
    unpriced = Model("other", "openai", "openai here other", name="other", endpoint="here")
    with FakeServer() as server:
        server.always = "400"
        buy, tracker = generate(run(url=server.url))
        with pytest.raises(RunError, match=r"requests failed, run\.max_failures is 0\.1: other: bad request"):
            list(buy(request(number, unpriced) for number in range(40)))
        tracker.close()


def test_without_a_budget_everything_is_booked(
    generate: Callable[[Run], tuple[Generate, BudgetTracker]], tmp_path: Path
) -> None:
    asked = [request(number) for number in range(12)]
    with FakeServer(answer=lambda _: "w " * 10) as server:
        server.faults = ["refusal", "400"]
        buy, tracker = generate(run(url=server.url).model_copy(update={"max_failures": 1.0}))
        list(buy(asked))
        tracker.close()
    lines = list(ledger.read_ledger(tmp_path / "ledger"))
    assert sorted(line["key"] for line in lines) == sorted(one.key for one in asked)
    assert sorted(line["finish"] for line in lines) == ["failed", "refused", *["stop"] * 10]
    assert sum(Decimal(line["cost"]) for line in lines) == 11 * COST
