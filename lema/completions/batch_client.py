"""The Batch API of OpenAI's protocol: a file of requests goes up, a file of replies comes down within a day.

https://platform.openai.com/docs/guides/batch and /docs/api-reference/batch. Here are single calls to an endpoint and
the format of both files; `lema.completions.batch_api` decides what is sent, and when.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

from lema.models.api_errors import MALFORMED, code_of, of_exception, of_status
from lema.models.openai import batch_api_client, completion_of, request_body
from lema.models.types import Completion, Fault, Model, Request
from lema.recipe.params import Endpoint

# Of one file: https://platform.openai.com/docs/guides/batch#rate-limits. A file holds requests to one model.
MAX_REQUESTS, MAX_BYTES = 50_000, 200_000_000
FINISHED = ("completed", "failed", "expired", "cancelled")
# The queue of a model is full; of OpenAI and Azure.
QUEUE_FULL = re.compile(r"token_limit_exceeded|request_limit_exceeded|too_many_tasks|enqueued", re.IGNORECASE)
# A file that was just uploaded is not known everywhere at once.
FILE_NOT_READY = re.compile(
    r"no such file|file.{0,80}(not (found|exist|ready|processed)|being processed)", re.IGNORECASE
)
METADATA = "lema"  # of the metadata of a batch: our idempotency token

Called = TypeVar("Called")


class BatchCallError(Exception):
    """A call to the endpoint had no success. `status` is that of HTTP, None when there was no answer; `maybe_done` says
    that the endpoint may have done what it was asked all the same."""

    def __init__(self, fault: Fault, status: int | None, message: str) -> None:
        super().__init__(fault.reason)
        self.fault, self.status = fault, status
        self.queue_full = bool(QUEUE_FULL.search(message)) or status == 413
        self.not_ready = status == 404 or (status in (400, 409, 425) and bool(FILE_NOT_READY.search(message)))
        self.maybe_done = not fault.unsent and (status is None or status == 408 or status >= 500)


@dataclass(frozen=True, slots=True)
class RemoteBatch:
    """A batch as its endpoint describes it. `output` and `errors` are the ids of its files of replies and of failures,
    None when it has none; `done` requests are answered; `problem` is why it failed as a whole, and `queue_full` whether
    that was because the queue had no room for it."""

    id: str
    status: str
    output: str | None = None
    errors: str | None = None
    done: int = 0
    problem: str | None = None
    queue_full: bool = False


class BatchClient:
    """Calls to the Batch API of one endpoint. Every method raises `BatchCallError`, and none retries."""

    def __init__(self, model: Model, endpoint: Endpoint) -> None:
        self._model, self._endpoint = model, endpoint
        self._client = batch_api_client(endpoint)

    def upload(self, name: str, file: BinaryIO) -> str:
        """Send a file of requests, and return its id at the endpoint."""
        return self._call(lambda: _required_text(self._client.files.create(file=(name, file), purpose="batch"), "id"))

    def create(self, file: str, token: str) -> RemoteBatch:
        """Have the requests of an uploaded file answered. Not idempotent: `find` looks for a batch of the same token,
        any string of up to 512 characters, before it is called again."""
        create = self._client.batches.create
        path: Any = api_path(self._model)
        options = {"completion_window": "24h", "metadata": {METADATA: token}}
        return self._call(lambda: _remote_batch(create(input_file_id=file, endpoint=path, **options)))  # type: ignore[arg-type]

    def look(self, name: str) -> RemoteBatch:
        """The batch with this id, as it is now."""
        return self._call(lambda: _remote_batch(self._client.batches.retrieve(name)))

    def find(self, token: str, file: str, since: float) -> RemoteBatch | None:
        """The batch with this token, or of this file, that was created after `since` (seconds since 1970)."""

        def search() -> RemoteBatch | None:
            # The newest come first.
            for one in self._client.batches.list(limit=100):
                mark = one.metadata.get(METADATA) if isinstance(one.metadata, Mapping) else None
                if mark == token or one.input_file_id == file:
                    return _remote_batch(one)
                if isinstance(one.created_at, int | float) and one.created_at < since:
                    return None
            return None

        return self._call(search)

    def download(self, batch: RemoteBatch, *, patient: bool) -> dict[str, bytes] | None:
        """The lines of a batch's replies and failures by the keys of their requests, of several the first. None when
        its replies are not there, or its failures and the caller is `patient`: they may show later."""
        if batch.done and batch.output is None:
            return None
        found: dict[str, bytes] = {}
        for file in filter(None, (batch.output, batch.errors)):
            try:
                content = self._call(lambda name=file: self._client.files.content(name).content)  # type: ignore[misc]
            except BatchCallError as error:
                if error.status != 404:
                    raise
                if patient or file == batch.output:
                    return None
                continue
            # Not `splitlines`: JSON may hold other characters that end a line for Python.
            for line in content.split(b"\n"):
                if (name := request_key(line)) is not None:
                    found.setdefault(name, line)
        return found

    def close(self) -> None:
        """Close the connections to the endpoint."""
        self._client.close()

    def _call(self, call: Callable[[], Called]) -> Called:
        try:
            return call()
        except Exception as error:
            raise _call_error(error, self._model, self._endpoint) from error


def _call_error(error: Exception, model: Model, endpoint: Endpoint) -> BatchCallError:
    """What it means that the client raised: its exceptions hold the response, or come from one of the connection."""
    response = getattr(error, "response", None)
    if response is not None:
        fault = of_status(response.status_code, response.headers, response.content, model, endpoint)
        return BatchCallError(fault, response.status_code, response.text)
    if isinstance(error, ValueError):  # an answer without what it should have
        return BatchCallError(MALFORMED, None, "")
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    return BatchCallError(of_exception(cause, model, endpoint), None, "")


def api_path(model: Model) -> str:
    """The API that a model's requests are for."""
    return "/v1/chat/completions" if model.chat else "/v1/completions"


