"""The `openai` backend against a server on a real socket."""

import asyncio
import http.server
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from email.utils import formatdate
from typing import Any

import pytest

from lema.completions.client import EndpointClient
from lema.compute.executor import event_loop
from lema.errors import RunError
from lema.models import api_errors, openai, throttle
from lema.models.api_errors import of_status, retry_after
from lema.models.types import Completion, Fault, Model, Request, Sampling
from lema.models.worker import endpoint_worker
from lema.recipe.params import Budget, Endpoint, Run
from lema.rows import Message
from tests import fake_server
from tests.faults import FaultServer

MODEL = Model("strong", "openai", "openai/m", name="m", endpoint="here")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(api_errors, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("HERE_KEY", "sk-SECRET")
    with fake_server.FakeServer() as running:
        yield running


def run_of(server: Any, **options: Any) -> Run:
    settings = {"retries": 2, "timeout": 1.0, "concurrency": 4, "key": "HERE_KEY", **options}
    return Run(endpoints={"here": Endpoint(url=server.url, **settings)})


def request(text: str = "PROMPT TEXT", index: int = 0, model: Model = MODEL, **sampling: Any) -> Request:
    return Request(model, (Message("system", "be brief"), Message("user", text)), Sampling(**sampling), index)


def answers(client: EndpointClient, requests: Sequence[Request]) -> list[Completion]:
    """The replies of a client that is given all requests at once, in their order."""

    async def exchanged() -> list[Any]:
        done, *_ = await client.exchange(list(requests), 0.0, None)
        found = dict(done)
        while len(found) < len(requests):
            done, *_ = await client.exchange([], 0.0, None)
            found.update(done)
        return [found[one.key] for one in requests]

    return asyncio.run_coroutine_threadsafe(exchanged(), event_loop()).result()


def client_of(run: Run) -> EndpointClient:
    return EndpointClient(run, "here")


def ask(server: Any, asked: Request | None = None, **options: Any) -> Completion:
    (reply,) = answers(client_of(run_of(server, **options)), [asked or request()])
    return reply


def test_what_is_sent_and_what_comes_back(server: Any) -> None:
    reply = ask(server, request("2 + 2?", 3, temperature=0.7, top_p=0.9, max_tokens=50, stop=("\n\n",), seed=100))
    assert reply == Completion("reply to 2 + 2? #103", "stop", None, 11, 6)
    assert server.requests == [
        {
            "model": "m",
            "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "2 + 2?"}],
            "temperature": 0.7,
            "top_p": 0.9,
            "max_tokens": 50,
            "seed": 103,
            "stop": ["\n\n"],
        }
    ]
    assert server.headers[0]["Authorization"] == "Bearer sk-SECRET"


def test_options_and_top_k(server: Any) -> None:
    model = replace(MODEL, options={"omit": ["seed", "max_tokens"], "extra": {"max_completion_tokens": 9}})
    ask(server, request(model=model, top_k=20, stop=tuple("abcdef")), models={"m": "/srv/models/m-q8"})
    (sent,) = server.requests
    assert not {"seed", "max_tokens", "n"} & set(sent)
    assert (sent["top_k"], sent["max_completion_tokens"], sent["stop"]) == (20, 9, list("abcd"))
    assert sent["model"] == "/srv/models/m-q8"  # an endpoint may call it otherwise


def test_plain_text_models(server: Any) -> None:
    model = Model("base", "openai", "openai/b", name="b", endpoint="here", chat=False)
    reply = ask(server, request("go on", model=model), key=None)
    assert server.requests[0]["prompt"] == "be brief\ngo on\n"
    assert reply.text == "reply to be brief\ngo on\n #0"


@pytest.mark.parametrize(
    ("answer", "fault", "sampling", "text", "finish"),
    [
        ("The answer is 4.\nQuestion: 5", None, {"stop": ("\nQuestion:",)}, "The answer is 4.", "stop"),
        ("The answer is 4.\nQuestion: 5", "length", {"stop": ("\nQuestion:",)}, "The answer is 4.", "stop"),
        ("a b c", "length", {}, "a b c", "length"),
        ("half \ud83d", None, {}, "half \ud83d", "stop"),
        ("no", "refusal", {}, "", "refused"),
    ],
)
def test_replies(server: Any, answer: str, fault: str | None, sampling: Any, text: str, finish: str) -> None:
    server.answer, server.always = lambda body: answer, fault
    reply = ask(server, request(**sampling))
    assert (reply.text, reply.finish) == (text, finish)


def used(cached: int | None) -> dict[str, Any]:
    usage = {"prompt_tokens": 100, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": cached}}
    return {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": usage}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"choices": [{"message": {"content": None}, "finish_reason": "length"}]}, Completion("", "length")),
        ({"choices": [{"message": {"content": "x"}, "finish_reason": None}]}, Completion("x", "stop")),
        ({"choices": [{"message": {"content": [{"text": "a"}, {"text": "b"}]}}]}, Completion("ab", "stop")),
        ({"choices": [{"message": {"content": "x"}}], "usage": {"completion_tokens": 512}}, ("x", "length")),
        ({"choices": [{"message": {"content": None, "refusal": "no"}, "finish_reason": "stop"}]}, ("", "refused")),
        (used(64), Completion("x", "stop", None, 100, 5, 64)),
        (used(None), Completion("x", "stop", None, 100, 5, 0)),
        ({"choices": [{"message": {"content": 7}}]}, None),
        ({"choices": [{}]}, None),
        ({"choices": "?"}, None),
        ([], None),
        ("<html>", None),
    ],
)
def test_replies_of_odd_shapes(answer: object, expected: Any) -> None:
    reply = openai.completion_of(answer, request())
    if isinstance(expected, tuple):
        assert reply is not None
        assert (reply.text, reply.finish) == expected
    else:
        assert reply == expected


@pytest.mark.parametrize("fault", ["429", "429 plain", "500", "503", "drop", "slow", "html", "torn", "empty"])
def test_faults_that_pass_are_tried_again(server: Any, fault: str) -> None:
    server.faults = [fault, fault] if fault != "slow" else [fault]
    assert ask(server).text == "reply to PROMPT TEXT #0"
    assert len(server.requests) == (3 if fault != "slow" else 2)


@pytest.mark.parametrize(
    ("fault", "requests", "finish", "error"),
    [
        ("500", 3, "failed", "server error (500)"),
        ("drop", 3, "failed", "the connection to endpoint here was lost before its reply had come"),
        ("html", 3, "failed", "malformed reply"),
        ("400", 1, "failed", "bad request (400 weird)"),
        ("long", 1, "failed", "the prompt is too long for the model (400)"),
        ("filter", 1, "refused", "refused by the content filter (400 content_filter)"),
    ],
)
def test_faults_that_stay_fail_the_request_alone(
    server: Any, fault: str, requests: int, finish: str, error: str
) -> None:
    server.always = fault
    assert ask(server) == Completion("", finish, error)  # type: ignore[arg-type]
    assert len(server.requests) == requests
    client = client_of(run_of(server))
    server.faults, server.always = [fault] * requests, None
    first, second = (answers(client, [request(text)])[0] for text in ("one", "two"))
    assert (first.finish, first.fatal, second.finish) == (finish, False, "stop")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("401", "endpoint here refuses the key in HERE_KEY"),
        ("403", "endpoint here forbids model m (403)"),
        ("404", "endpoint here knows no model m, or its url is wrong (404 model_not_found)"),
        ("quota", "no credit left at endpoint here (429 insufficient_quota)"),
        ("unsupported", "endpoint here does not take seed (400 unsupported_parameter); the option omit leaves"),
    ],
)
def test_faults_that_concern_every_request_stop_the_worker(server: Any, fault: str, reason: str) -> None:
    server.always = fault
    client = client_of(run_of(server, concurrency=1))
    replies = answers(client, [request(str(n)) for n in range(5)])
    assert str(replies[0].error).startswith(reason)
    assert replies == [Completion("", "failed", replies[0].error)] * 5
    assert all(reply.fatal for reply in replies)
    assert len(server.requests) == 1


