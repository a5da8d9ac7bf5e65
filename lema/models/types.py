"""Model backends: how a request becomes a completion. One file each, named after its function.

`lema/models/openai.py` defines `openai(model, run, *, options...) -> Worker`; a recipe says `backend: openai`,
or `backend: my_pkg.my_mod:my_backend`. What decides a reply is in the request's key (`lema.completions.store`);
addresses, keys and rates come from `run` and never are.
"""

import hashlib
import json
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

from lema.recipe.params import Run
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


@row_class
class Request:
    """One request for one completion; `index` tells apart the paths that share everything else. `prompt`, the SHA-256
    of the prompt that the messages were made of, is for the ledger: it is not in the `key`, which is made with it."""

    model: Model
    messages: tuple[Message, ...]
    sampling: Sampling
    index: int = 0
    prompt: str = field(default="", compare=False)
    key: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", _key(self))


# Raised when what is in the key changes: old completions are then not found, and never mistaken for new ones.
KEY_SCHEME = 1


# Made once: `json.dumps` would make one a call.
_encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode


def key(request: Request) -> str:
    """The name of a request in the completion store: SHA-256 of what decides its reply, and of nothing else; the table
    of what is in it and what is not, with the reasons, is in docs/completions.md."""
    return request.key


def _key(request: Request) -> str:
    before, after = _around(request.model, tuple(request.messages), request.sampling)
    return hashlib.sha256(f'{before}{request.index}{after}, "scheme": {KEY_SCHEME}}}'.encode()).hexdigest()


_latest: tuple[Any, ...] = (None,) * 5


def _around(model: Model, messages: tuple[Message, ...], how: Sampling) -> tuple[str, str]:
    """A JSON object with sorted names, without its last: what stands before the index and after it. The paths of a
    question come in a row and share these very objects, so they are not made again."""
    global _latest
    known = _latest
    if known[0] is not model or known[1] is not messages or known[2] is not how:
        chat, rest = _how(model.chat, model.identity, how, how.temperature, how.top_p)
        said = _encode([[message.role, message.content] for message in messages])
        _latest = known = (model, messages, how, f'{chat}, "index": ', f', "messages": {said}, {rest}')
    return known[3], known[4]


# Of 0 and 0.0, which are equal and not the same JSON, each has its own.
@lru_cache(maxsize=64, typed=True)
def _how(chat: bool, identity: str, sampling: Sampling, _temperature: float, _top_p: float) -> tuple[str, str]:
    parts = {"model": identity, "sampling": {name: getattr(sampling, name) for name in Sampling.__slots__}}
    return _encode({"chat": chat})[:-1], _encode(parts)[1:-1]


@row_class
class Completion:
    """One reply, or the record of a failure: `finish` is "failed" or "refused" and `error` says why in one line
    that holds no key or prompt text. Of the `prompt_tokens`, `cached_tokens` were in the endpoint's cache and cost
    less.

    Of how it came, which the store does not keep: `lost` tries were sent and brought no reply, though they may have
    been billed; without `sent`, nothing has reached the endpoint, so nothing was billed."""

    text: str
    finish: Finish
    error: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    lost: int = field(default=0, compare=False, kw_only=True)
    sent: bool = field(default=True, compare=False, kw_only=True)


class Worker(Protocol):
    """Answers a block of requests for one model, in order, one completion each; never raises for a single bad
    request. One that waits for an endpoint rather than computes may be a coroutine function (`async def`, or with an
    `async def __call__`), called for many blocks at once. Any other is called from one thread at a time unless it has
    `concurrent = True`.

    It may have `fatal: str | None`: why every further request would fail the same way; the block is kept, then the
    stage stops. It may have `room: int`: how many requests are worth holding here at once, which may change. And where
    several processes ask one endpoint, `paused: float` and `pause(until)`: until when (`time.monotonic`) the endpoint
    has asked for quiet, and a way to be told so.
    """

    def __call__(self, requests: Sequence[Request], /) -> list[Completion] | Awaitable[list[Completion]]: ...


class Backend(Protocol):
    """Builds a worker once per process; heavy imports belong inside."""

    def __call__(self, model: Model, run: Run, /) -> Worker: ...


def cut(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """Cut a text before the first of the stop strings; also tells whether one was there."""
    ends = [at for at in (text.find(mark) for mark in stop) if at >= 0]
    return (text[: min(ends)], True) if ends else (text, False)
