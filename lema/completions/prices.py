"""What requests cost: prices of models, and money as decimal dollars.

`prices.yaml` beside this module has the prices of vendors; `run.prices` in params.yaml overrides it. A model of an
endpoint without a price is unknown, never free; what runs in this process costs nothing.
"""

import functools
from collections.abc import Mapping
from decimal import ROUND_UP, Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from lema.models.types import Model, Request
from lema.recipe.params import Price, Run

FREE = Price(input=Decimal(0), output=Decimal(0))
MILLION = 1_000_000
# Tokens that a chat template may add: around every message, and once a request (a system message of its own).
TOKENS_A_MESSAGE, TOKENS_A_REQUEST = 16, 64


def price_of(model: Model, run: Run) -> Price | None:
    """What a model costs, None when that is unknown. `run.prices` is looked up by the model's name, by its label when
    it has none; the table of lema by the address of its endpoint and the name that it has there."""
    found = _configured_or_known(model.label, model.name, model.endpoint, run)
    # A backend of the user's may ask whom it likes.
    return FREE if found is None and model.endpoint is None and ":" not in model.backend else found


def _configured_or_known(label: str, name: str | None, where: str | None, run: Run) -> Price | None:
    if own := run.prices.get(name or label):
        return own
    endpoint = run.endpoints.get(where or "")
    if endpoint is None or name is None:
        return None
    return known_prices().get((urlsplit(endpoint.url).hostname or "", endpoint.models.get(name, name)))


@functools.cache
def known_prices() -> dict[tuple[str, str], Price]:
    """The table: prices by the host name of the vendor's endpoint and the model's name."""
    found: dict[tuple[str, str], Price] = {}
    for vendor in price_table().values():
        for name, figures in vendor["models"].items():
            parts = {key: Decimal(figures[key]) for key in ("input", "output", "cached") if key in figures}
            one = Price(**parts, batch=Decimal(vendor.get("batch", 1)))
            found |= {(vendor["host"], each): one for each in (name, *figures.get("snapshots", ()))}
    return found


def price_table() -> dict[str, Any]:
    """`prices.yaml` with all figures as they are written, as texts."""
    text = Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
    read: dict[str, Any] = yaml.load(text, Loader=yaml.BaseLoader)
    return read


def token_rates(price: Price, *, batch: bool = False) -> tuple[Decimal, Decimal, Decimal]:
    """Dollars a token: of a prompt, of what the endpoint had of it in its cache, of a reply."""
    share = (price.batch if batch else 1) / Decimal(MILLION)
    cached = price.input if price.cached is None else price.cached
    return (price.input * share).normalize(), (cached * share).normalize(), (price.output * share).normalize()


def token_cost(price: Price, prompt: float, cached: float, completion: float, *, batch: bool = False) -> Decimal:
    """Dollars for so many tokens; of the prompt's, `cached` were in the endpoint's cache."""
    fresh_rate, cached_rate, reply_rate = token_rates(price, batch=batch)
    fresh = Decimal(prompt) - Decimal(cached)
    return fresh * fresh_rate + Decimal(cached) * cached_rate + Decimal(completion) * reply_rate


def cost_at_current_price(line: Mapping[str, Any], run: Run) -> Decimal | None:
    """Dollars for a request that the ledger has without a price, at the one that is known by now; None when there is
    still none, or its reply reports no tokens."""
    price = _configured_or_known(line["model"], line["name"], line["endpoint"], run)
    prompt, cached, completion = (line[f"{kind}_tokens"] for kind in ("prompt", "cached", "completion"))
    if price is None or not (prompt or completion or price.free):
        return None
    return token_cost(price, prompt, cached, completion, batch=line["batch"])


def max_request_cost(price: Price, request: Request, *, batch: bool = False) -> Decimal | None:
    """The most that one request can cost; None when its reply has no limit.

    A tokenizer makes no more tokens than a text has bytes in UTF-8. Its input may be dearer than any cached one.
    """
    if price.free:
        return Decimal(0)
    longest = max_reply_tokens(request.model, request.sampling.max_tokens)
    if longest is None:
        return None
    fresh_rate, cached_rate, reply_rate = token_rates(price, batch=batch)
    tokens = TOKENS_A_REQUEST + sum(len(one.content.encode()) + TOKENS_A_MESSAGE for one in request.messages)
    return tokens * max(fresh_rate, cached_rate) + longest * reply_rate


def budget_problem(model: Model, price: Price | None) -> str | None:
    """Why the cost of a model has no upper bound, as the rest of a sentence; None when it has one."""
    if price is None:
        return (
            "has no known price; set it, in dollars a million tokens: "
            f"`run: {{prices: {{{model.name or model.label}: {{input: ..., output: ...}}}}}}`"
        )
    if max_reply_tokens(model, 1) is None:
        return (
            "is asked without a limit of tokens, so that its replies may cost any amount; set one in its options: "
            "`extra: {max_completion_tokens: ...}`"
        )
    return None


def max_reply_tokens(model: Model, max_tokens: int) -> int | None:
    """The limit of tokens of a reply, as sent to the endpoint; None when the model's options leave that out."""
    options = model.options
    extra = options.get("extra") or {}
    limits = [extra[name] for name in ("max_tokens", "max_completion_tokens") if isinstance(extra.get(name), int)]
    if "max_tokens" not in (options.get("omit") or ()) and "max_tokens" not in extra:
        limits.append(max_tokens)
    return max(limits, default=None)


def format_dollars(amount: Decimal | None) -> str:
    """Money for people: cents, and more digits for what is less than a dollar. Never shown as less than it is.

    >>> [format_dollars(Decimal(one)) for one in ("0", "0.00012", "0.5", "12.301", "1234.5")]
    ['$0', '$0.0002', '$0.50', '$12.31', '$1,234.50']
    """
    if amount is None:
        return "unknown"
    if not amount:
        return "$0"
    digits = Decimal("0.01") if amount >= Decimal("0.1") else Decimal("0.0001")
    return f"${amount.quantize(digits, rounding=ROUND_UP):,}"
