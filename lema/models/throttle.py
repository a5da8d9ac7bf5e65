"""When the next request may go to an endpoint, and when the endpoint is given up.

Token buckets keep the limits that the user gives, in requests and tokens a minute. An adaptive window limits how many
requests are in flight: it grows while that pays and shrinks when the endpoint signals overload, as TCP's congestion
window does (additive increase, multiplicative decrease: Chiu and Jain 1989; slow start: RFC 5681). A circuit breaker
gives up an endpoint at which everything fails.
"""

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from lema.models.types import Fault
from lema.recipe.params import MOST_IN_FLIGHT, Endpoint

BURST = 0.05  # seconds of a rate that may go at once: what a late wake-up missed is made good, and no more
HEADROOM = 0.995  # of a limit is used, since the endpoint's clock and the network's delays are not ours
START = 8  # requests in flight at first, when params.yaml gives no concurrency
DECREASE = 0.75
NEAR = 0.9  # of the last ceiling: beyond it the window grows ten times more slowly
BETTER = 1.1  # a rate so many times the best one shows that a larger window pays
CHARACTERS_PER_TOKEN = 4  # a token, about
OPEN_AFTER = (10, 60.0)  # faults in a row, and seconds since the first of them, that open the circuit
LONGEST_PAUSE = 3600.0  # seconds; an endpoint that asks for more is left for another day
SAME_PAUSE = 0.1  # seconds by which the end of a pause may differ when several processes keep it


@dataclass(frozen=True, slots=True)
class Reservation:
    """Of a request that is in flight: when it went, and how many tokens were expected of it."""

    at: float
    input_tokens: float
    output_tokens: float


class TokenBucket:
    """A rate a minute; its user takes from the `level`. A request that needs more than the bucket holds may go when it
    is full, and leaves a debt."""

    def __init__(self, per_minute: int, now: float) -> None:
        self._rate = per_minute / 60 * HEADROOM
        self._capacity = max(1.0, self._rate * BURST)
        self.level, self._at = self._capacity, now

    def wait(self, need: float, now: float) -> float:
        """Seconds until `need` may be taken."""
        self.level = min(self._capacity, self.level + (now - self._at) * self._rate)
        self._at = now
        wait = (min(need, self._capacity) - self.level) / self._rate
        return wait if wait > 1e-6 else 0.0


class AdaptiveWindow:
    """How many requests may be in flight: the number that the user gives, else the one that proves best."""

    def __init__(self, given: int | None) -> None:
        self._given = given is not None
        self.limit = float(given or START)
        self.in_flight = 0
        # Of the present round, which is as many replies as may be in flight when it begins.
        self._peak, self._count, self._since, self._round = 0, 0, -math.inf, self.limit
        # At the last cut, and where the rate was best.
        self._ceiling, self._cut_at = math.inf, -math.inf
        self._best = self._best_limit = 0.0
        self._stale = 0

    def enter(self) -> None:
        """One more request is in flight."""
        self.in_flight += 1
        self._peak = max(self._peak, self.in_flight)

    def grow(self, now: float) -> None:
        """A reply came. A window that is not used does not grow."""
        if self._given:
            return
        if self._peak >= self.limit / 2:
            if self.limit >= NEAR * self._ceiling:
                self.limit += 0.1 / self.limit
            else:
                # Slow start doubles it every round; after a cut it grows by one a round.
                self.limit += 1.0 if self._ceiling == math.inf else 1 / self.limit
            self.limit = min(self.limit, float(MOST_IN_FLIGHT))
        self._count += 1
        if self._count >= self._round:
            if self._peak >= self.limit / 2:
                self._compare(self._count / (now - self._since) if now > self._since else math.inf)
            self._peak, self._count, self._since, self._round = self.in_flight, 0, now, self.limit

    def _compare(self, rate: float) -> None:
        """Go back to where the rate was best when two rounds with more requests in flight brought no more of it: a
        server that queues what it cannot do yet never answers 429."""
        if rate > BETTER * self._best:
            self._best, self._best_limit, self._stale = rate, self.limit, 0
            return
        self._stale += 1
        if self._stale >= 2 and self.limit > 1.5 * self._best_limit:
            self._ceiling = self.limit = self._best_limit
            self._best, self._stale = rate, 0

    def shrink(self, sent: float, now: float) -> None:
        """A request sent at `sent` was too much. Others that had gone before the last cut tell nothing new."""
        if not self._given and sent >= self._cut_at:
            self._ceiling, self._cut_at = self.limit, now
            self.limit = max(1.0, self.limit * DECREASE)


