"""The Batch API of OpenAI's protocol: a file of requests goes up, a file of replies comes down within a day.

https://platform.openai.com/docs/guides/batch and /docs/api-reference/batch. What waits, keeps records and decides is
`lema.completions.batch_api`; here is only what is said to an endpoint, and what its answers mean.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from lema.models.api_errors import MALFORMED, of_exception, of_status
from lema.models.openai import body, client, completion
from lema.models.types import Completion, Fault, Model, Request
from lema.recipe.params import Endpoint

# Of one file: https://platform.openai.com/docs/guides/batch#rate-limits. A file holds requests to one model.
MOST_REQUESTS, MOST_BYTES = 50_000, 200_000_000
OVER = ("completed", "failed", "expired", "cancelled")
# The queue of a model is full; of OpenAI and Azure.
FULL = re.compile(r"token_limit_exceeded|request_limit_exceeded|too_many_tasks|enqueued", re.IGNORECASE)
# A file that was just uploaded is not known everywhere at once.
NOT_YET = re.compile(r"no such file|file.{0,80}(not (found|exist|ready|processed)|being processed)", re.IGNORECASE)
NAME = "lema"  # of the metadata that says whose a batch is


class Trouble(Exception):
    """A call to the endpoint had no success. `status` is that of HTTP, None when there was no answer; `unsure` says
    that the endpoint may have done what it was asked all the same."""

    def __init__(self, fault: Fault, status: int | None, said: str) -> None:
        super().__init__(fault.reason)
        self.fault, self.status = fault, status
        self.full = bool(FULL.search(said)) or status == 413
        self.not_yet = status in (400, 404, 409, 425) and (status == 404 or bool(NOT_YET.search(said)))
        self.unsure = not fault.unsent and (status is None or status == 408 or status >= 500)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as its endpoint describes it. `output` and `errors` are the ids of its files of replies and of failures,
    None when it has none; `done` of `total` requests are answered; `problem` is why it failed as a whole, and `full`
    whether that was because the queue had no room for it."""

    id: str
    status: str
    output: str | None = None
    errors: str | None = None
    done: int = 0
    total: int = 0
    problem: str | None = None
    full: bool = False


