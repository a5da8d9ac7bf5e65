"""`openai`: models behind any endpoint that speaks OpenAI's protocol. The `openai` package itself
is imported here only, for the Batch API: single requests are posted by `lema.models.http`.

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
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lema.errors import RunError, allowed
from lema.models.api_errors import MALFORMED, SAMPLING, of_exception, of_status
from lema.models.tokenize import plain_text
from lema.models.types import Completion, EndpointWorker, Fault, Model, Request, cut
from lema.recipe.params import Endpoint, Run
from lema.rows import Finish

if TYPE_CHECKING:
    from openai import OpenAI

    from lema.models.http import HttpClient

STOPS_SENT = 4  # OpenAI refuses more


def openai(
    model: Model,
    run: Run,
    *,
    omit: list[str] | None = None,
    extra: dict[str, Any] | None = None,
) -> EndpointWorker:
    """A worker that asks an endpoint. `omit` names parameters that are not sent, `extra` holds others that are.

    Raises:
        RunError: the model has no name, its endpoint is not in params.yaml, or its key not in the environment.
    """
    if model.name is None:
        raise RunError(f"model {model.label!r} needs the name that its endpoint knows it by")
    if model.endpoint is None or model.endpoint not in run.endpoints:
        raise RunError(
            f"model {model.label!r}: no endpoint {model.endpoint!r}; {allowed(model.endpoint, run.endpoints)}"
        )
    return OpenAIWorker(model, run.endpoints[model.endpoint], frozenset(omit or ()), extra or {})


class OpenAIWorker:
    """One model; connections are shared with the other models of its endpoint."""

    def __init__(self, model: Model, endpoint: Endpoint, omit: frozenset[str], extra: Mapping[str, Any]) -> None:
        self._model, self._endpoint, self._omit, self._extra = model, endpoint, omit, extra
        self._secret = api_key(endpoint)
        self._served = endpoint.models.get(model.name or "", model.name or "")
        self._path = "/chat/completions" if model.chat else "/completions"
        self._client: HttpClient | None = None

    async def attempt(self, request: Request) -> Completion | Fault:
        """One try; raises nothing."""
        content = json.dumps(request_body(request, self._served, self._omit, self._extra)).encode()
        try:
            if self._client is None:
                self._client = _http_client(self._endpoint, self._secret)
            status, headers, answer = await self._client.post(self._path, content)
        except Exception as error:
            return of_exception(error, self._model, self._endpoint)
        if status >= 300:
            return of_status(status, headers, answer, self._model, self._endpoint)
        try:
            return completion_of(json.loads(answer), request) or MALFORMED
        except ValueError:
            return MALFORMED


_http_clients: dict[tuple[asyncio.AbstractEventLoop, str, str, float], "HttpClient"] = {}


def _http_client(endpoint: Endpoint, secret: str) -> "HttpClient":
    """That of this event loop, made at first use and closed when the process ends."""
    loop = asyncio.get_running_loop()
    name = (loop, endpoint.url, secret, endpoint.timeout)
    if name not in _http_clients:
        from lema.models.http import HttpClient

        client = _http_clients[name] = HttpClient(endpoint.url, secret, endpoint.timeout)

        def close() -> None:
            with suppress(Exception):
                asyncio.run_coroutine_threadsafe(client.close(), loop).result(timeout=2)

        atexit.register(close)
    return _http_clients[name]


def api_key(endpoint: Endpoint) -> str:
    """The endpoint's API key, from the environment variable that params.yaml names; "none" where it names none.

    Raises:
        RunError: the variable is not set.
    """
    secret = os.environ.get(endpoint.key, "") if endpoint.key else "none"
    if not secret:
        raise RunError(f"no API key: set the environment variable {endpoint.key}")
    return secret


def batch_api_client(endpoint: Endpoint) -> "OpenAI":
    """The OpenAI client, synchronous and without retries, for the few calls of the Batch API.

    Raises:
        RunError: the endpoint's key is not in the environment.
    """
    from openai import OpenAI

    return OpenAI(base_url=endpoint.url, api_key=api_key(endpoint), max_retries=0, timeout=endpoint.timeout)


def request_body(request: Request, served: str, omit: frozenset[str], extra: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON of a request to the model that the endpoint calls `served`. `seed` differs from path to path; `top_k`,
    which OpenAI does not know, only if set."""
    sampling, content = request.sampling, dict[str, Any](model=served)
    if request.model.chat:
        content["messages"] = [{"role": message.role, "content": message.content} for message in request.messages]
    else:
        content["prompt"] = plain_text(request.messages)
    content |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
    content |= {"max_tokens": sampling.max_tokens, "seed": sampling.seed + request.index}
    if sampling.stop:
        content["stop"] = list(sampling.stop[:STOPS_SENT])
    if sampling.top_k is not None:
        content["top_k"] = sampling.top_k
    for name in omit & SAMPLING:
        content.pop(name, None)
    return {**content, **extra}


def completion_of(answer: object, request: Request) -> Completion | None:
    """A reply as the endpoint sent it, None when it is not one."""
    choice, usage = get_member(get_member(answer, "choices"), 0), get_member(answer, "usage")
    message, reason = get_member(choice, "message"), get_member(choice, "finish_reason")
    text = get_member(message, "content") if request.model.chat else get_member(choice, "text")
    if isinstance(text, list):
        text = "".join([str(get_member(part, "text") or "") for part in text])
    if not isinstance(choice, Mapping) or not isinstance(text, str | None) or (text is None and reason is None):
        return None
    read, written = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    used = read, written, _count(get_member(usage, "prompt_tokens_details"), "cached_tokens")
    if reason == "content_filter" or (text is None and get_member(message, "refusal")):
        return Completion("", "refused", "refused by the model or its content filter", *used)
    text, stopped = cut(text or "", request.sampling.stop) if request.sampling.stop else (text or "", False)
    full = reason == "length" or (reason is None and written >= request.sampling.max_tokens)
    finish: Finish = "length" if full and not stopped else "stop"
    return Completion(text, finish, None, *used)


def _count(usage: object, name: str) -> int:
    found = get_member(usage, name)
    return found if isinstance(found, int) else 0


def get_member(value: object, name: str | int) -> Any:
    """A member of a reply whose shape nobody vouches for; None when there is none."""
    if isinstance(value, Mapping):
        return value.get(name)
    if isinstance(value, list) and isinstance(name, int) and name < len(value):
        return value[name]
    return None
