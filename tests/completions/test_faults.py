"""A run against an endpoint on which everything goes wrong now and then."""

from collections import Counter
from pathlib import Path

import pytest

from lema.completions.generate import Generate
from lema.completions.store import Store, read_journal
from lema.compute.executor import LocalExecutor
from lema.models import api_errors
from lema.models.types import Model, Request, Sampling
from lema.recipe.params import Endpoint, Run
from lema.rows import Message
from tests.faults import MIX, FaultServer

MODEL = Model("strong", "openai", "openai/m", name="m", endpoint="here")


def requests(count: int) -> list[Request]:
    return [Request(MODEL, (Message("user", f"question {n}"),), Sampling(seed=7), n % 3) for n in range(count)]


def text(request: Request) -> str:
    return f"reply to {request.messages[0].content} #{7 + request.index}"


def run_of(server: FaultServer, **options: object) -> Run:
    settings: dict[str, object] = {"retries": 6, "timeout": 1.0, "concurrency": 32, **options}
    return Run(endpoints={"here": Endpoint(url=server.url, **settings)}, max_failures=0.2)  # type: ignore[arg-type]


def test_every_request_is_accounted_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_errors, "FIRST_WAIT", 0.02)
    asked = requests(300)
    with FaultServer(mix=MIX, latency=0.01, patience=3, seed=1) as server:
        generate = Generate(Store(tmp_path / "journal", tmp_path / "packs"), LocalExecutor(), run_of(server))
        replies = list(generate(asked))
        assert set(server.tally) == {"good", *MIX}
    # Whatever came twice, late or in pieces: a reply belongs to its request.
    for request, reply in zip(asked, replies, strict=True):
        assert (reply.text, reply.finish) in ((text(request), "stop"), ("", "refused")), reply
    counts = (generate.bought.total(), generate.refused.total(), generate.failed.total())
    assert sum(counts) == 300
    assert 0 < counts[1] < 12
    assert counts[2] == 0
    journals = [read_journal(path) for path in (tmp_path / "journal").iterdir()]
    kept = Counter(entry.id for lines in journals for _, batch in lines.lines() for entry in batch)
    assert kept == Counter(request.key for request in asked)


def test_faults_that_never_end_are_failures_with_their_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_errors, "FIRST_WAIT", 0.001)
    asked = requests(60)
    with FaultServer(mix={"torn": 0.3, "500": 0.3}) as server:
        run = run_of(server, retries=1).model_copy(update={"max_failures": 1.0})
        generate = Generate(Store(tmp_path / "journal", tmp_path / "packs"), LocalExecutor(), run)
        replies = list(generate(asked))
        sent = len(server.requests)
    failed = [reply.error for reply in replies if reply.finish == "failed"]
    assert set(failed) == {"malformed reply", "server error (500)"}
    assert generate.bought.total() + len(failed) == 60
    assert sent == sum(min(count, 2) for count in Counter(map(str, server.requests)).values())
    assert f"{len(failed)} failed" in generate.summary()


def test_a_limit_that_nobody_told_is_lived_with(tmp_path: Path) -> None:
    with FaultServer(rate=100, latency=0.02) as server:
        generate = Generate(
            Store(tmp_path / "journal", tmp_path / "packs"), LocalExecutor(), run_of(server, concurrency=None)
        )
        assert [reply.text for reply in generate(requests(150))] == [text(request) for request in requests(150)]
    assert generate.failed == {}
    assert server.tally["good"] == 150