class Batches:
    """The batches of one endpoint. Every method raises `Trouble`, and none tries twice."""

    def __init__(self, model: Model, endpoint: Endpoint) -> None:
        self._model, self._endpoint = model, endpoint
        self._client = client(endpoint)

    def upload(self, name: str, file: BinaryIO) -> str:
        """Send a file of requests, and return the id under which the endpoint has it."""
        with self._asked():
            return _text(self._client.files.create(file=(name, file), purpose="batch"), "id")

    def create(self, file: str, path: str, token: str) -> Batch:
        """Have the requests of an uploaded file answered. `path` is that of their API; by the token, any string of up
        to 512 characters, `find` knows the batch again."""
        with self._asked():
            return _batch(
                self._client.batches.create(
                    input_file_id=file,
                    endpoint=path,  # type: ignore[arg-type]
                    completion_window="24h",
                    metadata={NAME: token},
                )
            )

    def look(self, name: str) -> Batch:
        """The batch with this id, as it is now."""
        with self._asked():
            return _batch(self._client.batches.retrieve(name))

    def find(self, token: str, file: str, since: float) -> Batch | None:
        """The batch with this token, or of this file, that was created after `since` (seconds since 1970)."""
        with self._asked():
            # The newest come first.
            for one in self._client.batches.list(limit=100):
                mark = one.metadata.get(NAME) if isinstance(one.metadata, Mapping) else None
                if mark == token or one.input_file_id == file:
                    return _batch(one)
                if isinstance(one.created_at, int | float) and one.created_at < since:
                    return None
        return None

    def lines(self, file: str) -> list[bytes]:
        """The lines of a file of replies."""
        with self._asked():
            # Not `splitlines`: JSON may hold other characters that end a line for Python.
            return [line for line in self._client.files.content(file).content.split(b"\n") if line.strip()]

    def remove(self, file: str) -> None:
        """Delete an uploaded file."""
        with self._asked():
            self._client.files.delete(file)

    def close(self) -> None:
        """Leave the endpoint's connections."""
        self._client.close()

    @contextmanager
    def _asked(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise _trouble(error, self._model, self._endpoint) from error


def _trouble(error: Exception, model: Model, endpoint: Endpoint) -> Trouble:
    """What it means that the client raised: its exceptions hold the response, or come from one of the connection."""
    response = getattr(error, "response", None)
    if response is not None:
        fault = of_status(response.status_code, response.headers, response.content, model, endpoint)
        return Trouble(fault, response.status_code, response.text)
    if isinstance(error, ValueError):  # an answer without what it should have
        return Trouble(MALFORMED, None, "")
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    return Trouble(of_exception(cause, model, endpoint), None, "")


def line(name: str, request: Request, endpoint: Endpoint) -> bytes:
    """The line of a request in a file, which is answered under its `custom_id`."""
    model = request.model
    served = endpoint.models.get(model.name or "", model.name or "")
    options = model.options
    asked = body(request, served, frozenset(options.get("omit") or ()), options.get("extra") or {})
    content = {"custom_id": name, "method": "POST", "url": path_of(model), "body": asked}
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def path_of(model: Model) -> str:
    """The API that a model's requests are for."""
    return "/v1/chat/completions" if model.chat else "/v1/completions"


def custom_id(line: bytes) -> str | None:
    """Whose reply a line is; None for one that cannot be read."""
    try:
        name = json.loads(line)["custom_id"]
    except (ValueError, KeyError, TypeError):
        return None
    return name if isinstance(name, str) else None


def answered(line: bytes) -> bool:
    """Whether a line, whose `custom_id` can be read, is a reply of the model."""
    response = json.loads(line).get("response")
    return isinstance(response, Mapping) and response.get("status_code") == 200


def result(line: bytes, request: Request, endpoint: Endpoint) -> Completion | Fault:
    """What a line, whose `custom_id` can be read, says of its request."""
    said = json.loads(line)
    response = said.get("response")
    if not isinstance(response, Mapping):
        return Fault("retry", f"no reply in the batch ({_code(said.get('error'))})")
    status, answer = response.get("status_code"), response.get("body")
    if status == 200:
        return completion(answer, request) or MALFORMED
    if not isinstance(status, int):
        return MALFORMED
    return of_status(status, {}, json.dumps(answer).encode(), request.model, endpoint)


def _batch(answer: object) -> Batch:
    counts, errors = (getattr(answer, name, None) for name in ("request_counts", "errors"))
    problems = [one if isinstance(one, Mapping) else vars(one) for one in getattr(errors, "data", None) or ()]
    said = " ".join(f"{one.get('code')} {one.get('message')}" for one in problems)
    return Batch(
        _text(answer, "id"),
        _text(answer, "status"),
        # Some servers give empty strings for files that are not there.
        getattr(answer, "output_file_id", None) or None,
        getattr(answer, "error_file_id", None) or None,
        _count(counts, "completed"),
        _count(counts, "total"),
        _code(problems[0]) if problems else None,
        bool(FULL.search(said)),
    )


def _text(answer: object, name: str) -> str:
    value = getattr(answer, name, None)
    if not isinstance(value, str) or not value:
        raise ValueError(f"no {name}")
    return value


def _count(counts: object, name: str) -> int:
    value = getattr(counts, name, None)
    return value if isinstance(value, int) else 0


def _code(error: Any) -> str:
    """The code, parameter and line of an error: its message may quote a prompt."""
    found = [error.get(name) for name in ("code", "param", "line")] if isinstance(error, Mapping) else []
    words = [str(one) for one in found if re.fullmatch(r"[A-Za-z0-9_.\[\]-]{1,64}", str(one)) and one is not None]
    return " ".join(words) or "no reason given"
