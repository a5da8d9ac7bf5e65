"""A cluster of two Ray nodes, of which one does not see the project: its folder is hidden behind an empty disk."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from lema.compute.ray_head import QUIET
from tests.e2e.project import SECRET, SECRET_NAME, Project
from tests.e2e.test_secrets import holding
from tests.fake_server import FakeServer

HIDE = 'mount -t tmpfs none "$1" && cd / && shift && exec "$@"'


def hideable() -> bool:
    command = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none "$1"', "sh", "/mnt"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


def address() -> str | None:
    """Of this machine for others, so that nothing here can count on loopback."""
    known = [one.address for cards in psutil.net_if_addrs().values() for one in cards if one.family == socket.AF_INET]
    return next((one for one in known if not one.startswith("127.")), None)


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hideable(), reason="needs leave to mount in a namespace"),
    pytest.mark.skipif(address() is None, reason="needs an address that is not loopback"),
]


class Cluster:
    """Two nodes of one processor each, the second without `hidden`; killed as a whole at the end."""

    def __init__(self, hidden: Path, place: Path, environment: dict[str, str]) -> None:
        self.environment = {
            **environment,
            **QUIET,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_TMPDIR": str(place),
            "LEMA_TEST_NODE": "seen",
        }
        with socket.socket() as free:
            free.bind(("", 0))
            self.port = free.getsockname()[1]
        self.host = address()
        common = ["--block", "--disable-usage-stats", "--num-cpus=1", f"--object-store-memory={100 * 2**20}"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--node-ip-address={self.host}", *common]
        more = ["--min-worker-port=0", "--max-worker-port=0"]
        self.head = self._start([*command, "--head", f"--port={self.port}", "--include-dashboard=false", *more])
        self.environment["RAY_ADDRESS"] = f"{self.host}:{self.port}"
        self._listening()
        join = [*command, f"--address={self.host}:{self.port}", *more]
        self.second = self._start(["unshare", "-m", "sh", "-c", HIDE, "sh", str(hidden), *join], LEMA_TEST_NODE="blind")

    def _start(self, command: list[str], **more: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            command,
            env={**self.environment, **more},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _listening(self) -> None:
        """Until the head can be joined: on a busy machine that takes longer than a node tries."""
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and self.head.poll() is None:
            with suppress(OSError), socket.create_connection((self.host, self.port), timeout=1):
                return
            time.sleep(0.2)
        self.kill(self.head)
        raise AssertionError(f"the head is not there: {self.head.returncode}")

    def wait(self) -> None:
        """Until both nodes are there. A head that listens may not answer yet, for the same reason."""
        code = """
import ray, time
ray.init(address="auto", log_to_driver=False)
while sum(node["Alive"] for node in ray.nodes()) < 2:
    time.sleep(0.2)
"""
        command, deadline = [sys.executable, "-c", code], time.monotonic() + 300
        while True:
            asked = subprocess.run(
                command, env=self.environment, cwd="/", capture_output=True, text=True, timeout=300, check=False
            )
            if asked.returncode == 0:
                return
            ended = [node.returncode for node in (self.head, self.second) if node.poll() is not None]
            assert not ended, f"a node ended with {ended}"
            assert time.monotonic() < deadline, asked.stderr[-2000:]

    def processes(self, kind: str = "_Worker") -> dict[int, str]:
        """The processes of actors of a kind, and on which node each is."""
        found = {}
        for process in psutil.process_iter():
            try:
                # The command line first: there are many processes, and this is asked ten times a second.
                if kind not in " ".join(process.cmdline()):
                    continue
                environment = process.environ()
                if environment.get("RAY_TMPDIR") == self.environment["RAY_TMPDIR"]:
                    found[process.pid] = environment["LEMA_TEST_NODE"]
            except psutil.Error:
                continue
        return found

    def kill(self, node: "subprocess.Popen[bytes]") -> None:
        if node.poll() is None:
            os.killpg(node.pid, signal.SIGKILL)
            node.wait()

    def close(self) -> None:
        for node in (self.second, self.head):
            self.kill(node)


@pytest.fixture(scope="module")
def clustered(smoke: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, Cluster]]:
    """The recipe `smoke`, with a cluster to make its artifacts; the last test kills the second node."""
    project = smoke.copy(tmp_path_factory.mktemp("clustered") / "project")

    def spread(settings: dict[str, Any]) -> None:
        settings["run"] |= {"executor": "ray", "workers": 2, "batch": 4, "trainers": 2}

    project.change("params.yaml", spread)
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as place:
        cluster = Cluster(project.root, Path(place), project.env)
        try:
            cluster.wait()
            project.env = cluster.environment
            yield project, cluster
        finally:
            cluster.close()


def follow(project: Project, cluster: Cluster) -> tuple[set[str], bytes]:
    """Make the samples anew, and kill the second node once both have worked. Which nodes did, and what came out."""
    samples, nodes = project.root / "data" / "smoke" / "samples.parquet", set[str]()
    shutil.rmtree(project.root / "completions")
    samples.unlink()
    running = project.start("lema", "make", "samples", "smoke")
    journal = project.root / ".lema" / "journal"
    while running.poll() is None:
        nodes |= set(cluster.processes().values())
        if len(nodes) == 2 and any(path.stat().st_size for path in journal.glob("*.jsonl")):
            cluster.kill(cluster.second)
        time.sleep(0.1)
    said, _ = running.communicate()
    assert running.returncode == 0, said
    return nodes, samples.read_bytes()


BUYER = """
import sys
from pathlib import Path
from lema.completions.generate import Generate
from lema.completions.store import Store
from lema.compute.ray_pool import RayExecutor
from lema.models.types import Model, Request, Sampling
from lema.recipe.params import Endpoint, Run
from lema.rows import Message
root, url, key = Path(sys.argv[1]), *sys.argv[2:]
run = Run(endpoints={"here": Endpoint(url=url, key=key, concurrency=8, actors=2)})
model = Model("strong", "openai", "openai/m", name="m", endpoint="here")
with RayExecutor() as executor:
    generate = Generate(Store(root / "journal", root / "packs"), executor, run)
    asked = (Request(model, (Message("user", f"question {n}"),), Sampling()) for n in range(1500))
    (root / "replies").write_text("\\n".join(reply.text for reply in generate(asked)))
