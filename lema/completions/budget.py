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

from lema.completions.append_log import AppendLog
from lema.completions.ledger import (
    LedgerLine,
    SpendingLimit,
    budget_lock,
    ledger_folder,
    open_ledger,
    spending_limits,
)
from lema.completions.prices import budget_problem, format_dollars, max_request_cost, price_of, token_cost, token_rates
from lema.compute import files
from lema.errors import RunError
from lema.models.types import Completion, Model, Request
from lema.recipe.params import Price, Run

WARN_AT = (Decimal("0.75"), Decimal("0.9"))  # shares of a limit
ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Terms:
    """Of requests to one model: the price and dollars a token, None when they are unknown; whether they may cost
    anything; whether they go in batches; and how the ledger names the model."""

    price: Price | None
    rates: tuple[Decimal, Decimal, Decimal] | None
    costly: bool
    batch: bool
    line: Mapping[str, str | None]


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
        warn: Callable[[str], None] = partial(print, file=sys.stderr, flush=True),  # noqa: B008
        now: Callable[[], datetime] = partial(datetime.now, UTC),  # noqa: B008
    ) -> None:
        self._run, self._recipe, self._stage, self._warn, self._now = run, recipe, stage, warn, now
        self._folder = folder or ledger_folder()
        self._log: AppendLog | None = None  # made with the first line
        self._limited = recipe in run.budget.recipes or run.budget.total is not None
        self._limits: list[SpendingLimit] = []
        self._warned: dict[str, Decimal] = {}  # the last warning of each limit
        self._lock: TextIO | None = None
        self._changed = threading.Condition()
        self._spent = ZERO  # since `open`
        self._reserved: dict[str, Decimal] = {}  # by the key of the request
        self._held = ZERO  # their sum
        self._batched: dict[str, Decimal] = {}  # reserved by earlier processes for batches, and counted as spent
        self._terms: dict[tuple[str, str | None, str | None], Terms] = {}
        self._hits: list[tuple[Model, str, Counter[str]]] = []
        self._groups: dict[tuple[str, str], int] = {}
        self.exceeded: SpendingLimit | None = None

    def open(self, models: Iterable[Model]) -> None:
        """Before models are asked: with a budget, every price is known and every reply has a limit.

        Raises:
            RunError: that is not so.
        """
        costly = dict[str, Model]()
        for model in models:
            if self._terms_of(model).costly:
                costly[model.name or model.label] = model
        if not (self._limited and costly):
            return
        problems = {name: budget_problem(model, self._terms_of(model).price) for name, model in sorted(costly.items())}
        if wrong := [f"model {name} {problem}" for name, problem in problems.items() if problem]:
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
            new = {one.key: one for one in requests if one.key not in self._reserved}
            amounts = dict(zip(new, map(self._most, new.values()), strict=True))
            total, tightest = sum(amounts.values(), ZERO), min(self._limits, key=self._room, default=None)
            if total and tightest and self._room(tightest) < total:
                self.exceeded = tightest
                return False
            if total:
                self._write(map(self._reservation, new.values(), amounts.values()))
            self._reserved.update(amounts)
            self._held += total
        return True

    def release(self, keys: Iterable[str]) -> None:
        """Give back what was reserved for requests that were not sent after all."""
        with self._changed:
            if freed := [key for key in keys if self._take(key)]:
                self._write([self._line("released", key=key) for key in freed])
            self._changed.notify_all()

    def mark_lost(self, requests: Sequence[Request]) -> None:
        """Requests were sent, and no reply will come of that: the most that each can cost is in doubt, and spent."""
        lines, lost = list[LedgerLine](), ZERO
        with self._changed:
            for one in requests:
                most = self._take(one.key)
                if not most and (most := self._most(one)):
                    lines.append(self._reservation(one, most))
                if most:
                    lines.append(self._line("lost", key=one.key))
                    lost += most
            if lines:
                self._write(lines)
            self._add_spent(lost)

    def wait_for_room(self, requests: Sequence[Request], stop: threading.Event) -> bool:
        """Wait until requests that could not be reserved can be, until nothing is under way that could make room, or
        until `stop` is set, since batches that run on keep theirs: True when it may be tried again."""
        most = sum(map(self._most, requests), ZERO)
        with self._changed:
            while any(self._room(limit) < most for limit in self._limits):
                if stop.is_set() or not self._reserved:
                    return False
                self._changed.wait(timeout=0.5)
        return True

    def record(self, requests: Sequence[Request], replies: Sequence[Completion]) -> None:
        """Write what requests to one model did cost, and give back what was reserved for them."""
        terms, lines, spent = self._terms_of(requests[0].model), list[LedgerLine](), ZERO
        for request, reply in zip(requests, replies, strict=True):
            read, cached, written = reply.prompt_tokens, reply.cached_tokens, reply.completion_tokens
            cost = most = None
            if terms.rates and (read or written or not (reply.text and terms.costly)):
                fresh_rate, cached_rate, reply_rate = terms.rates
                cost = most = (read - cached) * fresh_rate + cached * cached_rate + written * reply_rate
            elif terms.price:
                # A reply of unknown cost counts as if it had cost as much as it could. (A request that failed without
                # a word about tokens is taken to be free.)
                most = max_request_cost(terms.price, request, batch=terms.batch)
            spent += most or ZERO
            line = self._line(
                "request",
                **terms.line,
                prompt=request.prompt,
                key=request.key,
                batch=terms.batch,
                characters=request.characters,
                prompt_tokens=read,
                cached_tokens=cached,
                completion_tokens=written,
                finish=reply.finish,
                cost=cost,
                most=most,
            )
            lines.append(line)
        with self._changed:
            for request, reply in zip(requests, replies, strict=True):
                if reply.lost:
                    self.mark_lost([request] * reply.lost)
            self._write(lines)
            for request in requests:
                self._held -= self._reserved.pop(request.key, ZERO)
                spent -= self._batched.pop(request.key, ZERO)
            self._add_spent(spent)

    def hit_group(self, request: Request) -> int:
        """A number from 1 for all requests of one model and prompt, under which `record_hit` counts their replies."""
        group = self._groups.setdefault((request.model.label, request.prompt), len(self._hits) + 1)
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
            terms = self._terms_of(model)
            cost = token_cost(terms.price, *tokens) if terms.price else None
            lines.append(self._line("saved", **terms.line, prompt=prompt, **counts, cost=cost))
        if lines:
            self._write(lines)
        self._hits.clear()
        self._groups.clear()
        if self._log is not None:
            self._log.close()
            self._log = None
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

    def _take(self, key: str) -> Decimal:
        """End the reservation of a request, if there is one; returns how much it was."""
        amount = self._reserved.pop(key, ZERO)
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

    def _reservation(self, request: Request, amount: Decimal) -> LedgerLine:
        return self._line("reserved", batch=self._terms_of(request.model).batch, key=request.key, cost=amount)

    def _write(self, lines: Iterable[LedgerLine]) -> None:
        self._log = self._log or open_ledger(self._folder)
        self._log.append(lines)

    def _most(self, request: Request) -> Decimal:
        """The most that a request can cost, as far as that is known; with a budget it is, as `open` sees to."""
        terms = self._terms_of(request.model)
        return (terms.price and max_request_cost(terms.price, request, batch=terms.batch)) or ZERO

    def _terms_of(self, model: Model) -> Terms:
        which = (model.label, model.name, model.endpoint)
        if which not in self._terms:
            price, endpoint = price_of(model, self._run), self._run.endpoints.get(model.endpoint or "")
            batch = endpoint is not None and endpoint.mode == "batch"
            line = {"model": model.label, "name": model.name, "endpoint": model.endpoint}
            rates = token_rates(price, batch=batch) if price else None
            self._terms[which] = Terms(price, rates, not (price and price.free), batch, line)
        return self._terms[which]
