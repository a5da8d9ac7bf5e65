"""Requests, completions, and what a backend is: the contract between the pipeline and every model.

A backend is a function `backend(model, run, *, options...) -> Worker` in a file named after it: `lema/models/openai.py`
defines `openai`, and a recipe says `backend: openai`, or `backend: my_pkg.my_mod:my_backend`. What decides a reply is
in the request's key (`lema.completions.store`); addresses, API keys and rates come from `run` and never are.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from lema.rows import Finish, Message, row_class


@dataclass(frozen=True, slots=True)
class Model:
    """A model as the pipeline calls it.

    `identity` goes into the key of every completion: backend, name and revision, or the hash of local weights;
    never a path or an address. `name` is what an endpoint or hub calls the model. `folder` and `adapter` are
    where local weights lie. `chat` is False for models that continue plain text.
    """

    label: str
    backend: str
    identity: str
    name: str | None = None
    revision: str | None = None
    endpoint: str | None = None
    chat: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    folder: str | None = None
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters; temperature 0 is greedy. `stop` strings end a reply and are cut from it by us,
    whether or not the server honoured them."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    seed: int = 0


# Raised when what is in the key changes: old completions are then not found, and never mistaken for new ones.
KEY_SCHEME = 1


@row_class
class Request:
    """One request for one completion; `index` tells apart the paths that share everything else. `prompt`, the SHA-256
    of the prompt that the messages were made of, is for the ledger.

    `key` is the name of the request in the completion store: SHA-256 of what decides its reply, and of nothing else;
    the table of what is in it and what is not, with the reasons, is in docs/completions.md."""

    model: Model
    messages: tuple[Message, ...]
    sampling: Sampling
    index: int = 0
    prompt: str = field(default="", compare=False)
    key: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        before, after = _around_index(self.model, tuple(self.messages), self.sampling)
        text = f'{before}{self.index}{after}, "scheme": {KEY_SCHEME}}}'
        object.__setattr__(self, "key", hashlib.sha256(text.encode()).hexdigest())

    @property
    def characters(self) -> int:
        """The length of its messages, from which its tokens are estimated."""
        return sum(map(len, map(_content, self.messages)))


# Made once: `json.dumps` would make one a call.
_encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode
_content, _turn = attrgetter("content"), attrgetter("role", "content")
_latest: tuple[Any, ...] = (None,) * 5


def _around_index(model: Model, messages: tuple[Message, ...], sampling: Sampling) -> tuple[str, str]:
    """A JSON object with sorted names, without its last: what stands before the index and after it. Memoized for one
    prompt: the paths of a question come in a row and share these very objects."""
    global _latest
    known = _latest
    if known[0] is not model or known[1] is not messages or known[2] is not sampling:
        chat, rest = _sampling_json(model.chat, model.identity, sampling, sampling.temperature, sampling.top_p)
        turns = _encode(list(map(_turn, messages)))
        _latest = known = (model, messages, sampling, f'{chat}, "index": ', f', "messages": {turns}, {rest}')
    return known[3], known[4]


# Of 0 and 0.0, which are equal and not the same JSON, each has its own.
@lru_cache(maxsize=64, typed=True)
def _sampling_json(
    chat: bool, identity: str, sampling: Sampling, _temperature: float, _top_p: float
) -> tuple[str, str]:
    parts = {"model": identity, "sampling": {name: getattr(sampling, name) for name in Sampling.__slots__}}
    return _encode({"chat": chat})[:-1], _encode(parts)[1:-1]


@row_class
class Completion:
    """One reply, or the record of a failure: `finish` is "failed" or "refused" and `error` says why in one line
    that holds no API key or prompt text. Of the `prompt_tokens`, `cached_tokens` were in the endpoint's cache and cost
    less.

    Of how it came, which the store does not keep: `lost` tries were sent and brought no reply, though they may have
    been billed; without `sent`, nothing has reached the endpoint, so nothing was billed; `fatal`: every further request
    to this model would fail the same way, so the stage stops when this one is kept."""

    text: str
    finish: Finish
    error: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    lost: int = field(default=0, compare=False, kw_only=True)
    sent: bool = field(default=True, compare=False, kw_only=True)
    fatal: bool = field(default=False, compare=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why one try at an endpoint brought no reply, and what follows: `retry` it, wait for the rate `limit`, let this
    `row` fail, record that it was `refused`, or `stop`, because every request will fail the same way.

    `wait`: for how many seconds the endpoint asks. `proof`: API key, model and credit are in order. `overload`: fewer
    requests at once may help. `unsent`: nothing has reached the endpoint. `lost`: it may have billed what never came.
    """

    what: Literal["retry", "limit", "row", "refused", "stop"]
    reason: str
    wait: float | None = None
    proof: bool = False
    overload: bool = False
    unsent: bool = False
    lost: bool = False


class Worker(Protocol):
    """Answers requests to one model, in order, one completion each; never raises for a single bad request. Any plain
    function will do. It is called from one thread at a time; of a model behind an endpoint it may be a coroutine
    function (`async def`), which is called for many requests at once."""

    def __call__(self, requests: Sequence[Request], /) -> list[Completion] | Awaitable[list[Completion]]: ...


@runtime_checkable
class EndpointWorker(Protocol):
    """Asks one model behind an endpoint, once; limits and retries are kept by the client of the endpoint
    (`lema.completions.client`), which calls it for many requests at once."""

    async def attempt(self, request: Request, /) -> Completion | Fault:
        """A reply, or why there is none; raises nothing."""
        ...


CPU_BOUND: set[Any] = set()
BackendFunction = TypeVar("BackendFunction", bound=Callable[..., Any])


def cpu_bound(backend: BackendFunction) -> BackendFunction:
    """Declare that a backend is Python code that computes and holds no weights: its requests are spread over all
    processors, whatever `run.workers` says of models in memory."""
    CPU_BOUND.add(backend)
    return backend


def cut(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """Cut a text before the first of the stop strings; also tells whether one was there."""
    ends = [at for at in (text.find(mark) for mark in stop) if at >= 0]
    return (text[: min(ends)], True) if ends else (text, False)
