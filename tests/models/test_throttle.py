"""When requests go, in simulated time against simulated endpoints."""

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from lema.models.throttle import AdaptiveWindow, Reservation, Throttle, TokenBucket
from lema.recipe.params import Endpoint

# Seconds that a request takes, and whether it is then refused with a 429.
Serve = Callable[[float], tuple[float, bool]]


@dataclass
class World:
    """Requests of a size to an endpoint, as many as may go, by a clock that jumps."""

    serve: Serve
    now: float = 0.0
    usage: tuple[int, int] = (100, 50)
    sent: list[float] = field(default_factory=list)
    limited: int = 0
    most: int = 0

    def run(self, endpoint: Endpoint, count: int, characters: int = 400, max_tokens: int = 512) -> Throttle:
        throttle = Throttle(endpoint, clock=lambda: self.now)
        flying: list[tuple[float, int, Reservation, bool]] = []
        left = count
        while left or flying:
            wait = throttle.wait(characters, max_tokens) if left else math.inf
            if wait == 0:
                left -= 1
                seconds, refused = self.serve(self.now)
                self.sent.append(self.now)
                reservation = throttle.start(characters, max_tokens)
                heapq.heappush(flying, (self.now + seconds, len(self.sent), reservation, refused))
                self.most = max(self.most, len(flying))
                continue
            self.now = min(self.now + wait, flying[0][0] if flying else math.inf)
            while flying and flying[0][0] <= self.now:
                _, _, reservation, refused = heapq.heappop(flying)
                if refused:
                    self.limited += 1
                    left += 1
                    throttle.failed(reservation, overload=True)
                else:
                    throttle.replied(reservation, *self.usage)
        return throttle

    def rate(self) -> float:
        """Replies a second, from the first request to the last."""
        return (len(self.sent) - self.limited) / (self.sent[-1] - self.sent[0])


def taking(mean: float, seed: int = 0) -> Callable[[], float]:
    draw = random.Random(seed)
    return lambda: draw.gammavariate(4, mean / 4)


def limited(per_second: float, burst: float, mean: float = 0.1) -> Serve:
    """An endpoint that keeps a rate with a bucket of its own."""
    level, last, seconds = burst, 0.0, taking(mean)

    def serve(now: float) -> tuple[float, bool]:
        nonlocal level, last
        level, last = min(burst, level + (now - last) * per_second), now
        if level < 1:
            return 0.01, True
        level -= 1
        return seconds(), False

    return serve


def queueing(slots: int, mean: float = 0.1) -> Serve:
    """A server that never refuses, and works on so many at once."""
    free, seconds = [0.0] * slots, taking(mean)

    def serve(now: float) -> tuple[float, bool]:
        begin = max(now, heapq.heappop(free))
        end = begin + seconds()
        heapq.heappush(free, end)
        return end - now, False

    return serve


def endpoint(**options: Any) -> Endpoint:
    return Endpoint(url="http://here/v1", **options)


@pytest.mark.parametrize("concurrency", [64, 256, None])
@pytest.mark.parametrize("burst", [30, 300])
def test_a_limit_of_requests_is_used_in_full_and_kept(concurrency: int | None, burst: int) -> None:
    world = World(limited(300, burst))
    world.run(endpoint(concurrency=concurrency, requests_per_minute=18_000), 5000)
    assert world.rate() >= 295
    assert world.limited < 50


def test_without_limits_a_ramp_and_then_all_that_pays() -> None:
    world = World(lambda now: (0.1, False))
    throttle = world.run(endpoint(), 5000)
    assert len([at for at in world.sent if at < 0.05]) == 8
    assert world.most == 512
    assert throttle.window.limit == 512
    assert world.sent[-1] < 2


def test_a_given_concurrency_is_kept() -> None:
    world = World(lambda now: (0.1, False))
    world.run(endpoint(concurrency=64), 640)
    assert world.most == 64
    assert world.now == pytest.approx(1.0)
    refusing = World(limited(300, 30))
    assert refusing.run(endpoint(concurrency=64), 640).window.limit == 64
    assert refusing.limited > 0


