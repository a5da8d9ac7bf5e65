"""What a stage may still spend: requests are sent within the limits of `run.budget`, and written to the ledger.

Before a request is sent, the most that it can cost is reserved; when its reply is there, what it did cost is recorded.
What is recorded and what is reserved never exceed a limit together, so neither does what is spent, however many
requests are under way. With a budget, one process at a time buys from this machine's ledger; another waits.

A request that an endpoint may have answered into a dead connection is in doubt: it counts as spent, with the most that
it can cost.
"""

import fcntl
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TextIO, cast

from lema.completions import prices
from lema.completions.ledger import Ledger, LedgerLine, budget_lock, fold_spending, ledger_folder
from lema.completions.prices import format_dollars
from lema.compute import files
from lema.errors import RunError
from lema.models.types import Completion, Model, Request, key
from lema.recipe.params import Price, Run

WARN_AT = (Decimal("0.75"), Decimal("0.9"))  # shares of a limit
ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class SpendingLimit:
    """A limit of the budget: its key in params.yaml, how many dollars it allows, and how many were spent before."""

    setting: str
    allowed: Decimal
    spent: Decimal


def spending_limits(run: Run, recipe: str, folder: Path) -> tuple[list[SpendingLimit], dict[str, Decimal]]:
    """The limits of a recipe; and what is spent of them for requests that are still in batches, by their keys."""
    budget, spent = run.budget, fold_spending(folder, partial(prices.cost_at_current_price, run=run))
    limits = [
        SpendingLimit(setting, allowed, before)
        for setting, allowed, before in (
            (f"run.budget.recipes.{recipe}", budget.recipes.get(recipe), spent.recipe(recipe)),
            ("run.budget.total", budget.total, spent.total()),
        )
        if allowed is not None
    ]
    return limits, {name: most for (buyer, name), most in spent.batched.items() if buyer == recipe}


def remaining_budget(run: Run, recipe: str) -> Mapping[str, Decimal]:
    """What each limit of a recipe has left, by its key in params.yaml."""
    limits, _ = spending_limits(run, recipe, ledger_folder())
    return {limit.setting: limit.allowed - limit.spent for limit in limits}


