"""An endpoint that speaks OpenAI's protocol over a real socket, with faults on demand and a log of all requests.

    with FakeServer() as server:
        server.faults = ["429", "drop"]      # for the next requests, in turn; then it behaves
        ... server.url ...
        assert len(server.requests) == 3

Replies depend on the request alone: "reply to <last 40 characters> #<seed>", or what `server.answer` returns.
Needs aiohttp only; run it with `python tests/fake_server.py [port]` to have one to play with.
"""

import asyncio
import sys
import threading
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from aiohttp import web

Answer = Callable[[dict[str, Any]], str]

ERRORS: dict[str, tuple[int, dict[str, Any], dict[str, str]]] = {
    "429": (429, {"code": "rate_limit_exceeded", "message": "slow down"}, {"Retry-After": "0.05"}),
    "429 later": (429, {"code": "rate_limit_exceeded", "message": "slow down"}, {"Retry-After": "0.4"}),
    "429 now": (429, {"code": "rate_limit_exceeded", "message": "slow down"}, {"Retry-After": "0"}),
    "429 plain": (429, {"code": "rate_limit_exceeded", "message": "slow down"}, {}),
    "quota": (429, {"code": "insufficient_quota", "message": "you exceeded your quota"}, {}),
    "500": (500, {"message": "oops"}, {}),
    "503": (503, {"message": "loading"}, {}),
    "503 later": (503, {"message": "loading"}, {"Retry-After": "0.4"}),
    "503 long": (503, {"message": "loading"}, {"Retry-After": "3"}),
    "429 tomorrow": (429, {"code": "rate_limit_exceeded", "message": "slow down"}, {"Retry-After": "86400"}),
    "401": (401, {"code": "invalid_api_key", "message": "Incorrect API key provided: sk-SECRET"}, {}),
    "403": (403, {"message": "not for you"}, {}),
    "404": (404, {"code": "model_not_found", "message": "no such model"}, {}),
    "400": (400, {"code": "weird", "message": "the prompt was: PROMPT TEXT"}, {}),
    "unsupported": (400, {"code": "unsupported_parameter", "param": "seed", "message": "Unsupported: 'seed'"}, {}),
    "long": (400, {"message": "This model's maximum context length is 10 tokens"}, {}),
    "filter": (400, {"code": "content_filter", "message": "PROMPT TEXT triggered a policy"}, {}),
}


def echo(body: dict[str, Any]) -> str:
    asked = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
    return f"reply to {asked[-40:]} #{body.get('seed')}"


class FakeServer:
    """Runs in a thread of its own while its `with` block does; `latency` in seconds."""

    def __init__(self, *, answer: Answer = echo, latency: float = 0.0, port: int = 0) -> None:
        self.answer, self.latency, self.port = answer, latency, port
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.faults: list[str] = []
        self.always: str | None = None
        self.most = self._now = 0
        self.concurrent: list[int] = []  # requests under way when each came, itself among them
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _start(self) -> None:
        application = web.Application()
        application.router.add_post("/v1/chat/completions", self._handle)
        application.router.add_post("/v1/completions", self._handle)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        fault = self.faults.pop(0) if self.faults else self.always
        self._now += 1
        self.most = max(self.most, self._now)
        self.concurrent.append(self._now)
        try:
            await asyncio.sleep(self.latency)
            return await self._reply(request, body, fault)
        finally:
            self._now -= 1

    async def _reply(self, request: web.Request, body: dict[str, Any], fault: str | None) -> web.StreamResponse:
        if fault in ERRORS:
            status, error, headers = ERRORS[fault]
            return web.json_response({"error": error}, status=status, headers=headers)
        if fault == "drop":
            assert request.transport is not None
            request.transport.close()
        if fault == "slow":
            await asyncio.sleep(1.5)
        if fault == "html":
            return web.Response(text="<html>proxy</html>", content_type="text/html")
        if fault == "torn":
            return web.Response(text='{"choices": [{"mess', content_type="application/json")
        if fault == "empty":
            return web.json_response({"choices": []})
        return web.json_response(self._body(body, fault))

    def _body(self, body: dict[str, Any], fault: str | None) -> dict[str, Any]:
        text, reason = self.answer(body), "stop"
        if fault == "length":
            reason = "length"
        if fault == "refusal":
            reason = "content_filter"
        content = {"message": {"role": "assistant", "content": text}} if "messages" in body else {"text": text}
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "model": body["model"],
            "choices": [{"index": 0, "finish_reason": reason, **content}],
            "usage": {"prompt_tokens": 11, "completion_tokens": len(text.split()), "total_tokens": 0},
        }


if __name__ == "__main__":
    with FakeServer(port=int(sys.argv[1]) if len(sys.argv) > 1 else 0) as running:
        print(running.url, flush=True)
        threading.Event().wait()
