"""Kill -9 at random moments: nothing is paid for twice, and the result is the same to the byte.

    python benchmarks/kills.py [--rounds 20] [--seed 1]

A project of the tests samples from a local endpoint on Ray. In every round one process is killed at a random moment
of the stage: the driver (`lema make`), the actor that asks the endpoint, the raylet, or all of them with `lema repro`
and `dvc`; then `lema repro` runs until it is done. Requests beyond those of an undisturbed run can only be those that
the actor held at the kill: in flight, or next in turn, for an actor outlives its driver by a moment. Writes
benchmarks/results/kills.md.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lema.completions.client import most_held
from tests.e2e.project import Project, new_project, params
from tests.e2e.test_completions import answer
from tests.fake_server import FakeServer

PATHS, QUESTIONS, CONCURRENCY, LATENCY = 20, 20, 16, 0.1
HELD = most_held(CONCURRENCY)
STAGE = "samples@tiny"
RESULTS = Path(__file__).parent / "results" / "kills.md"


def family(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def named(processes: list[psutil.Process], test: Callable[[str], bool]) -> list[psutil.Process]:
    found = []
    for process in processes:
        try:
            if test(" ".join(process.cmdline())):
                found.append(process)
        except psutil.Error:
            continue
    return found


VICTIMS: dict[str, Callable[[str], bool]] = {
    "driver": lambda line: "lema make samples" in line,
    "actor": lambda line: line.startswith("ray::") and "_AsyncActor" in line,
    "raylet": lambda line: "/raylet/raylet" in line,
    "everything": bool,
}


def prepared(root: Path, url: str, **sampler: Any) -> Project:
    """A project whose samples come from this endpoint, and are not made yet."""

    def ask(recipe: dict[str, Any]) -> None:
        asked = {"model": "served", "prompt": "cot", "paths": PATHS, "temperature": 0.5, **sampler}
        recipe["samples"]["samplers"] = {"served": asked}
        recipe["mix"]["arms"]["lema"]["cot"] = {}

    project = new_project(root)
    project.change("recipes/tiny.yaml", ask)
    settings = params(executor="ray", url=url)
    settings["run"]["endpoints"]["served"]["concurrency"] = CONCURRENCY
    project.write("params.yaml", settings)
    project.repro("questions@tiny")
    return project


def killed(project: Project, server: FakeServer, victim: str, moment: int) -> tuple[int, int]:
    """Runs and requests that it took to finish, when `victim` is killed once `moment` requests were made."""
    server.requests.clear()
    runs, kill = 0, True
    while True:
        runs += 1
        running = project.start("lema", "repro", STAGE)
        head = psutil.Process(running.pid)
        while kill and running.poll() is None:
            if len(server.requests) >= moment:
                for process in named(family(head), VICTIMS[victim]):
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
                        kill = False
            time.sleep(0.002)
        said, _ = running.communicate()
        # What the killed left behind ends by itself: it dies with its parent, or finds its Ray gone.
        if running.returncode == 0:
            if kill:
                raise SystemExit(f"no {victim} was found to be killed")
            return runs, len(server.requests)
        if "Traceback" in said and victim == "actor":
            raise SystemExit(said)
        if runs > 4:
            raise SystemExit(f"{victim}: not done after {runs} runs\n{said}")


def write(first: str = "", second: str = "") -> None:
    """One part of the results; the other stays as it is."""
    there, mark, rest = RESULTS.read_text(encoding="utf-8").partition("\n## ")
    RESULTS.write_text((first or there) + (f"\n{second}" if second else mark + rest), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    draw = random.Random(asked.seed)
    whole = PATHS * QUESTIONS
    lines = []
    with tempfile.TemporaryDirectory(prefix="kills-") as place, FakeServer(answer=answer, latency=LATENCY) as server:
        fresh = prepared(Path(place) / "fresh", server.url)
        calm = fresh.copy(Path(place) / "calm")
        calm.run("lema", "repro", STAGE)
        expected, once = calm.read("samples.parquet"), len(server.requests)
        assert once == whole, once
        for number in range(asked.rounds):
            victim = list(VICTIMS)[number % len(VICTIMS)]
            moment = draw.randrange(1, whole)
            project = fresh.copy(Path(place) / f"round-{number}")
            runs, requests = killed(project, server, victim, moment)
            same = project.read("samples.parquet") == expected
            lines.append((victim, moment, runs, requests - whole, same))
            print(f"{victim:<10} at {moment:>4}: {runs} runs, {requests - whole} requests again, same bytes: {same}")
            shutil.rmtree(project.root)
    worst = max(extra for *_, extra, _ in lines)
    table = "\n".join(
        f"| {who} | {at} | {runs} | {extra} | {'yes' if same else 'NO'} |" for who, at, runs, extra, same in lines
    )
    write(
        f"# Kill -9 at {asked.rounds} random moments\n\n"
        f"`python benchmarks/kills.py --rounds {asked.rounds} --seed {asked.seed}`: {whole} requests on Ray, "
        f"{CONCURRENCY} in flight at most and {HELD} held by the actor, {LATENCY:g} s each. The most that was asked "
        f"again in a round: {worst}.\n\n"
        f"| killed | after requests | runs in all | asked again | same bytes |\n|---|---|---|---|---|\n{table}\n"
    )
    if worst > HELD or not all(same for *_, same in lines):
        raise SystemExit("more was asked again than the actor can have held, or bytes differ")


if __name__ == "__main__":
    main()