class BudgetTracker:
    """Reserves, and records, what one stage of one recipe spends. Safe with several threads.

    `exceeded` is the limit that did not allow a request, None as long as there was room.
    """

    def __init__(
        self,
        run: Run,
        recipe: str,
        stage: str,
        *,
        folder: Path | None = None,
        warn: Callable[[str], None] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._run, self._recipe, self._stage, self._now = run, recipe, stage, now
        self._warn = warn or partial(print, file=sys.stderr, flush=True)
        self._folder = folder or ledger_folder()
        self._ledger = Ledger(self._folder)
        self._limited = recipe in run.budget.recipes or run.budget.total is not None
        self._limits: list[SpendingLimit] = []
        self._warned: dict[str, Decimal] = {}  # the last warning of each limit
        self._lock: TextIO | None = None
        self._changed = threading.Condition()
        self._spent = ZERO  # since `open`
        self._reserved: dict[str, Decimal] = {}  # by the key of the request
        self._held = ZERO  # their sum
        self._batched: dict[str, Decimal] = {}  # reserved by earlier processes for batches, and counted as spent
        self._prices: dict[tuple[str, str | None], Price | None] = {}
        self._hits: list[tuple[Model, str, Counter[str]]] = []
        self._hit_groups: dict[tuple[str, str], int] = {}
        self.exceeded: SpendingLimit | None = None

    def open(self, models: Iterable[Model]) -> None:
        """Before models are asked: with a budget, every price is known and every reply has a limit.

        Raises:
            RunError: that is not so.
        """
        costly = [model for model in models if not ((price := self._price(model)) and price.free)]
        if not (self._limited and costly):
            return
        problems = {model.name or model.label: prices.budget_problem(model, self._price(model)) for model in costly}
        if wrong := [f"model {name} {problem}" for name, problem in sorted(problems.items()) if problem]:
            raise RunError(f"params.yaml sets a budget, and {'; '.join(wrong)}. Nothing was sent")
        if self._lock is None:
            self._lock = budget_lock(self._folder)
            if not files.try_lock(self._lock.fileno()):
                self._warn("another process buys under this budget; waiting for it")
                fcntl.flock(self._lock, fcntl.LOCK_EX)
            self._limits, self._batched = spending_limits(self._run, self._recipe, self._folder)

    def reserve(self, requests: Sequence[Request]) -> bool:
        """Reserve the most that these requests can cost; False when a limit does not allow it now. One that is reserved
        already, and has no reply yet, needs no more."""
        if not self._limited:
            return True
        with self._changed:
            new = {name: self._known_max(one) for one in requests if (name := key(one)) not in self._reserved}
            most, tightest = sum(new.values(), ZERO), min(self._limits, key=self._room, default=None)
            if most and tightest and self._room(tightest) < most:
                self.exceeded = tightest
                return False
            if most:
                self._ledger.write(self._reservations(new, requests[0].model))
            self._reserved.update(new)
            self._held += most
        return True

    def release(self, keys: Iterable[str]) -> None:
        """Give back what was reserved for requests that were not sent after all."""
        with self._changed:
            if freed := [name for name in keys if self._take(name)]:
                self._ledger.write(self._line("released", key=name) for name in freed)
            self._changed.notify_all()

    def mark_lost(self, requests: Sequence[Request]) -> None:
        """Requests were sent, and no reply will come of that: the most that each can cost is in doubt, and spent."""
        with self._changed:
            held = {name: self._take(name) for one in requests if (name := key(one)) in self._reserved}
            new = {name: most for one in requests if (name := key(one)) not in held and (most := self._max_cost(one))}
            lost = {name: most for name, most in (held | new).items() if most}
            lines = self._reservations(new, requests[0].model)
            lines += [self._line("lost", key=name) for name in lost]
            if lines:
                self._ledger.write(lines)
            self._add_spent(sum(lost.values(), ZERO))

    def wait_for_room(self, requests: Sequence[Request], stop: threading.Event) -> bool:
        """Wait until requests that could not be reserved can be, until nothing is under way that could make room, or
        until `stop` is set, since batches that run on keep theirs: True when it may be tried again."""
        most = sum((self._known_max(one) for one in requests), ZERO)
        with self._changed:
            while any(self._room(limit) < most for limit in self._limits):
                if stop.is_set() or not self._reserved:
                    return False
                self._changed.wait(timeout=0.5)
        return True

    def record(self, requests: Sequence[Request], keys: Sequence[str], replies: Sequence[Completion]) -> None:
        """Write what requests to one model did cost, and give back what was reserved for them."""
        model = requests[0].model
        price, batch = self._price(model), self._is_batch(model)
        lines, spent = list[LedgerLine](), ZERO
        for request, name, reply in zip(requests, keys, replies, strict=True):
            cost = prices.reply_cost(price, reply, batch=batch)
            # A reply of unknown cost counts as if it had cost as much as it could.
            most = prices.max_request_cost(price, request, batch=batch) if cost is None and price else cost
            spent += most or ZERO
            line = self._line(
                "request",
                **_model_fields(model),
                prompt=request.prompt,
                key=name,
                batch=batch,
                characters=prices.prompt_characters(request.messages),
                prompt_tokens=reply.prompt_tokens,
                cached_tokens=reply.cached_tokens,
                completion_tokens=reply.completion_tokens,
                finish=reply.finish,
                cost=cost,
                most=most,
            )
            lines.append(line)
        with self._changed:
            for request, reply in zip(requests, replies, strict=True):
                for _ in range(reply.lost):
                    self.mark_lost([request])
            self._ledger.write(lines)
            for name in keys:
                self._take(name)
                spent -= self._batched.pop(name, ZERO)
            self._add_spent(spent)

    def hit_group(self, request: Request) -> int:
        """A number from 1 for all requests of one model and prompt, under which `record_hit` counts their replies."""
        group = self._hit_groups.setdefault((request.model.label, request.prompt), len(self._hits) + 1)
        if group > len(self._hits):
            self._hits.append((request.model, request.prompt, Counter()))
        return group

    def record_hit(self, group: int, reply: Completion) -> None:
        """Count a reply that the store had."""
        counts = self._hits[group - 1][2]
        counts["requests"] += 1
        counts["prompt_tokens"] += reply.prompt_tokens
        counts["cached_tokens"] += reply.cached_tokens
        counts["completion_tokens"] += reply.completion_tokens

    def close(self) -> None:
        """Write what the store saved, and let other processes buy."""
        lines = []
        for model, prompt, counts in self._hits:
            tokens = (counts[f"{name}_tokens"] for name in ("prompt", "cached", "completion"))
            cost = prices.token_cost(price, *tokens) if (price := self._price(model)) else None
            lines.append(self._line("saved", **_model_fields(model), prompt=prompt, **counts, cost=cost))
        if lines:
            self._ledger.write(lines)
        self._hits.clear()
        self._hit_groups.clear()
        self._ledger.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def exceeded_message(self, missing: int) -> str:
        """Why the stage stopped, and how to go on."""
        limit = self.exceeded
        assert limit is not None
        return (
            f"the budget does not allow the next request: {self._spent_of(limit)} spent ({limit.setting}), and "
            f"{missing:,} replies are missing. What was bought is kept. To go on, raise {limit.setting} in "
            f"params.yaml, then: lema repro, or lema make {self._stage} {self._recipe}"
        )

    def _spent_of(self, limit: SpendingLimit) -> str:
        return f"{format_dollars(limit.spent + self._spent)} of {format_dollars(limit.allowed)}"

    def _room(self, limit: SpendingLimit) -> Decimal:
        return limit.allowed - limit.spent - self._spent - self._held

    def _take(self, name: str) -> Decimal:
        """End the reservation of a request, if there is one; returns how much it was."""
        amount = self._reserved.pop(name, ZERO)
        self._held -= amount
        return amount

    def _add_spent(self, amount: Decimal) -> None:
        self._spent += amount
        for limit in self._limits:
            passed = [share for share in WARN_AT if 0 < share * limit.allowed <= limit.spent + self._spent]
            share = max(passed, default=ZERO)
            if share > self._warned.get(limit.setting, ZERO):
                self._warned[limit.setting] = share
                self._warn(f"warning: {self._spent_of(limit)} spent, more than {share:.0%} of {limit.setting}")
        self._changed.notify_all()

    def _line(self, kind: str, **values: object) -> LedgerLine:
        time = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
        return cast(LedgerLine, {"kind": kind, "time": time, "recipe": self._recipe, "stage": self._stage, **values})

    def _reservations(self, amounts: Mapping[str, Decimal], model: Model) -> list[LedgerLine]:
        """Lines that reserve so much for requests to a model, by their keys."""
        batch = self._is_batch(model)
        return [self._line("reserved", batch=batch, key=name, cost=amount) for name, amount in amounts.items()]

    def _max_cost(self, request: Request) -> Decimal | None:
        """The most that a request can cost; None without a known price."""
        price = self._price(request.model)
        return prices.max_request_cost(price, request, batch=self._is_batch(request.model)) if price else None

    def _known_max(self, request: Request) -> Decimal:
        most = self._max_cost(request)
        assert most is not None, "`open` refuses such models"
        return most

    def _price(self, model: Model) -> Price | None:
        which = (model.label, model.name)
        if which not in self._prices:
            self._prices[which] = prices.price_of(model, self._run)
        return self._prices[which]

    def _is_batch(self, model: Model) -> bool:
        endpoint = self._run.endpoints.get(model.endpoint or "")
        return endpoint is not None and endpoint.mode == "batch"


def _model_fields(model: Model) -> dict[str, str | None]:
    return {"model": model.label, "name": model.name, "endpoint": model.endpoint}
