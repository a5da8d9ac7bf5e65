"""When the next request may go to an endpoint. Arithmetic over a clock: no sleeping, no network.

Two things hold a request back. Buckets keep the limits that the user gives, in requests and tokens a minute. The window
is how many requests are under way at once; it grows while that pays and shrinks when the endpoint says that it is too
much, as TCP does (additive increase, multiplicative decrease: Chiu and Jain 1989; slow start: RFC 5681).
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from lema.recipe.params import MOST_IN_FLIGHT, Endpoint

BURST = 0.05  # seconds of a rate that may go at once: what a late wake-up missed is made good, and no more
HEADROOM = 0.995  # of a limit is used, since the endpoint's clock and the network's delays are not ours
START = 8  # requests under way at first, when params.yaml does not say how many
DECREASE = 0.75
NEAR = 0.9  # of the last ceiling: beyond it the window grows ten times more slowly
BETTER = 1.1  # a rate so many times the best one shows that a larger window pays
CHARACTERS = 4  # a token, about


@dataclass(frozen=True, slots=True)
class Ticket:
    """A request that has gone: when, and how many tokens were expected of it."""

    at: float
    input_tokens: float
    output_tokens: float


class Bucket:
    """A rate a minute. Whoever needs more than is left may go when the bucket is full, and leaves a debt."""

    def __init__(self, per_minute: int, now: float) -> None:
        self._rate = per_minute / 60 * HEADROOM
        self._full = max(1.0, self._rate * BURST)
        self._level, self._at = self._full, now

    def wait(self, need: float, now: float) -> float:
        """Seconds until `need` may be taken."""
        self._level = min(self._full, self._level + (now - self._at) * self._rate)
        self._at = now
        wait = (min(need, self._full) - self._level) / self._rate
        return wait if wait > 1e-6 else 0.0

    def take(self, amount: float) -> None:
        """A negative amount gives back."""
        self._level -= amount


class Window:
    """How many requests may be under way: the number that the user gives, else what proves worth it."""

    def __init__(self, given: int | None) -> None:
        self._given = given is not None
        self.limit = float(given or START)
        self.under_way = 0
        # Of the present round, which is as many replies as may be under way when it begins.
        self._peak, self._count, self._since, self._round = 0, 0, -math.inf, self.limit
        # At the last cut, and where the rate was best.
        self._ceiling, self._cut_at = math.inf, -math.inf
        self._best = self._best_limit = 0.0
        self._stale = 0

    @property
    def full(self) -> bool:
        return self.under_way >= int(self.limit)

    def enter(self) -> None:
        self.under_way += 1
        self._peak = max(self._peak, self.under_way)

    def grow(self, now: float) -> None:
        """A reply came. What is not used does not grow."""
        if self._given:
            return
        if self._peak >= self.limit / 2:
            if self.limit >= NEAR * self._ceiling:
                self.limit += 0.1 / self.limit
            else:
                # Doubled every round at first, one more a round after a cut.
                self.limit += 1.0 if self._ceiling == math.inf else 1 / self.limit
            self.limit = min(self.limit, float(MOST_IN_FLIGHT))
        self._count += 1
        if self._count >= self._round:
            if self._peak >= self.limit / 2:
                self._compare(self._count / (now - self._since) if now > self._since else math.inf)
            self._peak, self._count, self._since, self._round = self.under_way, 0, now, self.limit

    def _compare(self, rate: float) -> None:
        """Go back to where the rate was best when two rounds of more requests at once brought no more of it: a server
        that queues what it cannot do yet never says 429."""
        if rate > BETTER * self._best:
            self._best, self._best_limit, self._stale = rate, self.limit, 0
            return
        self._stale += 1
        if self._stale >= 2 and self.limit > 1.5 * self._best_limit:
            self._ceiling = self.limit = self._best_limit
            self._best, self._stale = rate, 0

    def shrink(self, sent: float, now: float) -> None:
        """The request sent then was too much. Others that had gone before the last cut tell nothing new."""
        if not self._given and sent >= self._cut_at:
            self._ceiling, self._cut_at = self.limit, now
            self.limit = max(1.0, self.limit * DECREASE)


class Pace:
    """Of one endpoint, for all models that it serves. Not thread-safe: it belongs to one event loop."""

    def __init__(self, endpoint: Endpoint, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, now = clock, clock()
        self.window = Window(endpoint.concurrency)
        limits = (endpoint.requests_per_minute, endpoint.input_tokens_per_minute, endpoint.output_tokens_per_minute)
        self._buckets = [Bucket(limit, now) if limit else None for limit in limits]
        # Until when the endpoint asked for quiet, and when the next of those may go that waited for that.
        self.paused_until, self._next, self._gap, self._thawing = -math.inf, now, 0.0, 0
        self._replies = self._written = 0

    def wait(self, characters: int, max_tokens: int) -> float:
        """Seconds until a request with so long a prompt may go; 0: now; infinite: when another has ended."""
        now = self._clock()
        if (paused := self._next - now) > 0:
            return paused
        if self.window.full:
            return math.inf
        needs = (1.0, *self._expected(characters, max_tokens))
        return max(
            (bucket.wait(need, now) for bucket, need in zip(self._buckets, needs, strict=True) if bucket), default=0.0
        )

    def start(self, characters: int, max_tokens: int) -> Ticket:
        now = self._clock()
        if self._thawing:
            # Those that were held back by a pause do not go at the same instant.
            self._thawing -= 1
            self._next = now + self._gap
        ticket = Ticket(now, *self._expected(characters, max_tokens))
        self.window.enter()
        self._take(1.0, ticket.input_tokens, ticket.output_tokens)
        return ticket

    def replied(self, ticket: Ticket, input_tokens: int, output_tokens: int) -> None:
        """A reply with its usage, which puts the estimates right."""
        self.window.grow(self._clock())
        self.window.under_way -= 1
        self._replies, self._written = self._replies + 1, self._written + output_tokens
        self._take(0.0, input_tokens - ticket.input_tokens, output_tokens - ticket.output_tokens)

    def failed(self, ticket: Ticket, *, overload: bool) -> None:
        """No reply; `overload` when that may be because too much was asked at once."""
        if overload:
            self.window.shrink(ticket.at, self._clock())
        self.window.under_way -= 1
        self._take(0.0, -ticket.input_tokens, -ticket.output_tokens)

    def pause(self, seconds: float) -> None:
        """Nothing goes for so long; what has waited then goes spread over a tenth of that time."""
        self.pause_until(self._clock() + seconds)

    def pause_until(self, until: float) -> None:
        """The same by the clock; nothing changes where more was asked for before."""
        if until > self.paused_until:
            self._thawing = int(self.window.limit)
            self._gap = 0.1 * max(0.0, until - self._clock()) / self._thawing
            self.paused_until = self._next = until

    def _expected(self, characters: int, max_tokens: int) -> tuple[float, float]:
        mean = self._written / self._replies if self._replies else max_tokens
        return characters / CHARACTERS, min(mean, max_tokens)

    def _take(self, *amounts: float) -> None:
        for bucket, amount in zip(self._buckets, amounts, strict=True):
            if bucket:
                bucket.take(amount)
