"""`openai`: models behind any endpoint that speaks OpenAI's protocol. The only module that imports openai.

    models:
      strong:
        backend: openai
        name: gpt-4.1-mini-2025-04-14
        endpoint: openai            # its url, key, concurrency...: params.yaml, run.endpoints
        options:
          omit: [seed]              # parameters that this endpoint refuses
          extra: {reasoning_effort: low}   # parameters of its own

One request is one path: `n` is never sent. Stop strings are cut here too, since not every server honours them.
"""

import asyncio
import atexit
import json
import os
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from lema.errors import RunError, allowed
from lema.models.api_errors import MALFORMED, Fault, of_exception, of_status
from lema.models.endpoint import Line, Post, line
from lema.models.tokenize import plain_text
from lema.models.types import Completion, Model, Request, Worker, cut
from lema.recipe.params import Endpoint, Run
from lema.rows import Finish

if TYPE_CHECKING:
    from openai import OpenAI

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0  # seconds between tries, doubled each time
KNOCKS = 3  # more tries at an endpoint that nobody has reached yet: a server that starts is there within seconds
STOPS_SENT = 4  # OpenAI refuses more


def openai(
    model: Model,
    run: Run,
    *,
    omit: list[str] | None = None,
    extra: dict[str, Any] | None = None,
) -> Worker:
    """A worker that asks an endpoint, as many requests at once as params.yaml allows it.

    `omit` names parameters that are not sent, `extra` holds others that are. Faults that pass (rate limits, server
    errors, timeouts, lost connections) are tried again; a pause that the endpoint asks for holds for all its models.
    With a budget, what may have been billed without a reply is handed back instead: whoever keeps the budget tries it.

    Raises:
        RunError: the model has no name, its endpoint is not in params.yaml, or its key not in the environment.
    """
    return _Asker(model, run, frozenset(omit or ()), extra or {})


