"""Completions are paid for once, whatever happens in between, and never when that is forbidden."""

import re
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from lema.completions.client import most_held
from lema.recipe.load import load_params
from tests.batch_server import BatchServer
from tests.e2e.project import SECRET, Project, params
from tests.fake_server import FakeServer

pytestmark = pytest.mark.slow


@pytest.fixture
def served(project: Project) -> Project:
    """A project whose samples come from an endpoint, and are not made yet: 20 questions of 3 paths."""

    def ask(recipe: dict[str, Any]) -> None:
        sampler = {"model": "served", "prompt": "cot", "paths": 3, "temperature": 0.5}
        recipe["samples"]["samplers"] = {"served": sampler}
        recipe["mix"]["arms"]["lema"]["cot"] = {}

    project.change("recipes/tiny.yaml", ask)
    project.make("plan")
    return project


def answer(body: dict[str, Any]) -> str:
    asked = f"{body['messages'][-1]['content']} {body.get('seed')}"
    return f"The answer is {zlib.crc32(asked.encode()) % 30}."


def test_a_killed_stage_loses_only_what_was_in_flight(served: Project, tmp_path: Path) -> None:
    undisturbed = served.copy(tmp_path / "undisturbed")
    with FakeServer(answer=answer, latency=0.1) as server:
        for project in (served, undisturbed):
            project.write("params.yaml", params(url=server.url))
        assert undisturbed.make("samples").bought == {"samples": (60, 0, 60)}
        assert len(server.requests) == 60
        server.requests.clear()

        killed = served.start("lema", "make", "samples", "tiny")
        deadline = time.monotonic() + 60
        while len(server.requests) < 30 and time.monotonic() < deadline:
            time.sleep(0.01)
        killed.kill()
        killed.communicate()
        first = len(server.requests)
        assert 30 <= first < 60
        rerun = served.make("samples")
    concurrency = load_params(served.root / "params.yaml").run.endpoints["served"].concurrency
    assert concurrency is not None
    held = most_held(concurrency)
    total, hits, bought = rerun.bought["samples"]
    assert (total, hits + bought) == (60, 60)
    assert hits >= first - held
    assert len(server.requests) <= 60 + held
    assert served.read("samples.parquet") == undisturbed.read("samples.parquet")
    assert [path.name for path, text in served.versioned().items() if SECRET in text] == []
    assert SECRET not in rerun.text
    assert server.headers[-1]["Authorization"] == f"Bearer {SECRET}"


def test_offline_sends_nothing_and_names_the_missing_completion(served: Project) -> None:
    with FakeServer(answer=answer) as server:
        served.write("params.yaml", params(url=server.url))
        refused = served.make("samples", "tiny", "--offline", code=1)
        assert server.requests == []
    assert re.search(r"offline, and the store has no reply of model 'served' with key [0-9a-f]{64}", refused.text)
    assert "Traceback" not in refused.text


def test_offline_with_all_completions_there_makes_the_same_bytes(project: Project) -> None:
    before = project.read("samples.parquet")
    (project.root / "data" / "tiny" / "samples.parquet").unlink()
    assert project.make("samples", "tiny", "--offline").bought == {"samples": (60, 60, 0)}
    assert project.read("samples.parquet") == before


def test_a_killed_batch_goes_on_and_its_bytes_are_those_of_an_online_run(served: Project, tmp_path: Path) -> None:
    online = served.copy(tmp_path / "online")
    with BatchServer(answer=answer) as server:
        online.write("params.yaml", params(url=server.url))
        assert online.make("samples").bought == {"samples": (60, 0, 60)}
        settings = params(url=server.url)
        settings["run"]["endpoints"]["served"]["mode"] = "batch"
        served.write("params.yaml", settings)
        server.life = ("validating", "completed")
        killed = served.start("lema", "make", "samples", "tiny")
        server.on = lambda what: killed.kill() if what == "create" else None
        killed.communicate()
        assert killed.returncode == -9
        rerun = served.make("samples")
    assert rerun.bought == {"samples": (60, 0, 60)}
    assert "endpoint served: a batch that was submitted before, 60 requests, is fetched" in rerun.text
    assert (len(server.bought), server.bought.total()) == (60, 60)
    assert served.read("samples.parquet") == online.read("samples.parquet")
    assert [path.name for path, text in served.versioned().items() if SECRET in text] == []
