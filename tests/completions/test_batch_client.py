"""What is said to a Batch API, and what its answers mean."""

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest

from lema.completions.batch_client import (
    BatchCallError,
    BatchClient,
    RemoteBatch,
    parse_reply,
    request_key,
    request_line,
)
from lema.models.types import Completion, Fault, Model, Request, Sampling
from lema.recipe.params import Endpoint
from lema.rows import Message
from tests.batch_server import BatchServer

MODEL = Model("strong", "openai", "openai/m", name="m", endpoint="here", options={"omit": ["seed"], "extra": {"e": 1}})
PLAIN = Model("base", "openai", "openai/b", name="b", endpoint="here", chat=False)
HERE = Endpoint(url="http://127.0.0.1:1/v1", models={"b": "b-q8"})


def asked(model: Model) -> Request:
    return Request(model, (Message("user", "2 + 2?"),), Sampling(max_tokens=9), 1)


@pytest.fixture
def server() -> Iterator[BatchServer]:
    with BatchServer() as running:
        yield running


def test_a_line_is_what_would_be_sent_online() -> None:
    assert json.loads(request_line(asked(MODEL), HERE)) == {
        "custom_id": asked(MODEL).key,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": "m",
            "messages": [{"role": "user", "content": "2 + 2?"}],
            "temperature": 0.0,
            "top_p": 1.0,
            "max_tokens": 9,
            "e": 1,
        },
    }
    plain = json.loads(request_line(asked(PLAIN), HERE))
    assert (plain["url"], plain["body"]["model"], plain["body"]["seed"]) == ("/v1/completions", "b-q8", 1)


def test_a_batch_is_found_by_its_file(server: BatchServer) -> None:
    api = BatchClient(MODEL, Endpoint(url=server.url))
    files = [api.upload("name.jsonl", io.BytesIO(request_line(asked(MODEL), HERE))) for _ in range(5)]
    made = [api.create(file) for file in files]
    assert made[0] == RemoteBatch("batch_0", "validating")
    assert [api.find(file, 0) for file in files] == made
    assert api.find("no file", 0) is None
    server.batches["batch_3"].seen["created_at"] = 5
    assert [api.find(file, 10) for file in files] == [None, None, None, *made[3:]]
    api.close()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"response": {"status_code": 200, "body": {"choices": [{"text": "4"}]}}}, Completion("4", "stop")),
        ({"response": {"status_code": 200, "body": "<html>"}}, Fault("retry", "malformed reply", lost=True)),
        ({"response": {"body": {}}}, Fault("retry", "malformed reply", lost=True)),
        (
            {"response": None, "error": {"code": "batch_expired", "message": "PROMPT"}},
            "no reply in the batch (batch_ex",
        ),
        ({"response": None, "error": "PROMPT TEXT"}, "no reply in the batch (no reason given)"),
        ({"response": {"status_code": 500, "body": "PROMPT"}}, "server error (500)"),
        (
            {"response": {"status_code": 400, "body": {"error": {"message": "maximum context length PROMPT"}}}},
            "the prom",
        ),
    ],
)
def test_results(said: dict[str, Any], expected: Any) -> None:
    one = json.dumps({"custom_id": "k", **said}).encode()
    outcome = parse_reply(one, asked(PLAIN), HERE)
    assert request_key(one) == "k"
    if isinstance(expected, str):
        assert isinstance(outcome, Fault)
        assert outcome.reason.startswith(expected)
        assert "PROMPT" not in outcome.reason
    else:
        assert outcome == expected


@pytest.mark.parametrize("one", [b"{", b"[1]", b"3", b"{}", b'{"custom_id": 3}', b"\xff"])
def test_lines_that_are_none(one: bytes) -> None:
    assert request_key(one) is None


@pytest.mark.parametrize(
    ("fault", "status", "full", "not_yet", "unsure"),
    [
        ("full", 429, True, False, False),
        ("429", 429, False, False, False),
        ("404", 404, False, True, False),
        ("500", 500, False, False, True),
        ("drop", None, False, False, True),
        ("400", 400, False, False, False),
    ],
)
def test_errors_of_calls(
    server: BatchServer, fault: str, status: int | None, full: bool, not_yet: bool, unsure: bool
) -> None:
    server.calls = {"create": [fault]}
    with pytest.raises(BatchCallError) as caught:
        BatchClient(MODEL, Endpoint(url=server.url)).create("file")
    error = caught.value
    assert (error.status, error.queue_full, error.not_ready, error.maybe_done) == (status, full, not_yet, unsure)
    assert "PROMPT" not in str(error)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (HERE.url, "endpoint here refuses the connection to http://127.0.0.1:1/v1"),
        ("http://no-such-host.invalid/v1", "the name no-such-host.invalid is not known"),
    ],
)
def test_what_nobody_can_have_got_is_sure_not_to_be_there(url: str, reason: str) -> None:
    with pytest.raises(BatchCallError) as raised:
        BatchClient(MODEL, HERE.model_copy(update={"url": url})).create("file")
    assert reason in raised.value.fault.reason
    assert (raised.value.status, raised.value.maybe_done) == (None, False)