class _Asker:
    """One model; the connections, limits and pauses of its endpoint are shared by all models that it serves."""

    def __init__(self, model: Model, run: Run, omit: frozenset[str], extra: Mapping[str, Any]) -> None:
        if model.name is None:
            raise RunError(f"model {model.label!r} needs the name that its endpoint knows it by")
        if model.endpoint is None or model.endpoint not in run.endpoints:
            raise RunError(
                f"model {model.label!r}: no endpoint {model.endpoint!r}; {allowed(model.endpoint, run.endpoints)}"
            )
        self._endpoint = run.endpoints[model.endpoint]
        self._secret = os.environ.get(self._endpoint.key, "") if self._endpoint.key else "none"
        if not self._secret:
            raise RunError(f"no API key: set the environment variable {self._endpoint.key}")
        self._model, self._omit, self._extra = model, omit, extra
        self._served = self._endpoint.models.get(model.name, model.name)
        self._careful = run.budget.given
        self._path = "/chat/completions" if model.chat else "/completions"
        self._line: Line | None = None
        self.fatal: str | None = None

    @property
    def room(self) -> int:
        """Requests worth holding here; see `lema.models.types.Worker`."""
        return self._line.room() if self._line else 1

    @property
    def paused(self) -> float:
        """Until when nothing may go, as the endpoint said; see `lema.models.types.Worker`."""
        return self._line.pace.paused_until if self._line else 0.0

    def pause(self, until: float) -> None:
        """Until then nothing goes: another process was told so."""
        if self._line:
            self._line.pace.pause_until(until)

    async def __call__(self, requests: Sequence[Request], /) -> list[Completion]:
        if self._line is None:
            self._line = line(self._endpoint, self._secret, self._connect)
        if len(requests) == 1:
            return [await self._one(requests[0], self._line)]
        return list(await asyncio.gather(*(self._one(request, self._line) for request in requests)))

    def _connect(self) -> Post:
        return connect(self._endpoint, self._secret)

    async def _one(self, request: Request, way: Line) -> Completion:
        """The first request to a model goes alone: a wrong key, an unknown model or an empty account costs one."""
        if self._served not in way.proved and self.fatal is None:
            async with way.canary(self._served):
                if self._served not in way.proved and self.fatal is None:
                    return await self._ask(request, way)
        return await self._ask(request, way)

    async def _ask(self, request: Request, way: Line) -> Completion:
        content = json.dumps(body(request, self._served, self._omit, self._extra)).encode()
        tries, limits, limited = 0, 0, 0.0
        lost, sent = 0, False
        while self.fatal is None:
            outcome = await self._try(request, content, way)
            if isinstance(outcome, Completion):
                return replace(outcome, lost=lost)
            lost, sent = lost + outcome.lost, sent or not outcome.unsent
            nobody = outcome.unsent and not way.proved and tries >= min(KNOCKS, self._endpoint.retries)
            if outcome.what == "stop" or way.dead is not None or nobody:
                self.fatal = self.fatal or way.dead or outcome.reason
                break
            if outcome.what == "refused":
                return Completion("", "refused", outcome.reason, lost=lost)
            if outcome.what == "limit":
                # Not the request's fault: waited for as long as one request may take.
                limited = limited or time.monotonic()
                again = time.monotonic() - limited <= self._endpoint.timeout
            else:
                again = outcome.what == "retry" and tries < self._endpoint.retries
            if not again:
                return Completion("", "failed", outcome.reason, lost=lost, sent=sent)
            tries, limits = tries + (outcome.what == "retry"), limits + (outcome.what == "limit")
            handed = outcome.lost and self._careful
            # A server that asks for no pause at all is not asked again at once.
            if not outcome.wait:
                step = min(way.faults, 6) if handed else tries + limits
                wait = min(FIRST_WAIT * 2 ** min(step - 1, 10), LONGEST_WAIT)
                await asyncio.sleep(wait * random.uniform(0.5, 1.5))
            if handed:
                return Completion("", "failed", outcome.reason, lost=lost)
        return Completion("", "failed", self.fatal, lost=lost, sent=sent)

    async def _try(self, request: Request, content: bytes, way: Line) -> Completion | Fault:
        characters, most = sum(len(one.content) for one in request.messages), request.sampling.max_tokens
        async with way.slot(characters, most) as ticket:
            if self.fatal is not None or way.dead is not None:
                self.fatal = self.fatal or way.dead
                way.pace.failed(ticket, overload=False)
                return Fault("stop", self.fatal or "", unsent=True)
            outcome = await self._exchange(request, content, way)
            if isinstance(outcome, Completion):
                way.pace.replied(ticket, outcome.prompt_tokens, outcome.completion_tokens)
                way.alive()
            else:
                way.pace.failed(ticket, overload=outcome.overload)
                way.note(outcome, f"endpoint {self._model.endpoint}")
            if isinstance(outcome, Completion) or outcome.proof:
                way.proved.add(self._served)
            return outcome

    async def _exchange(self, request: Request, content: bytes, way: Line) -> Completion | Fault:
        try:
            # In all: a timeout between two bytes never ends a reply that drips.
            async with asyncio.timeout(self._endpoint.timeout):
                status, headers, said = await way.post(self._path, content)
        except Exception as error:
            return of_exception(error, self._model, self._endpoint)
        if status >= 300:
            return of_status(status, headers, said, self._model, self._endpoint)
        try:
            return completion(json.loads(said), request) or MALFORMED
        except ValueError:
            return MALFORMED


