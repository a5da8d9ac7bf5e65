"""Batches under a budget: no more is submitted than may be spent, and a batch that was taken over is not paid twice."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lema.completions import batch_api, batch_queue, ledger
from lema.completions.budget import BudgetTracker
from lema.completions.generate import Generate
from lema.completions.store import Store
from lema.compute.executor import LocalExecutor
from lema.errors import RunError
from lema.models.types import Model, Request, Sampling
from lema.recipe.params import Budget, Endpoint, Price, Run
from lema.rows import Message
from tests.batch_server import BatchServer

MODEL = Model("strong", "openai", "openai m", name="m", endpoint="here")
HALF = Price(input=Decimal(1000), output=Decimal(1000), batch=Decimal("0.5"))
MOST, COST = Decimal("0.053"), Decimal("0.0105")  # of 106 tokens at most, and of 21


def requests(count: int) -> list[Request]:
    return [Request(MODEL, (Message("user", f"ask {n:02d}"),), Sampling(max_tokens=20)) for n in range(count)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[BatchServer]:
    monkeypatch.setenv("LEMA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(batch_queue, "FIRST_POLL", 0.005)
    monkeypatch.setattr(batch_queue, "LONGEST_POLL", 0.02)
    monkeypatch.setattr(batch_queue, "SETTLE", 0.2)
    with BatchServer(answer=lambda _: "w " * 10) as running:
        yield running


@pytest.fixture
def buy(server: BatchServer, tmp_path: Path) -> Callable[[object], Any]:
    def buy(total: object) -> Any:
        endpoint = Endpoint(url=server.url, retries=0, timeout=2.0, mode="batch")
        budget = Budget.model_validate({"total": total})
        run = Run(endpoints={"here": endpoint}, prices={"m": HALF}, budget=budget, executor="local")
        tracker = BudgetTracker(run, "trial", "samples")
        generate = Generate(Store(tmp_path / "journal", tmp_path / "packs"), LocalExecutor(), run, budget=tracker)
        try:
            return list(generate(requests(60)))
        finally:
            tracker.close()

    return buy


def test_no_more_is_submitted_than_may_be_spent(buy: Callable[[object], Any], server: BatchServer) -> None:
    with pytest.raises(RunError, match="budget"):
        buy(0.3)
    spent = ledger.fold_spending(ledger.ledger_folder())
    assert spent.total() == server.bought.total() * COST <= Decimal("0.3")
    assert spent.total() > Decimal("0.3") - MOST
    assert spent.in_doubt == {}
    assert len(buy(3)) == 60
    assert server.bought.total() == len(server.bought) == 60
    assert ledger.fold_spending(ledger.ledger_folder()).total() == 60 * COST


def test_a_batch_that_was_taken_over_is_settled(buy: Callable[[object], Any], server: BatchServer) -> None:
    def end(*_: Any) -> None:
        raise RunError("the process ends when the batch is submitted")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_api.BatchDriver, "_notify", end)
        with pytest.raises(RunError, match="the process ends"):
            buy(4)
    assert ledger.fold_spending(ledger.ledger_folder()).total() == 60 * MOST
    assert len(buy(4)) == 60
    assert server.bought.total() == 60
    spent = ledger.fold_spending(ledger.ledger_folder())
    assert (spent.total(), spent.in_doubt) == (60 * COST, {})
