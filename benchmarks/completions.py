"""How fast requests are answered: ours beside bare clients and other frameworks, all against the same local server.

    python benchmarks/completions.py [--requests 5000] [--only local,aiohttp,...] [--inflight 64,256] [--latency 0.1,1]
                                     [--beside FOLDER]

With `--beside`, lema of another checkout runs in turn with this one.

The server is a process of its own and answers after a time drawn from a gamma distribution (shape 4, fixed seed). Every
contender is a process of its own too, started afresh with empty caches; a rate is the number of requests over the time
from the first of them to the moment when the contender has all replies in hand, kept where it keeps them. Start-up is
the time from the start of the process to its first request. Writes benchmarks/results/completions.md and .svg.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks/results/completions.md"
# Frameworks in environments of their own, pinned.
PEERS = {
    "curator": (".venv-curator", ["bespokelabs-curator==0.1.31"]),
    "distilabel": (".venv-distilabel", ["distilabel[openai]==1.5.3", "openai==3.54.0", "requests"]),
}
NAMES = {
    "aiohttp": "bare aiohttp",
    "client": "bare AsyncOpenAI",
    "local": "lema, in process",
    "ray": "lema, on Ray",
    "actors": "lema, two actors",
    "curator": "Curator 0.1.31",
    "distilabel": "distilabel 1.5.3",
    "local-beside": "the other lema, in process",
    "ray-beside": "the other lema, on Ray",
}
COLOURS = ("#9aa5b1", "#7b8794", "#1f6feb", "#1a4f9c", "#0b2e63", "#d97706", "#b45309", "#57ab5a", "#347d39")
WORDS = [
    "the",
    "train",
    "leaves",
    "at",
    "noon",
    "and",
    "every",
    "box",
    "holds",
    "twelve",
    "apples",
    "so",
    "the",
    "farmer",
    "counts",
    "them",
    "twice",
]
PROBE = "sum and name the parts"  # stands in every request of ours, and in none that a framework sends on its own


@dataclass(frozen=True)
class Measured:
    """Of one contender: requests a second, seconds before the first request, requests that the server saw."""

    rate: float
    startup: float
    seen: int


def prompts(count: int) -> list[str]:
    draw = random.Random("prompts")
    return [f"Question {n}: {PROBE}. {' '.join(draw.choices(WORDS, k=80))}" for n in range(count)]


# The server.


async def serve(mean: float) -> None:
    from aiohttp import web

    draw = random.Random(f"latency {mean}")
    text = " ".join(draw.choices(WORDS, k=100))
    reply = json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1700000000,
            "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 120, "total_tokens": 220},
        }
    ).encode()
    seen: list[float] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        if request.path == "/seen":
            return web.json_response({"first": min(seen, default=0.0), "seen": len(seen)})
        if PROBE.encode() in await request.read():
            seen.append(time.time())
            await asyncio.sleep(draw.gammavariate(4, mean / 4))
        # Every reply has an id of its own, as with any endpoint: one that comes twice on a connection is asked again.
        return web.Response(
            body=reply.replace(b"chatcmpl-1", b"chatcmpl-%d" % len(seen)), content_type="application/json"
        )

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


@contextmanager
def server(mean: float) -> Iterator[str]:
    command = [sys.executable, __file__, "serve", str(mean)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


# The contenders. Each returns when it has the texts of all replies.


async def _gathered(ask: Callable[[str], object], count: int, inflight: int) -> list[str]:
    free = asyncio.Semaphore(inflight)

    async def one(prompt: str) -> str:
        async with free:
            return await ask(prompt)  # type: ignore[misc, no-any-return]

    return list(await asyncio.gather(*(one(prompt) for prompt in prompts(count))))


def body(prompt: str) -> dict[str, object]:
    said = [{"role": "user", "content": prompt}]
    return {"model": "m", "messages": said, "temperature": 0.7, "max_tokens": 512}


async def aiohttp(url: str, count: int, inflight: int) -> list[str]:
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(prompt: str) -> str:
            async with session.post(f"{url}/chat/completions", json=body(prompt)) as reply:
                return (await reply.json())["choices"][0]["message"]["content"]  # type: ignore[no-any-return]

        return await _gathered(ask, count, inflight)


async def client(url: str, count: int, inflight: int) -> list[str]:
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

        async def ask(prompt: str) -> str:
            reply = await client.chat.completions.create(**body(prompt))  # type: ignore[call-overload]
            return reply.choices[0].message.content  # type: ignore[no-any-return]

        return await _gathered(ask, count, inflight)


def lema(url: str, count: int, inflight: int, where: str, actors: int = 1) -> list[str]:
    from lema.completions.generate import Generate
    from lema.completions.store import Store
    from lema.compute.factory import make_executor
    from lema.models.types import Model, Request, Sampling
    from lema.recipe.params import Endpoint, Run
    from lema.rows import Message

    endpoint = Endpoint(url=url, concurrency=inflight, actors=actors)
    run = Run(executor=where, endpoints={"here": endpoint})  # type: ignore[arg-type]
    model, sampling = Model("strong", "openai", "openai/m", name="m", endpoint="here"), Sampling(temperature=0.7)
    with tempfile.TemporaryDirectory() as folder:
        generate = Generate(Store(Path(folder) / "journal", Path(folder) / "packs"), make_executor(run), run)
        asked = [Request(model, (Message("user", prompt),), sampling) for prompt in prompts(count)]
        return [reply.text for reply in generate(asked)]


def curator(url: str, count: int, inflight: int) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "CURATOR_CACHE_DIR": folder,
            "CURATOR_DISABLE_CACHE": "1",
            "CURATOR_DISABLE_RICH_DISPLAY": "1",
            "TELEMETRY_ENABLED": "false",
            "OPENAI_API_KEY": "none",
            "HF_HUB_OFFLINE": "1",
        }
        from bespokelabs import curator as theirs
        from bespokelabs.curator.request_processor.online import openai_online_request_processor as online

        # It would fetch a tokenizer from the network; counting characters is less work.
        encoding = argparse.Namespace(encode=lambda text, **_: range(len(text) // 4))
        online.OpenAIOnlineRequestProcessor.get_token_encoding = lambda _: encoding
        limits = {"max_requests_per_minute": 10**7, "max_tokens_per_minute": 10**11}
        model = theirs.LLM(
            model_name="m",
            backend="openai",
            generation_params={"temperature": 0.7, "max_tokens": 512},
            backend_params={"base_url": url, "max_concurrent_requests": inflight, **limits},
        )
        return [row["response"] for row in model(prompts(count)).dataset]


def distilabel(url: str, count: int, inflight: int) -> list[str]:
    os.environ["HF_HUB_OFFLINE"] = "1"
    from distilabel.models import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts
    from distilabel.steps.tasks import TextGeneration

    with tempfile.TemporaryDirectory() as folder, Pipeline(name="speed", cache_dir=folder) as pipeline:
        rows = LoadDataFromDicts(data=[{"instruction": one} for one in prompts(count)], batch_size=inflight)
        parameters = {"temperature": 0.7, "max_new_tokens": 512}
        model = OpenAILLM(model="m", base_url=url, api_key="none", generation_kwargs=parameters)
        rows >> TextGeneration(llm=model, input_batch_size=inflight, use_cache=False)
        made = pipeline.run(use_cache=False)
        return [row["generation"] for row in made["default"]["train"]]


def contend(name: str, url: str, count: int, inflight: int) -> None:
    """Ask, and print when all texts were there and how many."""
    if name in ("local", "ray"):
        texts = lema(url, count, inflight, name)
    elif name == "actors":
        texts = lema(url, count, inflight, "ray", actors=2)
    elif name in ("aiohttp", "client"):
        texts = asyncio.run({"aiohttp": aiohttp, "client": client}[name](url, count, inflight))
    else:
        texts = {"curator": curator, "distilabel": distilabel}[name](url, count, inflight)
    print("\n" + json.dumps({"end": time.time(), "texts": len([text for text in texts if text])}), flush=True)


# Measuring.


def python(name: str) -> str:
    """The interpreter of a contender, in an environment that is made when it is not there."""
    if name not in PEERS:
        return sys.executable
    folder, packages = PEERS[name]
    stamp = ROOT / folder / ".installed"
    if not stamp.exists():
        print(f"installing {' '.join(packages)} in {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(ROOT / folder)], check=True)
        subprocess.run([str(ROOT / folder / "bin/pip"), "install", "--quiet", *packages], check=True)
        stamp.touch()
    return str(ROOT / folder / "bin/python")


def measure(name: str, mean: float, count: int, inflight: int, beside: Path | None) -> Measured | str:
    root = beside if beside and name.endswith("-beside") else ROOT
    with server(mean) as url, tempfile.TemporaryDirectory() as home:
        script, contender = str(root / "benchmarks" / "completions.py"), name.removesuffix("-beside")
        command = [python(name), script, "contend", contender, f"{url}/v1", str(count), str(inflight)]
        places = {"LEMA_HOME": home, "PYTHONPATH": str(root) if name not in PEERS else ""}
        begin = time.time()
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | places, cwd=home, check=False)
        if done.returncode:
            return (done.stderr.strip().splitlines() or ["no output"])[-1]
        said = json.loads(done.stdout.strip().splitlines()[-1])
        with urllib.request.urlopen(f"{url}/seen") as reply:
            seen = json.load(reply)
    if said["texts"] != count:
        return f"{said['texts']} replies for {count} requests"
    return Measured(count / (said["end"] - seen["first"]), seen["first"] - begin, seen["seen"])


Results = dict[tuple[float, int], dict[str, list[Measured | str]]]


def report(results: Results, count: int, rounds: int) -> str:
    lines = [
        "# Completions",
        "",
        f"{count} requests, {rounds} round{'s' * (rounds > 1)} (median), {os.cpu_count()} processors "
        f"({platform.machine()}), Python {platform.python_version()}; server and contender on the same machine.",
        "Ideal is requests in flight over mean latency. Start-up is not in the rate.",
    ]
    for (mean, inflight), row in results.items():
        lines += ["", f"## {inflight} in flight, mean latency {mean:g} s: ideal {inflight / mean:.0f} a second", ""]
        lines += ["| | requests a second | of the ideal | start-up, s | requests seen |", "|---|---|---|---|---|"]
        for name, found in row.items():
            good = [one for one in found if isinstance(one, Measured)]
            if not good:
                lines.append(f"| {NAMES[name]} | failed: {found[-1]} | | | |")
                continue
            rate = statistics.median(one.rate for one in good)
            startup = statistics.median(one.startup for one in good)
            lines.append(
                f"| {NAMES[name]} | {rate:.0f} | {rate * mean / inflight:.2f} | {startup:.1f} | {good[-1].seen} |"
            )
    return "\n".join(lines) + "\n"


def plot(results: Results) -> str:
    """Bars of the share of the ideal rate, a group for each setting."""
    bars, labels, left = [], [], 70.0
    for (mean, inflight), row in results.items():
        start = left
        for name, found in row.items():
            rates = [one.rate for one in found if isinstance(one, Measured)]
            share = statistics.median(rates) * mean / inflight if rates else 0.0
            colour, label = COLOURS[list(NAMES).index(name)], f"{share:.2f}" if rates else "failed"
            bars.append(
                f'<rect x="{left:.0f}" y="{260 - 200 * share:.1f}" width="26" height="{200 * share:.1f}" '
                f'fill="{colour}"><title>{NAMES[name]}: {share:.2f}</title></rect>'
                f'<text x="{left + 13:.0f}" y="{254 - 200 * share:.1f}" text-anchor="middle">{label}</text>'
            )
            left += 30
        labels.append(
            f'<text x="{(start + left) / 2:.0f}" y="280" text-anchor="middle">{inflight} in flight, {mean:g} s</text>'
        )
        left += 30
    used = [name for name in NAMES if any(name in row for row in results.values())]
    key = [
        f'<rect x="{70 + 135 * place}" y="300" width="12" height="12" fill="{COLOURS[list(NAMES).index(name)]}"/>'
        f'<text x="{87 + 135 * place}" y="310">{NAMES[name]}</text>'
        for place, name in enumerate(used)
    ]
    width = max(left, 80 + 135 * len(used))
    axis = [
        f'<line x1="60" x2="{width:.0f}" y1="{260 - 200 * share:.0f}" y2="{260 - 200 * share:.0f}" stroke="#ddd"/>'
        f'<text x="52" y="{264 - 200 * share:.0f}" text-anchor="end">{share:g}</text>'
        for share in (0, 0.25, 0.5, 0.75, 1)
    ]
    title = '<text x="60" y="30" font-size="14">Share of the ideal rate (in flight / mean latency)</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width + 20:.0f}" height="330" font-family="sans-serif" '
        f'font-size="11">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join([title, *axis, *bars, *labels, *key])
        + "\n</svg>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", default=",".join(name for name in NAMES if not name.endswith("-beside")))
    parser.add_argument("--beside", type=Path, metavar="FOLDER", help="another checkout of lema")
    parser.add_argument("--inflight", default="64,256")
    parser.add_argument("--latency", default="0.1,1")
    parser.add_argument("--write", type=Path, default=RESULT, help="where the table goes; the plot lies beside it")
    options = parser.parse_args()
    names = options.only.split(",")
    if options.beside:
        names += [f"{name}-beside" for name in names if name in ("local", "ray")]
    results: Results = {}
    for mean in map(float, options.latency.split(",")):
        for inflight in map(int, options.inflight.split(",")):
            row = results.setdefault((mean, inflight), {name: [] for name in names})
            for _ in range(options.rounds):
                # In turn, so that a busy minute of the machine does not fall on one of them.
                for name, found in row.items():
                    found.append(measure(name, mean, options.requests, inflight, options.beside))
                    print(f"{inflight} in flight, {mean:g} s, {NAMES[name]}: {found[-1]}", flush=True)
    options.write.parent.mkdir(parents=True, exist_ok=True)
    options.write.write_text(report(results, options.requests, options.rounds), encoding="utf-8")
    options.write.with_suffix(".svg").write_text(plot(results), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(float(sys.argv[2])))
    elif sys.argv[1:2] == ["contend"]:
        contend(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        main()
