"""The completion store at a million completions: time, size, memory; and a rerun that buys nothing, beside Curator's.

    python benchmarks/store.py [--rows 100000,1000000] [--peer 20000]

Every measurement is a process of its own, whose peak memory is that of all of it. The texts are made of 4,000 words
drawn with a fixed seed, 2,000 characters each. The rerun of ours is the whole stage `samples` without its imports:
prompts rendered, keys made, replies found and read, rows written as Parquet. Curator's is a second call with the same
prompts and its cache on, until all rows are in hand; the first one asks a local server. Curator gets an environment of
its own, `.venv-curator`. `--peer 0` leaves it out. Writes benchmarks/results/store.md.
"""

import argparse
import importlib.util
import inspect
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks/results/store.md"
CURATOR = (".venv-curator", "bespokelabs-curator==0.1.31")
NAMES = (
    *("lema, stage `samples`", "Curator 0.1.31, another parser"),
    *("lema, `dvc repro`, nothing changed", "Curator 0.1.31, nothing changed"),
)
LENGTH = 2000  # characters
PATHS = 1000  # a question
BATCH = 4096
QUESTION = "A box holds {0} pens. How many pens are in {0} boxes?"
PROMPT = {"system": "Solve the problem step by step.", "user": "{{ question }}"}

_draw = random.Random("words")
WORDS = ["".join(_draw.choices("abcdefghijklmnopqrst0123456789", k=_draw.randrange(2, 9))) for _ in range(4000)]