def request_line(request: Request, endpoint: Endpoint) -> bytes:
    """The line of a request in a file; its `custom_id`, under which it is answered, is its cache key."""
    model = request.model
    served, options = endpoint.models.get(model.name or "", model.name or ""), model.options
    asked = request_body(request, served, frozenset(options.get("omit") or ()), options.get("extra") or {})
    content = {"custom_id": request.key, "method": "POST", "url": api_path(model), "body": asked}
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def request_key(line: bytes) -> str | None:
    """The cache key of the request that a line of replies answers; None for a line that cannot be read."""
    try:
        name = json.loads(line)["custom_id"]
    except (ValueError, KeyError, TypeError):
        return None
    return name if isinstance(name, str) else None


def is_reply(line: bytes) -> bool:
    """Whether a line, whose `custom_id` can be read, is a reply of the model."""
    response = json.loads(line).get("response")
    return isinstance(response, Mapping) and response.get("status_code") == 200


def parse_reply(line: bytes, request: Request, endpoint: Endpoint) -> Completion | Fault:
    """The reply on a line, whose `custom_id` can be read, or why there is none."""
    parsed = json.loads(line)
    response = parsed.get("response")
    if not isinstance(response, Mapping):
        return Fault("retry", f"no reply in the batch ({_error_code(parsed.get('error'))})")
    status, answer = response.get("status_code"), response.get("body")
    if status == 200:
        return completion_of(answer, request) or MALFORMED
    if not isinstance(status, int):
        return MALFORMED
    return of_status(status, {}, json.dumps(answer).encode(), request.model, endpoint)


def _remote_batch(answer: object) -> RemoteBatch:
    """The client checks no types: an answer may be anything."""
    errors = getattr(getattr(answer, "errors", None), "data", None) or ()
    problems = [one if isinstance(one, Mapping) else vars(one) for one in errors]
    done = getattr(getattr(answer, "request_counts", None), "completed", None)
    return RemoteBatch(
        _required_text(answer, "id"),
        _required_text(answer, "status"),
        # Some servers give empty strings for files that are not there.
        getattr(answer, "output_file_id", None) or None,
        getattr(answer, "error_file_id", None) or None,
        done if isinstance(done, int) else 0,
        _error_code(problems[0]) if problems else None,
        any(QUEUE_FULL.search(f"{one.get('code')} {one.get('message')}") for one in problems),
    )


def _required_text(answer: object, name: str) -> str:
    value = getattr(answer, name, None)
    if not isinstance(value, str) or not value:
        raise ValueError(f"no {name}")
    return value


def _error_code(error: Any) -> str:
    """The code, parameter and line of an error: its message may quote a prompt."""
    found = [error.get(name) for name in ("code", "param", "line")] if isinstance(error, Mapping) else []
    return " ".join(filter(None, map(code_of, found))) or "no reason given"
