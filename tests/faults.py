"""An endpoint on which everything goes wrong now and then, by a seed; and one that keeps a rate.

    with FaultServer(mix={"429": 0.02, "reset": 0.01}, latency=0.1) as server: ...
    with FaultServer(rate=300) as server: ...        # 429 with Retry-After above 300 requests a second

What happens to a request depends on the seed, its content and how often it was sent, never on the order of arrival.
`python -m tests.faults '{"latency": 0.1, "rate": 300}'` runs one until its input ends, then prints as JSON what it did.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from contextlib import suppress
from typing import Any

from aiohttp import web

from tests.fake_server import FakeServer

# Shares of all requests; what is not here goes well. Sums to a quarter.
MIX = {
    "429": 0.03,
    "429 plain": 0.02,
    "500": 0.03,
    "502": 0.02,
    "503": 0.02,
    "stall": 0.005,
    "reset": 0.02,
    "drop": 0.02,
    "torn": 0.02,
    "type": 0.02,
    "html": 0.01,
    "empty": 0.01,
    "refusal": 0.01,
    "twice": 0.01,
    "drip": 0.005,
}


class FaultServer(FakeServer):
    """`mix` gives the share of each fault, `rate` the requests a second that are served, with a quarter of a
    second's worth at once. `latency` is the mean of a gamma distribution (shape 4) in seconds."""

    def __init__(
        self,
        *,
        mix: dict[str, float] | None = None,
        seed: int = 0,
        rate: float | None = None,
        latency: float = 0.0,
        patience: float = 30.0,
    ) -> None:
        super().__init__()
        self.mix, self.seed, self.rate, self.mean, self.patience = mix or {}, seed, rate, latency, patience
        self.times: list[float] = []
        self.tally: Counter[str] = Counter()
        self._sent: Counter[str] = Counter()
        self._level, self._at = (rate or 0) / 4, 0.0

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.times.append(time.monotonic())
        asked = json.dumps(body["messages"]) + str(body["seed"])
        self._sent[asked] += 1
        draw = random.Random(f"{self.seed} {asked} {self._sent[asked]}")
        if not self._allowed():
            self.tally["limited"] += 1
            return web.json_response({"error": {"message": "slow"}}, status=429, headers={"Retry-After": "0.05"})
        names = list(self.mix)
        fault = draw.choices([None, *names], [1 - sum(self.mix.values()), *self.mix.values()])[0]
        self.tally[fault or "good"] += 1
        await asyncio.sleep(draw.gammavariate(4, self.mean / 4) if self.mean else 0)
        return await self._reply(request, body, fault)

    def _allowed(self) -> bool:
        if self.rate is None:
            return True
        now = time.monotonic()
        self._level, self._at = min(self.rate / 4, self._level + (now - self._at) * self.rate), now
        allowed = self._level >= 1
        self._level -= allowed
        return allowed

    async def _reply(self, request: web.Request, body: dict[str, Any], fault: str | None) -> web.StreamResponse:
        good = json.dumps(self._body(body, fault))
        if fault == "502":
            return web.Response(status=502, text="<html>bad gateway</html>", content_type="text/html")
        if fault == "stall":
            await asyncio.sleep(self.patience)
        if fault == "type":
            return web.Response(text=good, content_type="text/plain")
        if fault in ("reset", "drip"):
            stream = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(good))})
            await stream.prepare(request)
            with suppress(ConnectionError):
                await stream.write(good[:20].encode())
                for _ in range(int(self.patience / 0.1) if fault == "drip" else 0):
                    await asyncio.sleep(0.1)
                    await stream.write(b" ")
            if request.transport is not None:
                request.transport.close()
            return stream
        if fault == "twice":
            # The same reply again on the same connection, where the next request may take it for its own.
            raw = good.encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
            assert request.transport is not None
            assert isinstance(request.transport, asyncio.WriteTransport)
            request.transport.write(head.encode() + raw)
            return web.Response(body=raw, content_type="application/json")
        return await super()._reply(request, body, fault)


if __name__ == "__main__":
    with FaultServer(**json.loads(sys.argv[1])) as running:
        print(running.url, flush=True)
        sys.stdin.read()
        print(json.dumps({"tally": running.tally, "times": running.times}), flush=True)