def text(number: int) -> str:
    draw = random.Random(number)
    return " ".join(draw.choices(WORDS, k=LENGTH // 4))[:LENGTH]


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Seconds by the clock, and those of processors, of this process and of those that it has waited for."""
    took: dict[str, float] = {}
    clock, processor = time.perf_counter(), sum(os.times()[:4])
    yield took
    took["stage"], took["processor"] = time.perf_counter() - clock, sum(os.times()[:4]) - processor


# Ours.


def rows(count: int, generate: Any) -> Iterator[Any]:
    """The stage `samples`: `count` paths, called as the pipeline calls it."""
    from lema.models.types import Model
    from lema.recipe.basic_types import Prompt
    from lema.recipe.sampler_schema import SamplesSpec
    from lema.rows import Question
    from lema.stages.samples import samples
    from lema.tasks.gsm8k import gsm8k

    questions = [Question(f"q-{n:05}", "train", QUESTION.format(n), str(n * n), None) for n in range(count // PATHS)]
    prompt = Prompt.model_validate(PROMPT).model_dump()
    sampler = {"model": "strong", "prompt": prompt, "paths": PATHS, "temperature": 0.7}
    model = Model("strong", "openai", "openai here m", name="m", endpoint="here")
    given = {
        "spec": SamplesSpec.model_validate({"samplers": {"strong": sampler}}),
        "task": gsm8k,
        "models": {"strong": model},
        "generate": generate,
        "read_file": None,
        "log": print,
    }
    asked = [one.name for one in inspect.signature(samples).parameters.values() if one.kind is one.KEYWORD_ONLY]
    return samples(questions, model, **{name: given[name] for name in asked})


def store(folder: Path) -> Any:
    from lema.completions.store import Store

    os.environ["LEMA_HOME"] = str(folder)
    return Store(folder / "journal", folder / "completions")


def fill(count: int, folder: Path) -> dict[str, float]:
    """Write what the stage will ask for, in its order."""
    from lema.compute.executor import chunked
    from lema.models.types import Completion

    filled, seconds, number = store(folder), 0.0, 0

    def generate(requests: Iterable[Any]) -> Iterator[Any]:
        nonlocal seconds, number
        for block in chunked(requests, BATCH):
            pairs = []
            for request in block:
                pairs.append((request.key, Completion(text(number), "stop", None, 100, 500)))
                number += 1
            start = time.perf_counter()
            filled.add(pairs, model="strong")
            seconds += time.perf_counter() - start
            yield from (completion for _, completion in pairs)

    for _ in rows(count, generate):
        pass
    start = time.perf_counter()
    packs = filled.seal()
    sealed = time.perf_counter() - start
    return {
        "journal": seconds,
        "seal": sealed,
        "bytes": sum(path.stat().st_size for path in packs),
        "packs": len(packs),
    }


def look(count: int, folder: Path) -> dict[str, float]:
    """Open, verifying every pack and then not, and look up everything in the order of the requests."""
    from lema.compute.executor import chunked
    from lema.models.types import Completion

    keys: list[str] = []

    def generate(requests: Iterable[Any]) -> Iterator[Any]:
        for request in requests:
            keys.append(request.key)
            yield Completion("", "stop")

    for _ in rows(count, generate):
        pass
    times = []
    (folder / "packs.json").unlink(missing_ok=True)
    for _ in range(2):
        start = time.perf_counter()
        opened = store(folder)
        assert opened.known(keys[:1]) == [True]
        times.append(time.perf_counter() - start)
    start = time.perf_counter()
    for block in chunked(keys, BATCH):
        assert all(len(reply.text) == LENGTH for reply in opened.get_many(block))
    return {"first": times[0], "open": times[1], "look": time.perf_counter() - start}


def rerun(count: int, folder: Path) -> dict[str, float]:
    """The stage with every reply there."""
    import lema.recipe
    import lema.stages.samples
    import lema.tasks.gsm8k  # noqa: F401
    from lema.completions.generate import Generate
    from lema.compute import parquet
    from lema.compute.executor import LocalExecutor
    from lema.recipe.params import Run
    from lema.rows import Sample

    parquet.rows_to_table(Sample, [])  # pyarrow imports more with the first rows
    with timed() as took:
        generate = Generate(store(folder), LocalExecutor(), Run(), name="samples", offline=True)
        written = parquet.write_rows(folder / "samples.parquet", Sample, rows(count, generate))
    assert written == generate.hits.total() == count
    return {**took, "rows": (folder / "samples.parquet").stat().st_size}


def again(count: int, folder: Path) -> dict[str, float]:
    """The same command again, of DVC, in a project that has made these rows: no stage runs."""
    sys.path.insert(0, str(ROOT / "tests/e2e"))
    from project import new_project, params, recipe

    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        project = new_project(Path(place))
        project.env["LEMA_HOME"] = str(folder)
        records = [{"question": QUESTION.format(n), "answer": f"#### {n * n}"} for n in range(count // PATHS)]
        records.append({"question": "What is left of two apples when both are eaten?", "answer": "#### 0"})
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (project.root / "students/pens.jsonl").write_text(lines, encoding="utf-8")
        sampler = {"model": "strong", "prompt": PROMPT, "paths": PATHS, "temperature": 0.7}
        asked = {
            "source": {"file": "students/pens.jsonl", "test_from": "train", "test": 1},
            "questions": {"task": "gsm8k"},
            "models": {**recipe()["models"], "strong": {"backend": "openai", "endpoint": "here", "name": "m"}},
            "samples": {"samplers": {"careful": sampler}},
        }
        project.write("recipes/tiny.yaml", {**recipe(), **asked})
        here = params()
        here["recipes"]["tiny"] = "students"
        here["run"]["endpoints"]["here"] = {"url": "http://127.0.0.1:9/v1"}
        project.write("params.yaml", here)
        assert project.repro("samples@tiny").bought["samples"] == (count, count, 0)
        with timed() as took:
            assert project.repro("samples@tiny").ran == []
    return took


# Curator.


def curator(count: int, folder: Path, url: str, parser: str) -> dict[str, float]:
    """A call whose replies go through a parser; its name is in what it makes, so another name is another parser."""
    os.environ |= {
        "CURATOR_CACHE_DIR": str(folder),
        "CURATOR_DISABLE_RICH_DISPLAY": "1",
        "TELEMETRY_ENABLED": "false",
        "OPENAI_API_KEY": "none",
        "HF_HUB_OFFLINE": "1",
    }
    # The table of tokens that it counts with is in one of its packages; it would look for it on the net.
    places = importlib.util.find_spec("litellm")
    assert places is not None
    assert places.origin is not None
    os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(places.origin).parent / "litellm_core_utils/tokenizers")
    from bespokelabs import curator as theirs

    class Solver(theirs.LLM):  # type: ignore[misc]
        def prompt(self, row: dict[str, str]) -> str:
            return row["question"]

        def parse(self, row: dict[str, str], reply: str) -> dict[str, str]:
            return {"question": row["question"], "response": reply, "parser": parser}

    limits = {"max_requests_per_minute": 10**7, "max_tokens_per_minute": 10**11, "max_concurrent_requests": 64}
    model = Solver(
        model_name="m",
        backend="openai",
        generation_params={"temperature": 0.7, "max_tokens": 512},
        backend_params={"base_url": url, **limits},
    )
    prompts = [{"question": f"A box holds {n} pens. How many pens are in {n} boxes?"} for n in range(count)]
    with timed() as took:
        made = list(model(prompts).dataset)
        texts = [row["response"] for row in made if row["parser"] == parser]
        assert all(len(one) == LENGTH for one in texts)
        assert len(texts) == count
    return took


# Measuring.


def measured(python: Path | str, mode: str, count: int, folder: Path, *more: str) -> dict[str, float]:
    command = [str(python), __file__, "child", mode, str(count), str(folder), *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(mode, count, {name: round(value, 2) for name, value in found.items()}, flush=True)
    return found


def child(mode: str, count: str, folder: str, *more: str) -> None:
    modes: dict[str, Any] = {"fill": fill, "look": look, "rerun": rerun, "again": again, "curator": curator}
    found = modes[mode](int(count), Path(folder), *more)
    print("\n" + json.dumps({**found, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}), flush=True)


def compared(count: int, work: Path) -> dict[str, list[dict[str, float]]]:
    """Three reruns of `count` rows: ours and Curator's, with a new parser or code, and with nothing new."""
    measured(sys.executable, "fill", count, work / "ours")
    environment, package = CURATOR
    python = ROOT / environment / "bin/python"
    if not (ROOT / environment / ".installed").exists():
        subprocess.run([sys.executable, "-m", "venv", str(ROOT / environment)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", package], check=True)
        (ROOT / environment / ".installed").touch()
    sys.path.insert(0, str(ROOT / "tests"))
    from fake_server import FakeServer

    def answer(body: dict[str, Any]) -> str:
        return text(int(body["messages"][-1]["content"].split()[3]) if "pens" in str(body["messages"]) else 0)

    took: dict[str, list[dict[str, float]]] = {name: [] for name in NAMES}
    with FakeServer(answer=answer) as server:
        measured(python, "curator", count, work / "curator", server.url, "0")
        sent = len(server.requests)
        for turn in ("1", "2", "3"):
            for name, mode in zip(NAMES, ("rerun", "curator", "again", "curator"), strict=True):
                if mode == "curator":
                    took[name].append(measured(python, mode, count, work / "curator", server.url, turn))
                else:
                    took[name].append(measured(sys.executable, mode, count, work / "ours"))
        # It may ask a word or two to learn the limits of a server, but nothing of ours.
        assert len(server.requests) - sent < 20, "Curator did not use its cache"
    return took


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", default="100000,1000000")
    parser.add_argument("--peer", type=int, default=20_000)
    options = parser.parse_args()
    mega = 1e6
    lines = [
        "# The completion store",
        "",
        f"Completions of {LENGTH:,} characters; seconds, and peak memory of the whole process.",
        "",
        "| completions | journal | seal | packs, size | open, verifying | open | look up all | stage, all hits "
        "| a row | of processors | `dvc repro` again | memory of writing | of looking up | of the stage |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory(dir=ROOT / ".lema" if (ROOT / ".lema").is_dir() else None) as place:
        for count in map(int, filter(None, options.rows.split(","))):
            folder = Path(place) / str(count)
            wrote = measured(sys.executable, "fill", count, folder)
            looked = measured(sys.executable, "look", count, folder)
            staged = measured(sys.executable, "rerun", count, folder)
            unchanged = measured(sys.executable, "again", count, folder)
            lines.append(
                f"| {count:,} | {wrote['journal']:.1f} | {wrote['seal']:.1f} | {wrote['packs']}, "
                f"{wrote['bytes'] / mega:,.0f} MB | {looked['first']:.1f} | {looked['open']:.1f} | "
                f"{looked['look']:.1f} | {staged['stage']:.1f} | {staged['stage'] / count * 1e6:.0f} µs | "
                f"{staged['processor'] / count * 1e6:.0f} µs | {unchanged['stage']:.1f} | "
                f"{wrote['peak'] / mega:,.0f} MB | {looked['peak'] / mega:,.0f} MB | {staged['peak'] / mega:,.0f} MB |"
            )
        if options.peer:
            found = compared(options.peer, Path(place) / "peer")
            lines += [
                "",
                f"A rerun of {options.peer:,} rows that buys nothing, three times in turn. Curator keeps the rows that "
                "a parser made as one file, and its replies beside it. With another parser it reads the replies, as "
                "our stage does when its code or its sampler has changed. With nothing changed it opens the file, and "
                "`dvc repro` runs no stage, which takes about as long whatever the rows; imports are in its seconds, "
                "in no others.",
                "",
                "| | seconds | a row, of the median | of processors |",
                "|---|---|---|---|",
            ]
            for name, own in found.items():
                said = ", ".join(f"{one['stage']:.2f}" for one in own)
                each = (sorted(one[what] for one in own)[1] / options.peer for what in ("stage", "processor"))
                lines.append(f"| {name} | {said} | {' | '.join(f'{one * 1e6:.0f} µs' for one in each)} |")
    lines += ["", f"{os.cpu_count()} processors, {platform.machine()}, Python {platform.python_version()}."]
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(*sys.argv[2:])
    else:
        main()
