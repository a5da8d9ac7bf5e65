"""The Batch API of OpenAI's protocol: a file of requests goes up, a file of replies comes down within a day.

https://platform.openai.com/docs/guides/batch and /docs/api-reference/batch. Here are single calls to an endpoint and
the format of both files; `lema.completions.batch_api` decides what is sent, and when.
"""

import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from lema.models.api_errors import MALFORMED, code_of, of_exception, of_status
from lema.models.openai import batch_api_client, completion_of, get_member, request_body
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
NOT_OFFERED = (404, 405, 501)  # the status of what an endpoint does not have
# Seconds for which calls may fail, and where nobody was ever reached.
OUTAGE_PATIENCE, UNREACHED_PATIENCE = 900.0, 5.0


class BatchCallError(Exception):
    """A call to the endpoint had no success. `status` is that of HTTP, None when there was no answer; `maybe_done` says
    that the endpoint may have done what it was asked all the same."""

    def __init__(self, fault: Fault, status: int | None = None, message: str = "") -> None:
        super().__init__(fault.reason)
        self.fault, self.status = fault, status
        self.queue_full = bool(QUEUE_FULL.search(message)) or status == 413
        self.not_ready = status == 404 or (status in (400, 409, 425) and bool(FILE_NOT_READY.search(message)))
        self.not_offered = status in NOT_OFFERED
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
        # By the kind of call, since when it fails; and whether any ever had success.
        self._failing: dict[str, float] = {}
        self._reached = False

    def upload(self, name: str, file: BinaryIO) -> str:
        """Send a file of requests, and return its id at the endpoint."""
        with self._call("upload"):
            return _require_text(self._client.files.create(file=(name, file), purpose="batch").id)

    def create(self, file: str) -> RemoteBatch:
        """Have the requests of an uploaded file answered. Not idempotent: `find` looks for a batch of the same file
        before it is called again."""
        path: Any = api_path(self._model)
        with self._call("create"):
            return _remote_batch(
                self._client.batches.create(input_file_id=file, endpoint=path, completion_window="24h")
            )

    def look(self, name: str) -> RemoteBatch:
        """The batch with this id, as it is now."""
        with self._call("look"):
            return _remote_batch(self._client.batches.retrieve(name))

    def find(self, file: str | None, since: float) -> RemoteBatch | None:
        """The batch of this file, that was created after `since` (seconds since 1970)."""
        with self._call("find"):
            for one in self._client.batches.list(limit=100):  # the newest come first
                if one.input_file_id == file:
                    return _remote_batch(one)
                if isinstance(one.created_at, int | float) and one.created_at < since:
                    break
        return None

    def download(self, batch: RemoteBatch, *, patient: bool) -> dict[str, bytes] | None:
        """The lines of a batch's replies and failures by the keys of their requests, of several the first. None when
        its replies are not there, or its failures and the caller is `patient`: they may show later."""
        if batch.done and batch.output is None:
            return None
        found: dict[str, bytes] = {}
        for file in filter(None, (batch.output, batch.errors)):
            try:
                with self._call("content"):
                    content = self._client.files.content(file).content
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

    def hopeless(self, error: BatchCallError) -> bool:
        """Whether calls will go on to fail like this: for good, or since it has been so for too long."""
        patience = OUTAGE_PATIENCE if self._reached or not error.fault.unsent else UNREACHED_PATIENCE
        failing = time.monotonic() - min(self._failing.values(), default=math.inf)
        return error.fault.what not in ("retry", "limit") or failing > patience

    @contextmanager
    def _call(self, kind: str) -> Iterator[None]:
        """What the client raises holds the response, or comes from an error of the connection."""
        try:
            yield
        except Exception as error:
            self._failing.setdefault(kind, time.monotonic())
            if (said := getattr(error, "response", None)) is not None:
                fault = of_status(said.status_code, said.headers, said.content, self._model, self._endpoint)
                if said.status_code in NOT_OFFERED:
                    where = f"endpoint {self._model.endpoint}"
                    fault = Fault("stop", f"{where} has no Batch API, or its url is wrong ({said.status_code})")
                raise BatchCallError(fault, said.status_code, said.text) from error
            if isinstance(error, ValueError | TypeError | AttributeError):  # an answer without what it should have
                raise BatchCallError(MALFORMED) from error
            cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
            raise BatchCallError(of_exception(cause, self._model, self._endpoint)) from error
        self._failing.pop(kind, None)
        self._reached = True


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


def _remote_batch(answer: Any) -> RemoteBatch:
    """The client checks no types: an answer may be anything."""
    said = answer.to_dict()
    count, errors = get_member(get_member(said, "request_counts"), "completed"), get_member(said, "errors")
    problems = [one for one in get_member(errors, "data") or () if isinstance(one, Mapping)]
    return RemoteBatch(
        _require_text(said.get("id")),
        _require_text(said.get("status")),
        # Some servers give empty strings for files that are not there.
        said.get("output_file_id") or None,
        said.get("error_file_id") or None,
        count if isinstance(count, int) else 0,
        _error_code(problems[0]) if problems else None,
        any(QUEUE_FULL.search(f"{one.get('code')} {one.get('message')}") for one in problems),
    )


def _require_text(value: object) -> str:
    if not (value and isinstance(value, str)):
        raise ValueError("no text")
    return value


def _error_code(error: Any) -> str:
    """The code, parameter and line of an error: its message may quote a prompt."""
    found = [error.get(name) for name in ("code", "param", "line")] if isinstance(error, Mapping) else []
    return " ".join(filter(None, map(code_of, found))) or "no reason given"
