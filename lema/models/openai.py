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
import email.utils
import os
import random
import re
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from lema.errors import RunError, allowed
from lema.models import Completion, Model, Request, Worker, cut
from lema.models._text import plain
from lema.params import Endpoint, Run
from lema.rows import Finish

if TYPE_CHECKING:
    from openai import OpenAI

Result = TypeVar("Result")

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0  # seconds between tries, doubled each time
STOPS_SENT = 4  # OpenAI refuses more
TOO_LONG = re.compile(r"context.{0,20}(length|window)|maximum.{0,20}tokens|too (long|many tokens)", re.IGNORECASE)
FILTERED = re.compile(r"content.?(filter|policy|management)|ResponsibleAI|moderation|flagged", re.IGNORECASE)
NOT_TAKEN = ("unsupported_parameter", "unknown_parameter", "unsupported_value")


def openai(
    model: Model,
    run: Run,
    *,
    omit: list[str] | None = None,
    extra: dict[str, Any] | None = None,
) -> Worker:
    """A worker that asks an endpoint, as many requests at once as params.yaml allows it.

    `omit` names parameters that are not sent, `extra` holds others that are. Faults that pass (rate limits, server
    errors, timeouts, lost connections) are tried again; a rate limit pauses the whole endpoint.

    Raises:
        RunError: the model has no name, its endpoint is not in params.yaml, or its key not in the environment.
    """
    return _Asker(model, run, frozenset(omit or ()), extra or {})


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a request has no reply, and what follows: `retry` it, wait for the rate `limit`, let this `row` fail,
    record that it was `refused`, or `stop`, because every request will fail the same way."""

    what: Literal["retry", "limit", "row", "refused", "stop"]
    reason: str
    wait: float | None = None


class _Asker:
    """Thread-safe; the loop and the connections of an endpoint are shared by all models that it serves."""

    concurrent = True

    def __init__(self, model: Model, run: Run, omit: frozenset[str], extra: Mapping[str, Any]) -> None:
        if model.name is None:
            raise RunError(f"model {model.label!r} needs the name that its endpoint knows it by")
        if model.endpoint is None or model.endpoint not in run.endpoints:
            raise RunError(
                f"model {model.label!r}: no endpoint {model.endpoint!r}; {allowed(model.endpoint, run.endpoints)}"
            )
        self._endpoint = run.endpoints[model.endpoint]
        secret = os.environ.get(self._endpoint.key, "") if self._endpoint.key else "none"
        if not secret:
            raise RunError(f"no API key: set the environment variable {self._endpoint.key}")
        self._model, self._omit, self._extra = model, omit, extra
        self._served = self._endpoint.models.get(model.name, model.name)
        self._line = _line(self._endpoint.url, secret, self._endpoint.concurrency, self._endpoint.timeout)
        self.fatal: str | None = None

    def __call__(self, requests: Sequence[Request], /) -> list[Completion]:
        return self._line.run(self._all(requests))

    async def _all(self, requests: Sequence[Request]) -> list[Completion]:
        return list(await asyncio.gather(*(self._one(request) for request in requests)))

    async def _one(self, request: Request) -> Completion:
        path = "/chat/completions" if self._model.chat else "/completions"
        content = body(request, self._served, self._omit, self._extra)
        tries, start = 0, time.monotonic()
        while self.fatal is None:
            try:
                async with self._line.slot():
                    if self.fatal is not None:
                        break
                    answer = await self._line.client.post(path, cast_to=object, body=content)
                reply = completion(answer, request)
                if reply is not None:
                    return reply
                fault = Fault("retry", "malformed reply")
            except Exception as error:
                fault = diagnose(error, self._model, self._endpoint)
            if fault.what == "stop":
                self.fatal = fault.reason
                break
            if fault.what == "refused":
                return Completion("", "refused", fault.reason)
            wait = min(FIRST_WAIT * 2 ** min(tries, 10), LONGEST_WAIT) * random.uniform(0.5, 1.5)
            wait = wait if fault.wait is None else fault.wait
            if fault.what == "limit" and time.monotonic() - start + wait <= self._endpoint.timeout:
                # Not the request's fault: it is waited for as long as one request may take.
                self._line.pause(wait)
            elif fault.what == "retry" and tries < self._endpoint.retries:
                await asyncio.sleep(wait)
            else:
                return Completion("", "failed", fault.reason)
            tries += 1
        return Completion("", "failed", self.fatal)


class _Line:
    """The way to one endpoint: an event loop in a thread, one client, and a limit to what is under way."""

    def __init__(self, url: str, secret: str, concurrency: int, timeout: float) -> None:
        from openai import AsyncOpenAI, DefaultAioHttpClient

        self._loop = asyncio.new_event_loop()
        self._free = asyncio.Semaphore(concurrency)
        self._paused_until = 0.0
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

        async def connect() -> AsyncOpenAI:
            # Retries are ours: they must know of the other requests of this endpoint.
            return AsyncOpenAI(
                base_url=url,
                api_key=secret,
                max_retries=0,
                timeout=timeout,
                http_client=DefaultAioHttpClient(timeout=timeout),
            )

        self.client = self.run(connect())
        atexit.register(self.close)

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        with suppress(Exception):
            asyncio.run_coroutine_threadsafe(self.client.close(), self._loop).result(timeout=2)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        async with self._free:
            while (wait := self._paused_until - time.monotonic()) > 0:
                # Not all at the same instant.
                await asyncio.sleep(wait * random.uniform(1, 1.1))
            yield

    def pause(self, seconds: float) -> None:
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)


@cache
def _line(url: str, secret: str, concurrency: int, timeout: float) -> _Line:
    return _Line(url, secret, concurrency, timeout)


def body(request: Request, served: str, omit: frozenset[str], extra: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON of a request to the model that the endpoint calls `served`. `seed` differs from path to path; `top_k`,
    which OpenAI does not know, only if set."""
    messages, sampling = request.messages, request.sampling
    if request.model.chat:
        said: dict[str, Any] = {"messages": [{"role": one.role, "content": one.content} for one in messages]}
    else:
        said = {"prompt": plain(messages)}
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
    counts = [_get(_get(answer, "usage"), name) for name in ("prompt_tokens", "completion_tokens")]
    prompt, written = (count if isinstance(count, int) else 0 for count in counts)
    if not isinstance(choice, Mapping) or not isinstance(text, str | None) or (text is None and reason is None):
        return None
    if reason == "content_filter" or (text is None and _get(message, "refusal")):
        return Completion("", "refused", "refused by the model or its content filter", prompt, written)
    kept, stopped = cut(text or "", request.sampling.stop)
    full = reason == "length" or (reason is None and written >= request.sampling.max_tokens)
    finish: Finish = "length" if full and not stopped else "stop"
    return Completion(kept, finish, None, prompt, written)