def nobody() -> str:
    """An address at which nobody listens."""
    with socket.socket() as once:
        once.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{once.getsockname()[1]}/v1?token=TOKEN"


def waits_of(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that are slept from now on, of which none passes."""
    waits: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", noted)
    return waits


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (None, "refuses the connection to http://127.0.0.1:"),
        ("http://no-such-host.invalid/v1", "at http://no-such-host.invalid/v1: the name no-such-host.invalid is not"),
        ("localhost:8000/v1", "run.endpoints.here.url is no address that begins with http"),
    ],
)
def test_an_endpoint_that_nobody_reaches_is_named_after_a_few_quick_tries(
    monkeypatch: pytest.MonkeyPatch, url: str | None, reason: str
) -> None:
    waits = waits_of(monkeypatch)
    client = client_of(Run(endpoints={"here": Endpoint(url=url or nobody())}))
    replies = answers(client, [request(str(n)) for n in range(5)])
    fatal = str(replies[0].error)
    assert reason in fatal
    assert "endpoint here" in fatal
    assert "run.endpoints.here.url" in fatal
    assert "TOKEN" not in fatal
    assert [(one.error, one.fatal, one.sent, one.lost) for one in replies] == [(fatal, True, False, 0)] * 5
    assert sum(waits) < 6


def test_a_server_that_is_still_starting_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_errors, "FIRST_WAIT", 0.3)
    port = int(nobody().partition("127.0.0.1:")[2].partition("/")[0])
    late = fake_server.FakeServer(port=port)
    client = client_of(Run(endpoints={"here": Endpoint(url=late.url)}))
    starting = threading.Timer(0.3, late.__enter__)
    starting.start()
    try:
        (reply,) = answers(client, [request()])
    finally:
        starting.join()
        late.__exit__(None, None, None)
    assert (reply.finish, reply.lost) == ("stop", 0)


def test_a_server_that_goes_away_later_is_tried_as_often_as_the_endpoint_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with fake_server.FakeServer() as server:
        client = client_of(run_of(server, key=None, retries=7))
        answers(client, [request("first")])
    waits = waits_of(monkeypatch)
    (reply,) = answers(client, [request("second")])
    assert "refuses the connection" in str(reply.error)
    assert (reply.sent, reply.lost, reply.fatal, len(waits)) == (False, 0, False, 7)


@pytest.mark.parametrize(
    ("fault", "lost"), [("drop", 2), ("slow", 1), ("torn", 2), ("empty", 2), ("500", 0), ("429", 0), ("504", 2)]
)
def test_tries_that_may_have_been_billed_are_counted(
    server: Any, monkeypatch: pytest.MonkeyPatch, fault: str, lost: int
) -> None:
    monkeypatch.setitem(fake_server.ERRORS, "504", (504, {}, {}))
    server.faults = [fault] * (lost or 1)
    reply = ask(server, timeout=1.0 if fault == "slow" else 30.0)
    assert (reply.finish, reply.lost, reply.sent) == ("stop", lost, True)


def test_with_a_budget_what_may_have_been_billed_is_handed_back(server: Any) -> None:
    server.faults = ["500", "drop"]
    run = run_of(server).model_copy(update={"budget": Budget(total=Decimal(1))})
    (reply,) = answers(client_of(run), [request()])
    assert (reply.finish, reply.lost, len(server.requests)) == ("failed", 1, 2)


def forbidden(*place: Any, kind: str = "extra_forbidden") -> list[Any]:
    return [{"type": kind, "loc": list(place), "msg": "Extra inputs are not permitted", "input": "PROMPT"}]


SENT = replace(MODEL, options={"omit": ["stop"], "extra": {"reasoning_effort": "low"}})
UNKNOWN = [
    ({"error": {"code": "unsupported_parameter", "param": "seed", "message": "?"}}, "seed"),
    ({"error": {"code": "unsupported_value", "param": "temperature", "message": "?"}}, "temperature"),
    ({"error": {"type": "unknown_parameter", "message": "?"}}, "a parameter"),
    ({"error": {"message": "Unsupported parameter: 'top_p' is not supported with this model. Use 'x'."}}, "top_p"),
    ({"error": {"message": "Unrecognized request argument supplied: top_k"}}, "top_k"),
    ({"error": {"message": "Unknown parameter: 'reasoning_effort'."}}, "reasoning_effort"),
    ({"error": {"message": "Unrecognized parameters: seed, top_k"}}, "seed, top_k"),
    ({"detail": "Unexpected fields in the request: {'top_k', 'seed'}"}, "seed, top_k"),
    ({"detail": [*forbidden("body", "top_k"), {"type": "missing"}]}, "top_k"),
    ({"detail": forbidden("body", "seed", kind="value_error.extra")}, "seed"),
    ({"object": "error", "message": {"detail": forbidden("body", "seed")}, "code": None}, "seed"),
    ({"object": "Error", "message": forbidden("body", "seed"), "code": 3001}, "seed"),
    ({"error": {"type": "invalid_request_error", "message": "seed: Extra inputs are not permitted"}}, "seed"),
    ({"error": {"message": "Extra inputs are not permitted, field: 'top_k', value: 5"}}, "top_k"),
    ({"error": {"message": "property 'top_k' is unsupported, did you mean 'top_p'?"}}, "top_k"),
    ({"code": "Client specified an invalid argument", "error": "Argument not supported on this model: topK"}, "top_k"),
    ({"error": {"message": "Model m-1 does not support parameter reasoningEffort."}}, "reasoning_effort"),
    ([{"error": {"message": 'Invalid JSON payload received. Unknown name "seed": Cannot find field.\nmore'}}], "seed"),
    ({"error": {"message": "1 validation error for Body\nseed\n  Extra inputs are not permitted [type=x]"}}, "seed"),
    ({"message": "[{'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'msg': 'Extra', 'input': 3}]"}, "seed"),
]  # fmt: skip
ANYTHING_ELSE = [
    {},
    {"detail": "seed must be positive"},
    {"detail": [{"type": "missing", "loc": ["body", "top_k"]}]},
    {"detail": "Unexpected fields in the request: {'PROMPT'}"},
    {"detail": forbidden("body", "messages", 1, "seed")},
    {"detail": forbidden("body", "stop")},  # was not sent
    {"error": {"code": "unsupported_value", "param": "messages[3].content", "message": "?"}},
    {"error": {"message": "Unrecognized parameters: seed, top_k, PROMPT"}},
    {"error": {"message": "Unknown parameter: 'stop'."}},
    {"error": {"message": "unexpected input: the seed of a pine weighs 2 grams, top_p"}},
    {"error": {"message": "could not read 'PROMPT. seed: Extra inputs are not permitted'"}},
    {"error": {"message": "PROMPT\nUnknown parameter: seed"}},
    {"error": {"message": "property 'store' is unsupported, did you mean 'seed'?"}},
    {"error": {"message": "invalid: [{'type': 'extra_forbidden', 'loc': ('body', 'seed')}]"}},
    {"error": {"message": "what does an unknown field: seed, cost?"}},
]


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize(("said", "parameters"), [*UNKNOWN, *((said, None) for said in ANYTHING_ELSE)])
def test_parameters_that_a_server_does_not_take_stop_the_worker(said: Any, parameters: str | None, status: int) -> None:
    """And nothing else does, whatever of a row stands in its answer."""
    found = of_status(status, {}, json.dumps(said).encode(), SENT, Endpoint(url="http://here"))
    if parameters is None:
        assert (found.what, found.reason.partition(" (")[0]) == ("row", "bad request")
        return
    assert found.what == "stop"
    assert found.reason.startswith(f"endpoint here does not take {parameters} ({status}")
    assert "PROMPT" not in found.reason


@pytest.mark.parametrize(
    "said",
    [
        "your credit balance is too low",
        "Insufficient Balance",
        "litellm.BadRequestError: OpenAIException - You exceeded your current quota, please check your plan and billing",  # noqa: E501
        "Your newly created team doesn't have any credits yet",
        "the model m does not exist",
        "The model `vendor/m-1` does not exist or you do not have access to it.",
        "Model Not Exist",
        "Invalid model: m",
        "vendor/m is not a valid model ID",
        "invalid API key",
        "Incorrect API key provided: x***y.",
        "API key not valid. Please pass a valid API key.",
    ],
)
def test_what_a_server_quotes_stops_nothing(said: str) -> None:
    def fault(message: str) -> Fault:
        content = json.dumps({"error": {"message": message}}).encode()
        return of_status(400, {}, content, MODEL, Endpoint(url="http://here"))

    assert fault(said).what == "stop"
    for quoted in (f"cannot read: {'A question of a row. ' * 20}{said}", f"invalid input: {said}", f"'A row.\n{said}'"):
        assert fault(quoted) == Fault("row", "bad request (400)")


def test_no_secret_and_no_prompt_in_any_error(server: Any) -> None:
    for fault in fake_server.ERRORS:
        server.faults = [fault] * 3
        error = ask(server, timeout=0.3).error
        assert error is None or not any(word in error for word in ("SECRET", "PROMPT", "127.0.0.1"))
        server.faults = []


def test_a_rate_limit_pauses_the_whole_endpoint(server: Any) -> None:
    server.faults = ["429 later"]
    client = client_of(run_of(server, concurrency=1))
    answers(client, [request("first")])
    assert len(server.requests) == 2
    server.faults = ["429 later"] * 5
    assert ask(server, timeout=1.0).error == "rate limit (429 rate_limit_exceeded)"


def test_a_rate_limit_without_a_pause_is_not_met_with_a_storm(server: Any) -> None:
    server.faults = ["429 now"] * 100
    ask(server, timeout=0.5)
    assert len(server.requests) < 10


def test_models_of_one_endpoint_share_its_concurrency(server: Any) -> None:
    server.latency = 0.02
    run = run_of(server, concurrency=3)
    models = [MODEL, Model("weak", "openai", "openai/w", name="w", endpoint="here")]
    answers(client_of(run), [request(str(n), model=model) for model in models for n in range(12)])
    assert len(server.requests) == 24
    assert server.most == 3


def test_replies_keep_the_order_of_the_requests(server: Any) -> None:
    server.faults = ["500", "429", "drop"]
    replies = answers(client_of(run_of(server)), [request(f"question {n}", n) for n in range(9)])
    assert [reply.text for reply in replies] == [f"reply to question {n} #{n}" for n in range(9)]


@pytest.mark.parametrize(
    ("model", "run", "message"),
    [
        (Model("x", "openai", "i", endpoint="here"), {}, "'x' needs the name"),
        (Model("x", "openai", "i", name="m", endpoint="hear"), {}, "no endpoint 'hear'; did you mean 'here'"),
        (Model("x", "openai", "i", name="m"), {}, "no endpoint None"),
        (MODEL, {"key": "NO_SUCH_KEY"}, "set the environment variable NO_SUCH_KEY"),
    ],
)
def test_what_is_missing_is_named(server: Any, model: Model, run: Any, message: str) -> None:
    with pytest.raises(RunError, match=message):
        endpoint_worker(model, run_of(server, **run))


@pytest.mark.parametrize(("fault", "finish", "alone"), [("500", "stop", 3), ("filter", "refused", 2)])
def test_the_first_request_of_a_model_goes_alone(server: Any, fault: str, finish: str, alone: int) -> None:
    """Until there is a reply, or a refusal of its prompt, which shows that the model can be asked."""
    server.latency, server.faults = 0.05, [fault]
    run = run_of(server, concurrency=8)
    replies = answers(client_of(run), [request(str(n)) for n in range(9)])
    assert [reply.finish for reply in replies] == [finish] + ["stop"] * 8
    assert server.concurrent[:alone] == [1] * alone
    assert 1 < server.most <= 8
    server.concurrent.clear()
    answers(client_of(run), [request(f"again {n}") for n in range(8)])
    assert max(server.concurrent) > 1


@pytest.mark.parametrize(
    ("fault", "reason"), [("503", "server error (503)"), ("drop", "the connection to endpoint here was lost")]
)
def test_an_endpoint_that_fails_everything_is_given_up(
    server: Any, monkeypatch: pytest.MonkeyPatch, fault: str, reason: str
) -> None:
    monkeypatch.setattr(throttle, "OPEN_AFTER", (5, 0.05))
    server.always = fault
    client = client_of(run_of(server, retries=1))
    replies = answers(client, [request(str(n)) for n in range(200)])
    fatal = str(replies[-1].error)
    assert fatal.startswith("endpoint here failed ")
    assert reason in fatal
    assert replies[-1].fatal
    assert 5 <= len(server.requests) < 50
    # A stage that is run again in the same process tries again.
    server.always = None
    assert ask(server, retries=1).finish == "stop"


def test_one_reply_in_between_is_a_sign_of_life(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "OPEN_AFTER", (3, 0.0))
    server.faults = ["503", "503", None, "503", "503"]
    assert [ask(server, request(str(n))).finish for n in range(2)] == ["stop", "stop"]


def test_a_pause_that_the_endpoint_asks_for_holds_for_all(server: Any) -> None:
    client = client_of(run_of(server, concurrency=4))
    answers(client, [request("first")])
    server.faults = ["503 later"]
    start = time.monotonic()
    answers(client, [request("paused")])
    assert time.monotonic() - start >= 0.3
    start = time.monotonic()
    shared = client.exchange([request("another client was asked")], 0.4, None)
    asyncio.run_coroutine_threadsafe(shared, event_loop()).result()
    assert time.monotonic() - start >= 0.4
    server.faults = ["429 tomorrow"]
    assert "asks to wait for 24.0 hours: rate limit (429" in str(ask(server, concurrency=4).error)


def test_a_reply_that_drips_for_ever_is_not_waited_for() -> None:
    with FaultServer(mix={"drip": 1.0}, patience=5) as server:
        start = time.monotonic()
        reply = ask(server, retries=0, timeout=0.3, key=None)
        assert time.monotonic() - start < 3
    assert reply.error == "endpoint here gave no reply within 0.3 s"


def test_a_reply_that_is_delivered_twice_answers_one_request() -> None:
    with FaultServer(mix={"twice": 1.0}) as server:
        client = client_of(run_of(server, key=None, timeout=5.0))
        for n in range(20):
            (reply,) = answers(client, [request(f"question {n}")])
            assert reply.text == f"reply to question {n} #0"
            # The second copy is there before the connection is used again.
            time.sleep(0.02)


@contextmanager
def endpoint_of(handle: Callable[[int, bytes], Iterable[bytes]]) -> Iterator[Endpoint]:
    """An endpoint at which `handle(number of the request, its body)` writes the bodies of the replies."""
    numbers = itertools.count()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers["Content-Length"]))
            for said in handle(next(numbers), asked):
                head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(said)}\r\n\r\n"
                self.wfile.write(head.encode() + said)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Endpoint(url=f"http://127.0.0.1:{server.server_port}/v1", timeout=5.0)
        server.shutdown()


def said_of(name: str, text: str) -> bytes:
    choice = {"index": 0, "finish_reason": "stop", "message": {"content": text}}
    return json.dumps({"id": name, "choices": [choice]}).encode()


def test_a_second_copy_that_comes_after_the_next_request_answers_nobody() -> None:
    last: list[bytes] = []

    def late(number: int, asked: bytes) -> Iterator[bytes]:
        reply = said_of(f"chatcmpl-{number}", json.loads(asked)["messages"][1]["content"])
        if number == 2:
            yield last[-1]
        last.append(reply)
        yield reply

    with endpoint_of(late) as endpoint:
        client = client_of(Run(endpoints={"here": endpoint}))
        for n in range(5):
            (reply,) = answers(client, [request(f"question {n}")])
            assert reply.text == f"question {n}"


@pytest.mark.parametrize("name", ["", "chatcmpl-1"])
@pytest.mark.parametrize("text", ["eighteen", "{}"])
def test_ids_that_name_nothing_cost_one_request_at_most(name: str, text: str) -> None:
    asked: list[int] = []

    def constant(number: int, _: bytes) -> Iterator[bytes]:
        asked.append(number)
        yield said_of(name, text.format(number))

    with endpoint_of(constant) as endpoint:
        client = client_of(Run(endpoints={"here": endpoint}))
        replies = [answers(client, [request(f"question {n}")])[0] for n in range(5)]
    assert {reply.finish for reply in replies} == {"stop"}
    assert len(asked) <= 6


@pytest.mark.parametrize(
    ("status", "body", "what", "reason"),
    [
        (400, {"error": {"code": "API_KEY_INVALID", "message": "API key not valid"}}, "stop", "wants a key"),
        (
            403,
            {"error": {"message": "Your credit balance is too low"}},
            "stop",
            "no credit left at endpoint here (403)",
        ),
        (400, {"error": {"message": "The model `x` does not exist"}}, "stop", "knows no model m"),
        (404, {"object": "error", "message": "no route", "code": 404}, "stop", "(404 404)"),
        (400, {"object": "error", "message": "maximum context length is 8 tokens"}, "row", "the prompt is too long"),
        (413, {}, "row", "the prompt is too long for the model (413)"),
        (422, {"error": "flagged by moderation"}, "refused", "refused by the content filter (422)"),
        (400, [{"error": {"status": "INVALID_ARGUMENT", "code": 400}}], "row", "bad request (400 400)"),
        (529, {"type": "error", "error": {"type": "overloaded_error"}}, "retry", "server error (529 overloaded_error)"),
        (302, "<html>", "row", "bad request (302)"),
    ],
)
def test_what_other_servers_say(status: int, body: Any, what: str, reason: str) -> None:
    here = Endpoint(url="http://here")
    fault = of_status(status, {}, json.dumps(body).encode(), MODEL, here)
    assert fault.what == what
    assert reason in fault.reason


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "99999999"}, 99999999.0),
        ({"retry-after-ms": "inf"}, None),
        ({}, None),
        ({"retry-after": 30}, pytest.approx(30, abs=2)),
        ({"retry-after": -30}, 0),
    ],
)
def test_retry_after(headers: dict[str, Any], seconds: float | None) -> None:
    """Whole numbers stand for a date so many seconds from now."""
    said = {
        name: formatdate(time.time() + at, usegmt=True) if isinstance(at, int) else at for name, at in headers.items()
    }
    assert retry_after(said) == seconds