@pytest.mark.parametrize("seed", range(3))
def test_the_window_finds_a_limit_that_nobody_told(seed: int) -> None:
    random.seed(seed)
    world = World(limited(300, 30))
    world.run(endpoint(), 6000)
    assert world.rate() > 240
    assert world.limited < 0.05 * 6000


def test_a_server_that_queues_is_not_flooded() -> None:
    world = World(queueing(20))
    throttle = world.run(endpoint(), 4000)
    assert world.rate() > 0.9 * 20 / 0.1
    assert throttle.window.limit < 100


def ramped(limit: int) -> AdaptiveWindow:
    window = AdaptiveWindow(None)
    window.limit = limit
    return window


def test_a_burst_of_refusals_is_one_cut() -> None:
    window = ramped(100)
    for _ in range(50):
        window.shrink(sent=1.0, now=1.1)
    assert window.limit == 75
    window.shrink(sent=1.2, now=1.3)
    assert window.limit == 56.25


def test_growth_needs_a_full_window() -> None:
    window = AdaptiveWindow(None)
    window.enter()
    for at in range(100):
        window.grow(at)
    assert window.limit == 8


def test_after_a_cut_it_grows_by_one_a_round_and_slowly_near_the_ceiling() -> None:
    window = ramped(100)
    window.shrink(sent=0.0, now=0.0)
    gains = []
    for _ in range(20):
        before = window.limit
        for _ in range(round(before)):
            window.in_flight = int(window.limit) - 1
            window.enter()
            window.grow(0.1)
        gains.append(window.limit - before)
    assert gains[0] == pytest.approx(1, abs=0.05)
    assert window.limit > 90
    assert gains[-1] == pytest.approx(0.1, abs=0.01)


def test_input_tokens_are_expected_by_length_and_put_right_by_usage() -> None:
    # A thousand are expected of a prompt, two thousand are used: 60,000 a minute are 30 requests, not 60.
    world = World(lambda now: (0.1, False), usage=(2000, 10))
    world.run(endpoint(concurrency=4, input_tokens_per_minute=60_000), 100, characters=4000)
    assert world.rate() * 60 == pytest.approx(30, rel=0.05)


def test_output_tokens_are_expected_by_the_replies_so_far() -> None:
    world = World(lambda now: (0.1, False), usage=(10, 100))
    world.run(endpoint(concurrency=4, output_tokens_per_minute=60_000), 2000, max_tokens=1000)
    assert world.rate() == pytest.approx(10, rel=0.05)


def test_what_a_failed_request_was_expected_to_use_is_given_back() -> None:
    throttle = Throttle(endpoint(concurrency=4, output_tokens_per_minute=600), clock=lambda: 0.0)
    reservation = throttle.start(0, 1000)
    assert throttle.wait(0, 1000) > 60
    throttle.failed(reservation, overload=False)
    assert throttle.wait(0, 1000) == 0


def test_a_pause_holds_for_all_and_ends_gently() -> None:
    now = 0.0
    throttle = Throttle(endpoint(concurrency=10), clock=lambda: now)
    throttle.pause(10)
    throttle.pause(3)
    assert throttle.wait(0, 1) == 10
    now, went = 10.0, []
    while len(went) < 10:
        now += throttle.wait(0, 1)
        throttle.start(0, 1)
        went.append(now)
    assert went[0] == 10
    assert went[-1] == pytest.approx(10.9)
    assert throttle.wait(0, 1) > 0


def test_a_bucket_lets_a_large_need_go_when_full_and_waits_for_the_debt() -> None:
    bucket = TokenBucket(6000, 0.0)
    assert bucket.wait(1000, 0.0) == 0
    bucket.level -= 1000
    assert bucket.wait(1, 0.0) == pytest.approx(10, rel=0.05)
    assert bucket.wait(1, 10.2) == 0
