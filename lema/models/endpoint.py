"""The way to one endpoint: who goes when, what is known of it, and when it is given up."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

from lema.models.api_errors import Fault
from lema.models.throttle import Pace, Ticket
from lema.recipe.params import Endpoint

# (HTTP status, headers, body) of a JSON object posted to a path.
Post = Callable[[str, bytes], Awaitable[tuple[int, Mapping[str, str], bytes]]]

DEAD_AFTER = (10, 60.0)  # faults in a row, and seconds since the first of them
LONGEST_PAUSE = 3600.0  # seconds; an endpoint that asks for more is left for another day


class Line:
    """Shared by all models of an endpoint; belongs to one event loop."""

    def __init__(self, endpoint: Endpoint, post: Post) -> None:
        self.post = post
        self.pace = Pace(endpoint)
        self.dead: str | None = None
        # Models that have answered here, and the lock that a first request holds meanwhile.
        self.proved: set[str] = set()
        self._canaries: dict[str, asyncio.Lock] = {}
        self._turn, self._freed = asyncio.Lock(), asyncio.Event()
        self.faults, self._first_fault = 0, 0.0  # in a row, and when the first of them was

    def canary(self, served: str) -> asyncio.Lock:
        """Held by the first request to a model, which goes alone."""
        return self._canaries.setdefault(served, asyncio.Lock())

    def room(self) -> int:
        """Requests worth holding: half as many again as may be under way, so that nothing is idle; before anything
        was answered, one."""
        return -(-3 * int(self.pace.window.limit) // 2) if self.proved else 1

    @asynccontextmanager
    async def slot(self, characters: int, max_tokens: int) -> AsyncIterator[Ticket]:
        """Waits in turn until a request may go. Inside, the pace is told how it went."""
        async with self._turn:
            while (wait := self.pace.wait(characters, max_tokens)) > 0:
                if wait == math.inf:
                    self._freed.clear()
                    await self._freed.wait()
                else:
                    await asyncio.sleep(wait)
            ticket = self.pace.start(characters, max_tokens)
        try:
            yield ticket
        finally:
            self._freed.set()

    def alive(self) -> None:
        self.faults = 0

    def note(self, fault: Fault, where: str) -> None:
        """Circuit breaker: an endpoint that fails everything for a while is given up, as is one that asks for a pause
        of hours. Other pauses hold for all requests."""
        now = time.monotonic()
        if fault.wait is not None and fault.what in ("limit", "retry"):
            if fault.wait > LONGEST_PAUSE:
                self.dead = f"{where} asks to wait for {fault.wait / 3600:.1f} hours: {fault.reason}"
            else:
                self.pace.pause(fault.wait)
        if fault.what != "retry":
            self.alive()
            return
        self._first_fault = self._first_fault if self.faults else now
        self.faults += 1
        if self.faults >= DEAD_AFTER[0] and now - self._first_fault >= DEAD_AFTER[1]:
            seconds = now - self._first_fault
            self.dead = f"{where} failed {self.faults} times in a row over {seconds:.0f} s: {fault.reason}"


_lines: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], Line]] = WeakKeyDictionary()


def line(endpoint: Endpoint, secret: str, connect: Callable[[], Post]) -> Line:
    """The line to an endpoint with this key, which all workers of this event loop share; connected at first use, and
    anew when it was given up."""
    here = _lines.setdefault(asyncio.get_running_loop(), {})
    name = (endpoint.model_dump_json(exclude={"models"}), secret)
    if name not in here or here[name].dead is not None:
        here[name] = Line(endpoint, connect())
    return here[name]