"""
STATE = """
import json, ray
ray.init(address="auto", log_to_driver=False)
from ray._private.state import state
print(json.dumps([state.node_table(), state.job_table(), state.actor_table(None)], default=str))
"""


def test_an_endpoint_is_asked_from_both_nodes_and_its_key_stands_nowhere(
    clustered: tuple[Project, Cluster], tmp_path: Path
) -> None:
    """Also when the client on the node without the project is killed."""
    project, cluster = clustered
    environment = {**cluster.environment, SECRET_NAME: SECRET, "RAY_BACKEND_LOG_LEVEL": "debug"}
    nodes: set[str] = set()
    killed = 0
    # Slow until both clients ask: on a busy machine the second starts long after the first.
    with FakeServer(latency=0.5) as server:
        command = [sys.executable, "-c", BUYER, str(tmp_path), server.url, SECRET_NAME]
        with subprocess.Popen(command, cwd=project.root, env=environment) as buyer:
            while buyer.poll() is None:
                found = cluster.processes("_AsyncActor")
                nodes |= set(found.values())
                # More in flight than one client may have: both ask.
                blind = [process for process, node in found.items() if node == "blind"]
                if server.most > 4 and blind and not killed:
                    asked = subprocess.run([sys.executable, "-c", STATE], env=cluster.environment, capture_output=True)
                    (killed,) = blind
                    os.kill(killed, signal.SIGKILL)
                    server.latency = 0.05
                time.sleep(0.05)
        assert buyer.returncode == 0
        assert killed
        replies = (tmp_path / "replies").read_text().splitlines()
        assert replies == [f"reply to question {n} #0" for n in range(1500)]
        assert 1500 <= len(server.requests) <= 1500 + 4, "more was asked twice than one client had in flight"
        assert server.most <= 8
        assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {SECRET}"}
    assert nodes == {"seen", "blind"}
    assert b"_AsyncActor" in asked.stdout
    assert SECRET.encode() not in asked.stdout
    assert holding(Path(cluster.environment["RAY_TMPDIR"]), (SECRET,)) == []
    assert holding(tmp_path, (SECRET,)) == []


@pytest.mark.timeout(1800)  # Ray Train starts many processes, which takes minutes on a busy machine
def test_nodes_that_share_no_folder_train_as_one_process_does(
    clustered: tuple[Project, Cluster], smoke: Project
) -> None:
    project, cluster = clustered
    adapter, nodes = "data/smoke/adapters/cot", set[str]()
    shutil.rmtree(project.root / adapter)
    running = project.start("lema", "make", "adapter", "smoke/cot")
    while running.poll() is None:
        nodes |= set(cluster.processes("RayTrainWorker").values())
        time.sleep(0.1)
    said, _ = running.communicate()
    assert running.returncode == 0, said
    assert nodes == {"seen", "blind"}
    shared, alone = (json.loads((one.root / adapter / "training.json").read_text()) for one in (project, smoke))
    losses = ("first_loss", "final_loss")
    assert [shared.pop(name) for name in losses] == pytest.approx([alone.pop(name) for name in losses], rel=1e-4)
    assert shared == alone


def test_a_node_without_the_project_does_its_share_and_a_run_goes_on_when_it_is_lost(
    clustered: tuple[Project, Cluster], smoke: Project
) -> None:
    project, cluster = clustered
    expected = (smoke.root / "data" / "smoke" / "samples.parquet").read_bytes()
    assert follow(project, cluster) == ({"seen", "blind"}, expected)
    assert cluster.second.returncode == -signal.SIGKILL