class Throttle:
    """Of one endpoint, for all models that it serves. Not thread-safe: it belongs to one event loop."""

    def __init__(self, endpoint: Endpoint, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, now = clock, clock()
        self.window = AdaptiveWindow(endpoint.concurrency)
        limits = (endpoint.requests_per_minute, endpoint.input_tokens_per_minute, endpoint.output_tokens_per_minute)
        self._buckets = [TokenBucket(limit, now) if limit else None for limit in limits]
        self._limited = any(limits)
        # Until when nothing goes, until when this process itself was asked for that, and when the next of those may go
        # that waited for it.
        self._paused_until = self._asked_until = -math.inf
        self._next, self._gap, self._thawing = now, 0.0, 0
        self._replies = self._written = 0
        # The turn of those that wait, first come first served, and that a request has ended.
        self._turn, self._ended = asyncio.Lock(), asyncio.Event()
        # Models that have answered here, and the lock that the first request to each holds: the canary.
        self.proved: set[str] = set()
        self.canaries: dict[str, asyncio.Lock] = {}
        # The circuit breaker: faults in a row, when the first of them was, and why the circuit is open.
        self.faults, self._first_fault = 0, 0.0
        self.open: str | None = None

    async def acquire(self, characters: int, max_tokens: int) -> Reservation:
        """Wait, in turn, until a request with so long a prompt may go."""
        if self._turn.locked() or self.wait(characters, max_tokens) > 0:
            async with self._turn:
                while (wait := self.wait(characters, max_tokens)) > 0:
                    self._ended.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(wait if wait < math.inf else None):
                            await self._ended.wait()
                return self.start(characters, max_tokens)
        return self.start(characters, max_tokens)

    def wait(self, characters: int, max_tokens: int) -> float:
        """Seconds until a request may go; 0: now; infinite: when another has ended."""
        now = self._clock()
        if self._next > now:
            return self._next - now
        if self.window.in_flight >= int(self.window.limit):
            return math.inf
        if not self._limited:
            return 0.0
        needs = (1.0, *self._expected(characters, max_tokens))
        return max(
            (bucket.wait(need, now) for bucket, need in zip(self._buckets, needs, strict=True) if bucket), default=0.0
        )

    def start(self, characters: int, max_tokens: int) -> Reservation:
        """A request goes."""
        now = self._clock()
        if self._thawing:
            # Those that were held back by a pause do not go at the same instant.
            self._thawing -= 1
            self._next = now + self._gap
        tokens = self._expected(characters, max_tokens) if self._limited else (0.0, 0.0)
        self.window.enter()
        if self._limited:
            self._take(1.0, *tokens)
        return Reservation(now, *tokens)

    def replied(self, reservation: Reservation, input_tokens: int, output_tokens: int) -> None:
        """A reply with its usage, which corrects the estimates."""
        self.window.grow(self._clock())
        self._replies, self._written, self.faults = self._replies + 1, self._written + output_tokens, 0
        self._end(input_tokens - reservation.input_tokens, output_tokens - reservation.output_tokens)

    def failed(self, reservation: Reservation, *, overload: bool = False) -> None:
        """No reply; `overload` when that may be because too much was asked at once."""
        if overload:
            self.window.shrink(reservation.at, self._clock())
        self._end(-reservation.input_tokens, -reservation.output_tokens)

    def note(self, fault: Fault, where: str) -> None:
        """Circuit breaker: an endpoint that fails everything for a while is given up, as is one that asks for a pause
        of hours. Other pauses hold for all requests."""
        now = self._clock()
        if fault.wait is not None and fault.what in ("limit", "retry"):
            if fault.wait > LONGEST_PAUSE:
                self.open = f"{where} asks to wait for {fault.wait / 3600:.1f} hours: {fault.reason}"
            else:
                self.pause(fault.wait)
                self._asked_until = max(self._asked_until, now + fault.wait)
        if fault.what != "retry":
            self.faults = 0
            return
        self._first_fault = self._first_fault if self.faults else now
        self.faults += 1
        if self.faults >= OPEN_AFTER[0] and now - self._first_fault >= OPEN_AFTER[1]:
            seconds = now - self._first_fault
            self.open = f"{where} failed {self.faults} times in a row over {seconds:.0f} s: {fault.reason}"

    def asked_pause(self) -> float:
        """Seconds for which the endpoint has asked this very process not to send anything."""
        return max(0.0, self._asked_until - self._clock())

    def share_pause(self, seconds: float) -> None:
        """Another process was asked for a pause; clocks differ a little."""
        if self._clock() + seconds > self._paused_until + SAME_PAUSE:
            self.pause(seconds)

    def pause(self, seconds: float) -> None:
        """Nothing goes for so long; what has waited then goes spread over a tenth of that time. Nothing changes where
        more was asked for before."""
        until = self._clock() + seconds
        if until > self._paused_until:
            self._thawing = int(self.window.limit)
            self._gap = 0.1 * max(0.0, seconds) / self._thawing
            self._paused_until = self._next = until

    def _end(self, *tokens: float) -> None:
        """A request is no longer in flight; the next one may go."""
        self.window.in_flight -= 1
        if self._limited:
            self._take(0.0, *tokens)
        self._ended.set()

    def _expected(self, characters: int, max_tokens: int) -> tuple[float, float]:
        mean = self._written / self._replies if self._replies else max_tokens
        return characters / CHARACTERS_PER_TOKEN, min(mean, max_tokens)

    def _take(self, *amounts: float) -> None:
        for bucket, amount in zip(self._buckets, amounts, strict=True):
            if bucket:
                bucket.level -= amount