def connect(endpoint: Endpoint, secret: str) -> Post:
    """How requests are posted to an endpoint: with the OpenAI client's connections, headers and address. Its typed
    methods take three times the processor's time, and its retries know nothing of other requests."""
    from openai import AsyncOpenAI, DefaultAioHttpClient

    from lema.models.connector import Delivered, session
    from lema.models.connector import close as close_connection

    loop, http = asyncio.get_running_loop(), DefaultAioHttpClient(timeout=endpoint.timeout)
    transport: Any = http._transport
    transport.client = partial(session, transport.ssl_context)
    client = AsyncOpenAI(base_url=endpoint.url, api_key=secret, max_retries=0, http_client=http)
    known = {**client.default_headers, **client.auth_headers}
    # Less what the client says of this machine, of which every line costs time.
    headers = {
        name: value
        for name, value in known.items()
        if isinstance(value, str) and not name.lower().startswith("x-stainless")
    }
    url, delivered = str(client.base_url).rstrip("/"), Delivered()

    def close() -> None:
        with suppress(Exception):
            asyncio.run_coroutine_threadsafe(client.close(), loop).result(timeout=2)

    async def post(path: str, content: bytes) -> tuple[int, Mapping[str, str], bytes]:
        reply = await http.post(url + path, content=content, headers=headers)
        if reply.is_success:
            delivered.check(reply.content)
        else:
            # An error has no id by which a second copy could be known.
            close_connection()
        return reply.status_code, reply.headers, reply.content

    atexit.register(close)
    return post


def client(endpoint: Endpoint) -> "OpenAI":
    """A client that waits for each answer and tries nothing twice, for what is said to an endpoint now and then.

    Raises:
        RunError: the endpoint's key is not in the environment.
    """
    from openai import OpenAI

    secret = os.environ.get(endpoint.key, "") if endpoint.key else "none"
    if not secret:
        raise RunError(f"no API key: set the environment variable {endpoint.key}")
    return OpenAI(base_url=endpoint.url, api_key=secret, max_retries=0, timeout=endpoint.timeout)


def body(request: Request, served: str, omit: frozenset[str], extra: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON of a request to the model that the endpoint calls `served`. `seed` differs from path to path; `top_k`,
    which OpenAI does not know, only if set."""
    messages, sampling = request.messages, request.sampling
    if request.model.chat:
        said: dict[str, Any] = {"messages": [{"role": one.role, "content": one.content} for one in messages]}
    else:
        said = {"prompt": plain_text(messages)}
    asked: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "seed": sampling.seed + request.index,
    }
    if sampling.stop:
        asked["stop"] = list(sampling.stop[:STOPS_SENT])
    if sampling.top_k is not None:
        asked["top_k"] = sampling.top_k
    sent = {name: value for name, value in asked.items() if name not in omit}
    return {"model": served, **said, **sent, **extra}


def completion(answer: object, request: Request) -> Completion | None:
    """A reply as the endpoint sent it, None when it is not one."""
    choice = _get(_get(answer, "choices"), 0)
    message = _get(choice, "message")
    text = _get(message, "content") if request.model.chat else _get(choice, "text")
    if isinstance(text, list):
        text = "".join(str(_get(part, "text") or "") for part in text)
    reason = _get(choice, "finish_reason")
    usage = _get(answer, "usage")
    counts = [_get(usage, name) for name in ("prompt_tokens", "completion_tokens")]
    counts.append(_get(_get(usage, "prompt_tokens_details"), "cached_tokens"))
    used = [count if isinstance(count, int) else 0 for count in counts]
    if not isinstance(choice, Mapping) or not isinstance(text, str | None) or (text is None and reason is None):
        return None
    if reason == "content_filter" or (text is None and _get(message, "refusal")):
        return Completion("", "refused", "refused by the model or its content filter", *used)
    kept, stopped = cut(text or "", request.sampling.stop)
    full = reason == "length" or (reason is None and used[1] >= request.sampling.max_tokens)
    finish: Finish = "length" if full and not stopped else "stop"
    return Completion(kept, finish, None, *used)


def _get(value: object, name: str | int) -> Any:
    """A member of a reply whose shape nobody vouches for."""
    if isinstance(value, Mapping):
        return value.get(name)
    if isinstance(value, list) and isinstance(name, int) and name < len(value):
        return value[name]
    return None
