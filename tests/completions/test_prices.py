"""What requests cost."""

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from lema.completions.prices import FREE, known_prices, max_request_cost, price_of, price_table, token_cost
from lema.models.types import Model, Request, Sampling
from lema.recipe.load import load_params
from lema.recipe.params import Endpoint, Price, Run
from lema.rows import Message

OPENAI = Run(
    endpoints={"openai": Endpoint(url="https://api.openai.com/v1"), "own": Endpoint(url="http://127.0.0.1:1/v1")}
)


def model(name: str | None, endpoint: str | None = "openai", backend: str = "openai", **options: object) -> Model:
    return Model("strong", backend, f"{backend} {name}", name=name, endpoint=endpoint, options=options)


def test_a_model_is_known_at_its_vendor_by_name_or_listed_snapshot() -> None:
    family = price_of(model("gpt-4.1-mini"), OPENAI)
    assert family is not None
    assert (family.input, family.cached, family.output, family.batch) == tuple(
        map(Decimal, ("0.40", "0.10", "1.60", "0.5"))
    )
    assert price_of(model("gpt-4.1-mini-2025-04-14"), OPENAI) == family
    assert price_of(model("gpt-4.1-mini-2031-01-01"), OPENAI) is None
    assert price_of(model("gpt-4.1-mini", "own"), OPENAI) is None


def test_the_endpoints_own_name_of_a_model_counts() -> None:
    endpoint = Endpoint(url="https://api.openai.com/v1", models={"judge": "gpt-4.1-mini"})
    assert price_of(model("judge"), Run(endpoints={"openai": endpoint})) == price_of(model("gpt-4.1-mini"), OPENAI)


def test_what_runs_here_is_free_and_what_nobody_knows_is_unknown() -> None:
    for backend in ("scripted", "reference", "transformers"):
        assert price_of(model(None, None, backend), Run()) is FREE
    assert price_of(model(None, None, "recipes.parts.asks:somebody"), Run()) is None
    assert price_of(model("strong-1", "own"), OPENAI) is None


def test_prices_of_params_go_first(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(
        "recipes: {}\nruns: {}\nrun:\n  prices:\n    gpt-4.1-mini: {input: 0.1, output: 3}\n"
        "    mine: {input: 0, output: 0}\n"
        "  budget: {total: 20.00, recipes: {trial: 0.3}}\n"
    )
    run = load_params(path, tmp_path).run
    mine = price_of(model("gpt-4.1-mini"), run)
    assert mine == Price(input=Decimal("0.1"), output=Decimal(3))
    assert price_of(model("mine", "own"), run) == FREE
    assert (run.budget.total, run.budget.recipes) == (Decimal("20.0"), {"trial": Decimal("0.3")})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("prices: {m: {input: -1, output: 1}}", "run.prices.m.input: needs at least 0, got -1"),
        ("prices: {m: {input: dear, output: 1}}", "run.prices.m.input: needs a number, got 'dear'"),
        ("prices: {m: {input: 1}}", "run.prices.m: missing key 'output'"),
        ("budget: {total: true}", "run.budget.total: needs a number, got true"),
    ],
)
def test_wrong_money_is_a_problem_with_its_place(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"recipes: {{}}\nruns: {{}}\nrun: {{{text}}}\n")
    with pytest.raises(Exception, match=r"params.yaml:3:\d+") as raised:
        load_params(path, tmp_path)
    assert problem in str(raised.value)


def test_cached_input_and_batches_cost_less() -> None:
    one = Price(input=Decimal(2), cached=Decimal("0.5"), output=Decimal(8), batch=Decimal("0.5"))
    assert token_cost(one, 1_000_000, 400_000, 100_000) == Decimal("2.2")
    assert token_cost(one, 1_000_000, 400_000, 100_000, batch=True) == Decimal("1.1")
    assert token_cost(Price(input=Decimal(2), output=Decimal(8)), 1000, 1000, 0) == Decimal("0.002")


def test_money_is_exact() -> None:
    tenth = Price(input=Decimal("0.1"), output=Decimal(0))
    assert sum((token_cost(tenth, 1, 0, 0) for _ in range(10_000_000 // 100_000)), Decimal(0)) == Decimal("0.00001")


@pytest.mark.parametrize("text", ["", "plain words", "0123456789" * 30, "żółć 😀 漢字", "\n\n\t"])
def test_no_request_costs_more_than_its_bound(text: str) -> None:
    """With the tokenizer that makes most of a text: one token a byte."""
    one = Price(input=Decimal(2), cached=Decimal(3), output=Decimal(8))
    request = Request(model("m"), (Message("system", text), Message("user", text)), Sampling(max_tokens=100))
    dearest = token_cost(one, 2 * len(text.encode()), 2 * len(text.encode()), 100)
    most = max_request_cost(one, request)
    assert most is not None
    assert most > dearest


def test_a_reply_without_limit_has_no_bound() -> None:
    one, ask = Price(input=Decimal(1), output=Decimal(1)), (Message("user", "hello"),)
    assert max_request_cost(one, Request(model("m", omit=["max_tokens"]), ask, Sampling())) is None
    capped = model("m", omit=["max_tokens"], extra={"max_completion_tokens": 900})
    assert (
        max_request_cost(one, Request(capped, ask, Sampling(max_tokens=10))) == Decimal(64 + 16 + 5 + 900) / 1_000_000
    )


def test_the_table_is_dated_sourced_and_says_nothing_twice() -> None:
    names = [
        (vendor["host"], each)
        for vendor in price_table().values()
        for name, one in vendor["models"].items()
        for each in (name, *one.get("snapshots", ()))
    ]
    assert len(names) == len(set(names)) == len(known_prices()) > 40
    for vendor in price_table().values():
        assert vendor["source"].startswith("https://")
        assert date.fromisoformat(vendor["date"]) >= date(2026, 11, 1)
    assert all(one.cached is None or one.cached < one.input <= one.output for one in known_prices().values())
