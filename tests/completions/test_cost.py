"""`lema cost`: what is in doubt is said, and a person settles it by the endpoint's bill."""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lema.cli import app
from lema.completions import ledger
from lema.completions.budget import BudgetTracker
from lema.errors import RunError
from lema.models.types import Completion, Model, Request, Sampling
from lema.recipe.params import Budget, Endpoint, Price, Run
from lema.rows import Message

MODEL = Model("strong", "openai", "openai m", name="m", endpoint="here")
MOST = Decimal("0.106")  # of a request of six characters: 64 + 16 + 6 tokens of prompt at most, 20 of a reply
RUN = Run(
    endpoints={"here": Endpoint(url="http://127.0.0.1:1/v1")},
    prices={"m": Price(input=Decimal(1000), output=Decimal(1000))},
    budget=Budget(total=Decimal("0.25")),
)


def request(number: int) -> Request:
    return Request(MODEL, (Message("user", f"ask {number:02d}"),), Sampling(max_tokens=20))


def opened() -> BudgetTracker:
    tracker = BudgetTracker(RUN, "trial", "samples", now=lambda: datetime(2026, 11, 24, 12, 30, tzinfo=UTC))
    tracker.open([MODEL])
    return tracker


def killed(tracker: BudgetTracker) -> None:
    tracker._lock.close()  # type: ignore[union-attr]  # what the kernel does


@pytest.fixture
def lema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The command, in a project whose ledger has one reply of 0.031 dollars, and two requests in doubt."""
    monkeypatch.setenv("LEMA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").touch()
    tracker = opened()
    assert tracker.reserve([request(1), request(2)])
    tracker.record([request(1)], [Completion("text", "stop", None, 11, 20)])
    tracker.mark_lost([request(2)])
    assert tracker.reserve([request(2)])
    killed(tracker)

    def lema(*arguments: str) -> str:
        result = CliRunner().invoke(app, arguments)
        if result.exception is not None:
            raise result.exception
        return result.output

    return lema


def test_what_is_in_doubt_is_settled_by_the_bill(lema: Callable[..., str]) -> None:
    assert not opened().reserve([request(3)])
    said = lema("cost")
    assert "trial: up to $0.22 in doubt for 2 requests, the first of 2026-11-24T12:30:00Z" in said
    assert "lema cost trial --settle DOLLARS" in said
    assert lema("cost", "trial", "--settle", "0.03") == (
        "trial: 2 requests in doubt, up to $0.22, count with $0.0300 from now on\n"
    )
    found = ledger.fold_spending(ledger.ledger_folder())
    assert (found.booked, found.in_doubt) == ({"trial": Decimal("0.061")}, {})
    said = lema("cost", "trial")
    assert "trial: $0.0300 for requests that were in doubt, not in these sums." in said
    assert "up to" not in said
    tracker = opened()
    assert tracker.reserve([request(2)])
    killed(tracker)
    # What comes into doubt later is not settled by that, though it is the same request.
    assert ledger.fold_spending(ledger.ledger_folder()).in_doubt == {"trial": MOST}
    lema("cost", "trial", "--settle", "0")
    assert ledger.fold_spending(ledger.ledger_folder()).total() == Decimal("0.061")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trial", "--settle", "-1"], "such as 0 or 0.25; got '-1'"),
        (["trial", "--settle", "nan"], "such as 0 or 0.25; got 'nan'"),
        (["trial", "--settle", "a bit"], "such as 0 or 0.25; got 'a bit'"),
        (["trial", "--settle", "0.5"], "can have cost 0.212 dollars at most, not 0.5"),
        (["other", "--settle", "0"], "recipe other has nothing in doubt"),
        (["--settle", "0"], "--settle needs a recipe"),
    ],
)
def test_what_cannot_be_settled_is_a_message(lema: Callable[..., str], arguments: list[str], message: str) -> None:
    with pytest.raises(RunError, match=message):
        lema("cost", *arguments)
    assert ledger.fold_spending(ledger.ledger_folder()).in_doubt == {"trial": 2 * MOST}


def test_what_is_under_way_is_not_settled(lema: Callable[..., str]) -> None:
    tracker = opened()
    with pytest.raises(RunError, match="a process is at work under this budget"):
        lema("cost", "trial", "--settle", "0")
    tracker.close()
    lema("cost", "trial", "--settle", "0")
    batch = {"kind": "reserved", "recipe": "trial", "key": "k", "cost": "1", "batch": True}
    ledger.open_ledger(ledger.ledger_folder()).append([batch])
    with pytest.raises(RunError, match="nothing in doubt"):
        lema("cost", "trial", "--settle", "0")