def _get(value: object, name: str | int) -> Any:
    """A member of a reply whose shape nobody vouches for."""
    if isinstance(value, Mapping):
        return value.get(name)
    if isinstance(value, list) and isinstance(name, int) and name < len(value):
        return value[name]
    return None


def diagnose(error: Exception, model: Model, endpoint: Endpoint) -> Fault:
    """What an exception of the client means. What a server says may quote the prompt or the key, so only its codes
    are passed on."""
    from openai import APIConnectionError, APIStatusError

    where = f"endpoint {model.endpoint}"
    if isinstance(error, APIConnectionError):
        return Fault("retry", f"{where} was not reached, or gave no reply within {endpoint.timeout:g} s")
    if not isinstance(error, APIStatusError):
        known = isinstance(error, ValueError)  # JSON that is none
        return Fault("retry", "malformed reply") if known else Fault("row", type(error).__name__)
    status = error.status_code
    said = " ".join(str(part) for part in (error.code, error.type, error.message))
    code = f"{status} {_plain(error.code or error.type)}".strip()
    if status == 401:
        return Fault("stop", f"{where} refuses the key in {endpoint.key}" if endpoint.key else f"{where} wants a key")
    if FILTERED.search(said) and status in (400, 403, 422):
        return Fault("refused", f"refused by the content filter ({code})")
    if status == 402 or (status == 429 and "insufficient_quota" in said):
        return Fault("stop", f"no credit left at {where} ({code})")
    if status == 403:
        return Fault("stop", f"{where} forbids model {model.name} ({code})")
    if status == 404:
        return Fault("stop", f"{where} knows no model {model.name}, or its url is wrong ({code})")
    if status == 429:
        return Fault("limit", f"rate limit ({code})", retry_after(error.response.headers))
    if status in (408, 409, 425) or status >= 500:
        return Fault("retry", f"server error ({code})", retry_after(error.response.headers))
    if TOO_LONG.search(said):
        return Fault("row", f"the prompt is too long for the model ({code})")
    if error.code in NOT_TAKEN:
        parameter = _plain(error.param)
        return Fault("stop", f"{where} does not take {parameter} ({code}); the option omit leaves parameters out")
    return Fault("row", f"bad request ({code})")


def _plain(code: object) -> str:
    """A code as it is if it can only be a code."""
    return str(code) if re.fullmatch(r"[A-Za-z0-9_.\[\]-]{1,64}", str(code)) and code is not None else ""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, as seconds or a date; None when it does not say."""
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        elif (value := headers.get("retry-after", "")).replace(".", "", 1).isdigit():
            seconds = float(value)
        else:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError):
        return None
    return max(seconds, 0.0) if seconds < 86_400 else None


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


def rejection(status: int, answer: object) -> Exception:
    """The exception that the client raises for an answer with this status, as `diagnose` reads it: batches carry such
    answers in their files."""
    from openai import APIStatusError

    said = answer.get("error", answer) if isinstance(answer, Mapping) else answer
    response: Any = SimpleNamespace(status_code=status, headers={}, request=None)
    return APIStatusError(f"{status} {said}", response=response, body=said)
