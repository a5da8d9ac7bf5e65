"""No key and no prompt of a private recipe is anywhere but where the user put them."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.project import CANARY, SECRET, SECRET_NAME, Project, params
from tests.fake_server import FakeServer

STATE = """
import json, os
from lema.compute.ray_head import join_head
join_head()
import ray
ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False)
from ray._private.state import state
known = [state.node_table(), state.job_table(), state.actor_table(None), ray.cluster_resources()]
print(json.dumps(known, default=str))
"""


def holding(root: Path, words: tuple[str, ...]) -> list[str]:
    """Files below a folder in which one of the words stands, as it is, whatever the file is."""
    needles = [word.encode() for word in words]
    found = []
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            found += [str(path.relative_to(root))] * any(needle in content for needle in needles)
    return found


@pytest.fixture
def short() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def joining(project: Project, timeout: float = 60) -> dict[str, str]:
    """The environment with which the stages of a running `lema repro` join its Ray."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        for process in psutil.process_iter():
            try:
                if Path(process.cwd()) == project.root and "LEMA_RAY_HEAD" in (found := process.environ()):
                    return found
            except psutil.Error:
                continue
        time.sleep(0.1)
    raise AssertionError("no process of the project knows a Ray")


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_key_is_nowhere_but_in_the_environment(project: Project, short: Path) -> None:
    """With replies, with refusals that quote the key and the prompt, and with a key that is refused."""

    def ask(recipe: dict[str, Any]) -> None:
        prompt = {"system": CANARY, "user": "{{ question }}"}
        recipe["samples"]["samplers"] = {"served": {"model": "served", "prompt": prompt, "paths": 3}}
        recipe["mix"]["arms"]["lema"]["cot"] = {}

    # Sockets lie in it, whose paths must be short.
    session = short
    project.env |= {"RAY_TMPDIR": str(session), "RAY_BACKEND_LOG_LEVEL": "debug"}
    project.change("recipes/tiny.yaml", ask)
    with FakeServer(latency=0.5) as server:
        settings = params(executor="ray", url=server.url)
        settings["run"]["max_failures"] = 1
        project.write("params.yaml", settings)
        server.faults = [None, "400", "filter", "500", "429"]  # type: ignore[list-item]
        running = project.start("lema", "repro", "samples@tiny")
        environment = joining(project)
        deadline = time.monotonic() + 60
        while len(server.requests) < 5 and time.monotonic() < deadline:
            time.sleep(0.05)
        command = [sys.executable, "-c", STATE]
        seen = subprocess.run(command, env=environment, text=True, capture_output=True, check=True, timeout=60).stdout
        said, _ = running.communicate()
        assert running.returncode == 0, said

        server.always = "401"
        project.change("recipes/tiny.yaml", lambda recipe: recipe["samples"]["samplers"]["served"].update(seed=9))
        refused = project.run("lema", "repro", "samples@tiny", code=None)
    assert refused.code != 0
    assert f"refuses the key in {SECRET_NAME}" in refused.text
    assert server.headers[0]["Authorization"] == f"Bearer {SECRET}"
    for text in (said, refused.text, seen):
        assert SECRET not in text
        assert CANARY not in text
        assert "sk-SECRET" not in text
    assert "_AsyncActor" in seen  # the state was not empty
    assert holding(project.root, (SECRET, "sk-SECRET")) == []
    assert holding(session, (SECRET, "sk-SECRET", CANARY)) == []
    prompts = [name for name in holding(project.root, (CANARY,)) if not name.startswith(("recipes/", ".git/"))]
    assert prompts == []
