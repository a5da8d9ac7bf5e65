"""The account of a stage: what its requests cost, and whether the budget allows the next ones.

Before a block is sent, the most that it can cost is set aside; when its replies are there, what they did cost is
booked. What is booked and what is set aside never exceed a limit together, so neither does what is spent, however many
blocks are under way. With a budget, one process at a time buys from this machine's ledger; another waits.

A request that an endpoint may have answered into a dead connection is in doubt: it is spent, with the most that it can
cost.
"""

import fcntl
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from lema.completions import ledger
from lema.completions.ledger import Ledger
from lema.completions.limits import Limit, limits
from lema.completions.prices import (
    cost_at_current_price,
    format_dollars,
    max_reply_tokens,
    max_request_cost,
    price_of,
    prompt_characters,
    reply_cost,
)
from lema.compute import files
from lema.errors import RunError
from lema.models.types import Completion, Model, Request, key
from lema.recipe.params import Price, Run

WARN_AT = (Decimal("0.75"), Decimal("0.9"))  # shares of a limit


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


class BudgetTracker:
    """Books what one stage of one recipe buys. Safe with several threads."""

    def __init__(
        self,
        run: Run,
        recipe: str,
        stage: str,
        *,
        place: Path | None = None,
        say: Callable[[str], None] = _say,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._run, self._say, self._now = run, say, now
        self._who = {"recipe": recipe, "stage": stage}
        self._place = place or ledger.ledger_folder()
        self._ledger = Ledger(self._place)
        self._limited = recipe in run.budget.recipes or run.budget.total is not None
        self._limits: list[Limit] = []
        self._lock: TextIO | None = None
        self._changed = threading.Condition()
        self._reserved: dict[str, Decimal] = {}  # what is set aside, by the key of the request
        self._batched: dict[tuple[str, str], Decimal] = {}
        self._prices: dict[tuple[str, str | None], Price | None] = {}
        self._saved: list[tuple[Model, str, Counter[str]]] = []
        self._numbers: dict[tuple[str, str], int] = {}
        self.exceeded: Limit | None = None

    def open(self, models: Iterable[Model]) -> None:
        """Before models are asked: with a budget, every price is known and every reply has a limit.

        Raises:
            RunError: that is not so.
        """
        paid_for = [model for model in models if not ((of := self._price(model)) and of.free)]
        if not self._limited or not paid_for:
            return
        wrong = {}
        for model in paid_for:
            if self._price(model) is None:
                wrong[model.name or model.label] = (
                    "has no known price; set it, in dollars a million tokens: "
                    f"`run: {{prices: {{{model.name or model.label}: {{input: ..., output: ...}}}}}}`"
                )
            elif max_reply_tokens(model, 1) is None:
                wrong[model.name or model.label] = (
                    "is asked without a limit of tokens, so that its replies may cost any amount; name one in its "
                    "options: `extra: {max_completion_tokens: ...}`"
                )
        if wrong:
            told = "; ".join(f"model {name} {what}" for name, what in sorted(wrong.items()))
            raise RunError(f"params.yaml sets a budget, and {told}. Nothing was sent")
        if self._lock is None:
            self._place.mkdir(parents=True, exist_ok=True)
            self._lock = (self._place / "budget.lock").open("a")
            if not files.try_lock(self._lock.fileno()):
                self._say("another process buys under this budget; waiting for it")
                fcntl.flock(self._lock, fcntl.LOCK_EX)
            spent = ledger.fold_spending(self._place, partial(cost_at_current_price, run=self._run))
            self._limits, self._batched = limits(self._run, self._who["recipe"], spent), spent.batched

    def reserve(self, block: Sequence[Request]) -> bool:
        """Set aside the most that a block can cost; False when a limit does not allow it now. A request for which that
        was done before, and which has no reply yet, needs no more."""
        if not self._limited:
            return True
        asked = {name: self._most(one) for one in block if (name := key(one)) not in self._reserved}
        most = sum(asked.values(), Decimal(0))
        with self._changed:
            short = min((one for one in self._limits if one.room() < most), key=Limit.room, default=None)
            if most and short is not None:
                self.exceeded = short
                return False
            for one in self._limits:
                one.reserved += most
            if most:
                self._ledger.write(self._aside(asked, block[0].model))
            self._reserved.update(asked)
        return True

    def release(self, keys: Iterable[str]) -> None:
        """Give back what was set aside for requests that were not sent after all."""
        with self._changed:
            freed = {name: self._reserved.pop(name) for name in keys if name in self._reserved}
            if freed:
                self._ledger.write({"kind": "released", "key": name, **self._who} for name in freed)
            for one in self._limits:
                one.reserved -= sum(freed.values(), Decimal(0))
            self._changed.notify_all()

    def reserve_again(self, block: Sequence[Request]) -> bool:
        """Whether requests may be sent once more whose sender died; nobody knows whether they were answered. What was
        set aside for them is taken for spent, and as much set aside anew; False when a limit does not allow that."""
        self.mark_lost(block)
        return self.reserve(block)

    def mark_lost(self, block: Sequence[Request]) -> None:
        """Requests were sent, and no reply will come of that: the most that each can cost is in doubt, and spent."""
        with self._changed:
            held = {name: self._reserved.pop(name) for one in block if (name := key(one)) in self._reserved}
            new = {name: most for one in block if (name := key(one)) not in held and (most := self._bound(one))}
            lines = self._aside(new, block[0].model)
            lines += [{"kind": "lost", "key": name, **self._who} for name, most in (held | new).items() if most]
            if lines:
                self._ledger.write(lines)
            for one in self._limits:
                one.reserved -= sum(held.values(), Decimal(0))
                one.spent += sum((held | new).values(), Decimal(0))
                self._warn(one)
            self._changed.notify_all()

    def wait_for_room(self, block: Sequence[Request], stop: threading.Event) -> bool:
        """Wait until a block that was not admitted has room, until nothing is under way that could make some, or until
        `stop` is set, since batches that run on keep theirs: True when it may be tried again."""
        most = sum((self._most(one) for one in block), Decimal(0))
        with self._changed:
            while any(one.room() < most for one in self._limits):
                if stop.is_set() or not self._reserved:
                    return False
                self._changed.wait(timeout=0.5)
        return True

    def record(self, block: Sequence[Request], keys: Sequence[str], replies: Sequence[Completion]) -> None:
        """Write the lines of a block that was answered, and give back what was set aside for it."""
        model = block[0].model
        of, batch = self._price(model), self._batch(model)
        costs = [reply_cost(of, reply, batch=batch) for reply in replies]
        # A reply of unknown cost counts as if it had cost as much as it could.
        mosts = [
            max_request_cost(of, one, batch=batch) if amount is None and of else amount
            for one, amount in zip(block, costs, strict=True)
        ]
        about = self._about(model)
        lines: list[dict[str, Any]] = [
            {
                "kind": "request",
                **about,
                "prompt": request.prompt,
                "key": name,
                "batch": batch,
                "characters": prompt_characters(request.messages),
                "prompt_tokens": reply.prompt_tokens,
                "cached_tokens": reply.cached_tokens,
                "completion_tokens": reply.completion_tokens,
                "finish": reply.finish,
                "cost": amount,
                "most": most,
            }
            for request, name, reply, amount, most in zip(block, keys, replies, costs, mosts, strict=True)
        ]
        with self._changed:
            for request, reply in zip(block, replies, strict=True):
                for _ in range(reply.lost):
                    self.mark_lost([request])
            reserved = sum((self._reserved.pop(name, Decimal(0)) for name in keys), Decimal(0))
            # What an earlier process set aside for a batch counted as spent until now.
            earlier = sum((self._batched.pop((self._who["recipe"], name), Decimal(0)) for name in keys), Decimal(0))
            self._ledger.write(lines)
            for one in self._limits:
                one.reserved -= reserved
                one.spent += sum((most for most in mosts if most is not None), -earlier)
                self._warn(one)
            self._changed.notify_all()

    def hit_group(self, request: Request) -> int:
        """A number from 1 for all requests of one model and prompt, by which `save` is told of their replies."""
        whose = (request.model.label, request.prompt)
        if whose not in self._numbers:
            self._numbers[whose] = len(self._saved) + 1
            self._saved.append((request.model, request.prompt, Counter()))
        return self._numbers[whose]

    def record_hit(self, number: int, reply: Completion) -> None:
        """Count a reply that the store had."""
        counts = self._saved[number - 1][2]
        counts["requests"] += 1
        counts["prompt_tokens"] += reply.prompt_tokens
        counts["cached_tokens"] += reply.cached_tokens
        counts["completion_tokens"] += reply.completion_tokens

    def close(self) -> None:
        """Write what the store saved, and let other processes buy."""
        lines: list[dict[str, Any]] = []
        for model, prompt, counts in self._saved:
            summed = Completion(
                "", "stop", None, counts["prompt_tokens"], counts["completion_tokens"], counts["cached_tokens"]
            )
            lines.append(
                {
                    "kind": "saved",
                    **self._about(model),
                    "prompt": prompt,
                    **counts,
                    "cost": reply_cost(self._price(model), summed),
                }
            )
        if lines:
            self._ledger.write(lines)
        self._saved.clear()
        self._ledger.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def exceeded_message(self, missing: int) -> str:
        """Why the stage stopped, and how to go on."""
        full, who = self.exceeded, self._who
        assert full is not None
        return (
            f"the budget does not allow the next request: {format_dollars(full.spent)} of {format_dollars(full.most)} "
            f"spent ({full.key}), and {missing:,} replies are missing. What was bought is kept. To go on, raise "
            f"{full.key} in params.yaml, then: lema repro, or lema make {who['stage']} {who['recipe']}"
        )

    def _about(self, model: Model) -> dict[str, Any]:
        """When it was, for what, and who was asked."""
        return {"time": self._time(), **self._who, "model": model.label, "name": model.name, "endpoint": model.endpoint}

    def _time(self) -> str:
        return self._now().strftime("%Y-%m-%dT%H:%M:%SZ")

    def _aside(self, amounts: Mapping[str, Decimal], model: Model) -> list[dict[str, Any]]:
        """Lines that set aside so much for requests to a model, by their keys."""
        about = {"kind": "reserved", "time": self._time(), "batch": self._batch(model), **self._who}
        return [{**about, "key": name, "cost": amount} for name, amount in amounts.items()]

    def _bound(self, request: Request) -> Decimal | None:
        """The most that a request can cost; None without a known price."""
        of = self._price(request.model)
        if of is None:
            return None
        return Decimal(0) if of.free else max_request_cost(of, request, batch=self._batch(request.model))

    def _most(self, request: Request) -> Decimal:
        most = self._bound(request)
        assert most is not None, "`open` has seen it"
        return most

    def _price(self, model: Model) -> Price | None:
        which = (model.label, model.name)
        if which not in self._prices:
            self._prices[which] = price_of(model, self._run)
        return self._prices[which]

    def _batch(self, model: Model) -> bool:
        endpoint = self._run.endpoints.get(model.endpoint or "")
        return endpoint is not None and endpoint.mode == "batch"

    def _warn(self, one: Limit) -> None:
        passed = [share for share in WARN_AT if 0 < share * one.most <= one.spent and share not in one.warned]
        one.warned.update(passed)
        if passed:
            self._say(
                f"warning: {format_dollars(one.spent)} of {format_dollars(one.most)} spent, "
                f"more than {max(passed):.0%} of {one.key}"
            )
