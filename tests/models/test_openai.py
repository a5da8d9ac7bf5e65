"""The `openai` backend against a server on a real socket."""

import asyncio
import importlib.util
import time
from collections.abc import Iterator, Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from lema import component
from lema.engine.waiting import wait_for
from lema.errors import RunError
from lema.models import Completion, Model, Request, Sampling, openai
from lema.models._faults import retry_after
from lema.params import Endpoint, Run
from lema.rows import Message

spec = importlib.util.spec_from_file_location("fake_server", Path(__file__).parents[1] / "fake_server.py")
assert spec is not None
assert spec.loader is not None
fake_server = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fake_server)

MODEL = Model("strong", "openai", "openai/m", name="m", endpoint="here")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(openai, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("HERE_KEY", "sk-SECRET")
    with fake_server.FakeServer() as running:
        yield running


def run_of(server: Any, **options: Any) -> Run:
    settings = {"retries": 2, "timeout": 1.0, "concurrency": 4, "key": "HERE_KEY", **options}
    return Run(endpoints={"here": Endpoint(url=server.url, **settings)})


def request(text: str = "PROMPT TEXT", index: int = 0, model: Model = MODEL, **sampling: Any) -> Request:
    return Request(model, (Message("system", "be brief"), Message("user", text)), Sampling(**sampling), index)


def answers(worker: Any, requests: Sequence[Request]) -> list[Completion]:
    return wait_for(worker(requests))  # type: ignore[no-any-return]


def ask(server: Any, asked: Request | None = None, **options: Any) -> Completion:
    (reply,) = answers(openai.openai(MODEL, run_of(server, **options)), [asked or request()])
    return reply


def test_an_endpoint_may_call_a_model_otherwise(server: Any) -> None:
    assert ask(server, models={"m": "/srv/models/m-q8"}).finish == "stop"
    assert server.requests[0]["model"] == "/srv/models/m-q8"


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
    worker = openai.openai(MODEL, run_of(server), omit=["seed", "max_tokens"], extra={"max_completion_tokens": 9})
    answers(worker, [request(top_k=20, stop=tuple("abcdef"))])
    (sent,) = server.requests
    assert not {"seed", "max_tokens", "n"} & set(sent)
    assert (sent["top_k"], sent["max_completion_tokens"], sent["stop"]) == (20, 9, list("abcd"))


def test_plain_text_models(server: Any) -> None:
    model = Model("base", "openai", "openai/b", name="b", endpoint="here", chat=False)
    (reply,) = answers(openai.openai(model, run_of(server, key=None)), [request("go on", model=model)])
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


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"choices": [{"message": {"content": None}, "finish_reason": "length"}]}, Completion("", "length")),
        ({"choices": [{"message": {"content": "x"}, "finish_reason": None}]}, Completion("x", "stop")),
        ({"choices": [{"message": {"content": [{"text": "a"}, {"text": "b"}]}}]}, Completion("ab", "stop")),
        ({"choices": [{"message": {"content": "x"}}], "usage": {"completion_tokens": 512}}, ("x", "length")),
        ({"choices": [{"message": {"content": None, "refusal": "no"}, "finish_reason": "stop"}]}, ("", "refused")),
        ({"choices": [{"message": {"content": 7}}]}, None),
        ({"choices": [{}]}, None),
        ({"choices": "?"}, None),
        ([], None),
        ("<html>", None),
    ],
)
def test_replies_of_odd_shapes(answer: object, expected: Any) -> None:
    reply = openai.completion(answer, request())
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
        ("drop", 3, "failed", "endpoint here was not reached, or gave no reply within 1 s"),
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
    worker = openai.openai(MODEL, run_of(server))
    server.faults, server.always = [fault] * requests, None
    first, second = (answers(worker, [request(text)])[0] for text in ("one", "two"))
    assert (first.finish, second.finish, worker.fatal) == (finish, "stop", None)  # type: ignore[attr-defined]


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
    worker = openai.openai(MODEL, run_of(server, concurrency=1))
    replies = answers(worker, [request(str(n)) for n in range(5)])
    assert worker.fatal.startswith(reason)  # type: ignore[attr-defined]
    assert replies == [Completion("", "failed", worker.fatal)] * 5  # type: ignore[attr-defined]
    assert len(server.requests) == 1


def test_no_secret_and_no_prompt_in_any_error(server: Any) -> None:
    for fault in fake_server.ERRORS:
        server.faults = [fault] * 3
        error = ask(server, timeout=0.3).error
        assert error is None or not any(word in error for word in ("SECRET", "PROMPT", "127.0.0.1"))
        server.faults = []


def test_a_rate_limit_pauses_the_whole_endpoint(server: Any) -> None:
    server.faults = ["429 later"]
    worker = openai.openai(MODEL, run_of(server, concurrency=1))
    answers(worker, [request("first")])
    assert len(server.requests) == 2
    server.faults = ["429 later"] * 5
    assert ask(server, timeout=1.0).error == "rate limit (429 rate_limit_exceeded)"


def test_models_of_one_endpoint_share_its_concurrency(server: Any) -> None:
    server.latency = 0.02
    run = run_of(server, concurrency=3)
    models = [MODEL, Model("weak", "openai", "openai/w", name="w", endpoint="here")]
    workers = [openai.openai(model, run) for model in models]

    async def both() -> None:
        asked = [[request(str(n), model=model) for n in range(12)] for model in models]
        await asyncio.gather(*(worker(requests) for worker, requests in zip(workers, asked, strict=True)))  # type: ignore[arg-type]

    wait_for(both())
    assert len(server.requests) == 24
    assert server.most == 3


def test_replies_keep_the_order_of_the_requests(server: Any) -> None:
    server.faults = ["500", "429", "drop"]
    replies = answers(openai.openai(MODEL, run_of(server)), [request(f"question {n}", n) for n in range(9)])
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
        openai.openai(model, run_of(server, **run))


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
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_retry_after_a_date() -> None:
    assert retry_after({"retry-after": formatdate(time.time() + 30, usegmt=True)}) == pytest.approx(30, abs=2)
    assert retry_after({"retry-after": formatdate(time.time() - 30, usegmt=True)}) == 0


def test_it_is_found_by_name_and_its_options_are_checked() -> None:
    assert component.load("models", "openai") is openai.openai
    assert component.option_errors(openai.openai, {"omit": ["seed"], "extra": {"a": 1}}) == []
    assert component.option_errors(openai.openai, {"omitted": ["seed"]})
