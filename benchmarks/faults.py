"""Requests to an endpoint on which everything goes wrong now and then, and to one that keeps a limit.

    python -m benchmarks.faults [--requests 5000]

The endpoint (tests/faults.py) is a process of its own. Four runs, each with an empty store: without faults, with a
seeded mix of them on a quarter of all requests, and twice with a limit of 300 requests a second, which params.yaml
knows or does not know. Every request is accounted for or this fails. Writes benchmarks/results/faults.md.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lema.completions.generate import Generate
from lema.completions.packs import Entry
from lema.completions.store import Store
from lema.compute import parquet
from lema.compute.factory import make_executor
from lema.models.types import Model, Request, Sampling
from lema.recipe.params import Endpoint, Run
from lema.rows import Message
from tests.faults import MIX

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks/results/faults.md"
LIMIT, LATENCY, INFLIGHT = 300, 0.1, 64
MODEL = Model("strong", "openai", "openai/m", name="m", endpoint="here")


@dataclass(frozen=True)
class Outcome:
    """Of one run: wall time in seconds, what became of the requests, and what the server did to them."""

    seconds: float
    bought: int
    refused: int
    failed: int
    sent: int
    tally: dict[str, int]
    rate: float

    def line(self, name: str) -> str:
        refusals = self.tally.get("limited", 0)
        return (
            f"| {name} | {self.seconds:.1f} | {self.bought} | {self.refused} | {self.failed} | {self.sent} | "
            f"{self.rate:.1f} | {refusals} ({refusals / self.sent:.2%}) |"
        )


def requests(count: int) -> list[Request]:
    said = "A train leaves at noon with twelve boxes of apples. " * 8
    return [Request(MODEL, (Message("user", f"{said} question {n}"),), Sampling(seed=7)) for n in range(count)]


def run(where: str, count: int, faults: dict[str, Any], **limits: Any) -> Outcome:
    command = [sys.executable, "-m", "tests.faults", json.dumps({"latency": LATENCY, "patience": 10, **faults})]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server,
    ):
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        endpoint = Endpoint(url=url, **{"concurrency": INFLIGHT, "timeout": 5.0, "retries": 8, **limits})
        settings = Run(executor=where, endpoints={"here": endpoint})  # type: ignore[arg-type]
        store = Store(Path(folder) / "journal", Path(folder) / "packs")
        generate = Generate(store, make_executor(settings), settings)
        asked = requests(count)
        start = time.monotonic()
        replies = list(generate(asked))
        seconds = time.monotonic() - start
        said, _ = server.communicate("")
        sure_once(store, asked, generate)
    for request, reply in zip(asked, replies, strict=True):
        mine = f"reply to {request.messages[0].content[-40:]} #7"
        assert reply.text == mine if reply.finish == "stop" else reply.error, reply
    told = json.loads(said.strip().splitlines()[-1])
    # The first request goes alone.
    times = told["times"][1:]
    served = told["tally"].get("good", 0)
    counts = (generate.bought.total(), generate.refused.total(), generate.failed.total())
    return Outcome(seconds, *counts, len(told["times"]), told["tally"], (served - 1) / (times[-1] - times[0]))


def sure_once(store: Store, asked: list[Request], generate: Generate) -> None:
    """Every request is in the store once, and nothing else is."""
    kept = Counter(entry.id for pack in store.seal() for entry in parquet.Rows(pack, Entry))
    assert kept == Counter(request.key for request in asked)
    assert generate.bought.total() + generate.refused.total() + generate.failed.total() == len(asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--executor", default="local", choices=("local", "ray"))
    parser.add_argument("--write", type=Path, default=RESULT)
    options = parser.parse_args()
    os.environ["LEMA_HOME"] = tempfile.mkdtemp()
    told = {"requests_per_minute": LIMIT * 60}
    # What is imported and connected once is not measured.
    run(options.executor, INFLIGHT, {})
    runs = {
        "no faults": run(options.executor, options.requests, {}),
        "faults": run(options.executor, options.requests, {"mix": MIX}),
        f"limit of {LIMIT} a second, given": run(options.executor, options.requests, {"rate": LIMIT}, **told),
        f"limit of {LIMIT} a second, not given": run(
            options.executor, options.requests, {"rate": LIMIT}, concurrency=None
        ),
    }
    happened = ", ".join(f"{name} {count}" for name, count in sorted(runs["faults"].tally.items()) if name != "good")
    lines = [
        "# Faults",
        "",
        f"{options.requests} requests, {INFLIGHT} in flight (as many as prove worth it in the last run), mean latency "
        f"{LATENCY} s, timeout 5 s, retries 8; executor {options.executor}, {os.cpu_count()} processors "
        f"({platform.machine()}), Python {platform.python_version()}.",
        "",
        "| | wall time, s | bought | refused | failed | requests sent | good replies a second | 429 for the limit |",
        "|---|---|---|---|---|---|---|---|",
        *(outcome.line(name) for name, outcome in runs.items()),
        "",
        f"With faults: {happened}. Every reply is that of its own request, and every request is in the store once.",
        f"Wall time with faults is {runs['faults'].seconds / runs['no faults'].seconds:.2f} times that without.",
    ]
    options.write.parent.mkdir(parents=True, exist_ok=True)
    options.write.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
