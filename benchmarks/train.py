"""Training speed: lema against TRL's SFTTrainer, same model, data and settings, one after the other in one run.

`make bench-train` writes benchmarks/results/train.md. TRL is installed without its dependencies into a folder of its
own, which only its processes see. Every training is a process of its own, so that peak memory is its own; contenders
take turns, and the first of a round is another one each time. Model, adapter, initial weights, optimizer, precision,
batch and order of the examples are the same unless a line says otherwise, so the losses of every step can be compared.
"""

import argparse
import csv
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from lema.recipe.basic_types import Prompt
from lema.recipe.prompt import render, reply
from lema.recipe.training_schema import AdapterSpec
from lema.rows import Example, Message
from lema.tasks.word_problems import word_problems
from lema.text.steps import number_steps, split_steps

ROOT = Path(__file__).resolve().parents[1]
Kind = Literal["cot", "correction"]
TRL = "trl==1.16.0"
CONTENDERS = {
    "lema": "as a recipe runs it, with `group_by_length: false`: the same batches as `trl`",
    "trl": "SFTTrainer with its own sampler, collator and loss; fp32 and no checkpointing, as lema",
    "trl-grouped": "the same with `train_sampling_strategy: group_by_length`: TRL at its best here; another order",
}


def examples(count: int, seed: int) -> list[Example]:
    """Chain of thought and corrections half and half, in the demo's formats, on problems of one to three steps."""
    chance = random.Random(seed)
    formats = {name: Prompt(**_prompt(name)) for name in ("cot", "correction")}
    records = (record for part, record in word_problems.generate(seed=seed) if part == "train")  # type: ignore[misc]
    made = []
    for place, record in enumerate(islice(records, count)):
        steps = split_steps(record["rationale"])
        kind: Kind = "correction" if place % 2 else "cot"
        variables = {"question": record["question"], "steps": steps, "answer": record["answer"]}
        if kind == "correction":
            variables |= _mistake(steps, record["answer"], chance)
        prompt = formats[kind]
        made.append(
            Example(f"bench/{place:06d}", "bench", kind, "", "", render(prompt, variables), reply(prompt, variables))
        )
    return made


def _mistake(steps: tuple[str, ...], answer: str, chance: random.Random) -> dict[str, Any]:
    at = chance.randrange(len(steps))
    equation, _, result = steps[at].rpartition(" = ")
    slip = f"{equation} = {chance.randint(2, 99)}."
    wrong = [*steps[:at], slip, *steps[at + 1 :], f"The answer is {chance.randint(2, 99)}."]
    right = [f"Step {place}: {step}" for place, step in enumerate([*steps, f"The answer is {answer}."], 1)]
    return {
        "path": number_steps(wrong),
        "incorrect_step": at + 1,
        "explanation": f"The result of {equation.split(':')[-1].strip()} is not that; it is {result}",
        "solution": right,
    }


def _prompt(name: str) -> dict[str, Any]:
    from lema.recipe.yaml import read_yaml

    plain = read_yaml(ROOT / "recipes" / "prompts" / f"{name}.yaml", name).plain()
    assert isinstance(plain, dict)
    return plain


def spec(steps: int, batch: int) -> AdapterSpec:
    return AdapterSpec(
        lr=1e-3,
        schedule="constant",
        steps=steps,
        batch=batch,
        max_length=2048,
        group_by_length=False,
        save_every=10_000,
    )


def now() -> tuple[float, float]:
    """Seconds by the clock, and of all processors by this process."""
    return time.perf_counter(), time.process_time()


def with_lema(rows: list[Example], settings: AdapterSpec, folder: Path) -> tuple[list[Any], list[float]]:
    """Times when training begins and after each step, and the loss of each step."""
    from lema.train.lora import train_adapter

    times: list[Any] = []
    (folder / "adapter").mkdir()
    curve = folder / "curve.csv"
    train_adapter(rows, base(), settings, folder / "adapter", folder / "scratch", curve, lambda *_: times.append(now()))
    with curve.open(encoding="utf-8") as lines:
        return times, [float(row["loss"]) for row in csv.DictReader(lines)]


def with_trl(rows: list[Example], settings: AdapterSpec, folder: Path, **more: Any) -> tuple[list[Any], list[float]]:
    """The same of TRL. It gets token ids, so that both learn from the very same tokens."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import TrainerCallback, set_seed
    from trl import SFTConfig, SFTTrainer

    from lema.models.local_weights import available_cores, load_network
    from lema.models.tokenize import load_tokenizer
    from lema.train.batching import encode_example

    set_seed(settings.seed)
    torch.set_num_threads(available_cores())
    tokenizer = load_tokenizer(base().location)
    encoded = [encode_example(row, tokenizer, chat=True) for row in rows]
    model = load_network(base().location)
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, config)
    times: list[Any] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            times.append(now())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(now())

    arguments = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=settings.batch,
        max_steps=settings.steps,
        learning_rate=settings.lr,
        lr_scheduler_type=settings.schedule,
        logging_steps=1,
        save_strategy="no",
        seed=settings.seed,
        data_seed=settings.seed,
        max_length=settings.max_length,
        completion_only_loss=True,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        bf16=torch.cuda.is_available(),
        gradient_checkpointing=False,
        **more,
    )
    data = Dataset.from_list(
        [
            {"input_ids": row["input_ids"], "completion_mask": [int(label >= 0) for label in row["labels"]]}
            for row in encoded
        ]
    )
    trainer = SFTTrainer(
        model=model, args=arguments, train_dataset=data, processing_class=tokenizer, callbacks=[Clock()]
    )
    trainer.train()
    return times, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def base() -> Any:
    from lema.train.base import Base
    from lema.train.embedded import ensure_embedded

    return Base("bench", True, str(ensure_embedded(Path(os.environ.get("LEMA_HOME", ROOT / ".lema")))))


def child(contender: str, job: Path) -> None:
    """One training; prints times, losses and peak memory as the last line."""
    import torch

    told = json.loads(job.read_text(encoding="utf-8"))
    rows = [
        Example(**{**row, "prompt": tuple(Message(**message) for message in row["prompt"])}) for row in told["rows"]
    ]
    settings = spec(told["steps"], told["batch"])
    with tempfile.TemporaryDirectory() as folder:
        if contender == "lema":
            times, losses = with_lema(rows, settings, Path(folder))
        else:
            more = {"train_sampling_strategy": "group_by_length"} if contender == "trl-grouped" else {}
            times, losses = with_trl(rows, settings, Path(folder), **more)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
    clock, processor = (last - first for last, first in zip(times[-1], times[0], strict=True))
    print(json.dumps({"clock": clock, "processor": processor, "losses": losses, "peak": peak}))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--steps", type=int, default=12)
    options.add_argument("--batch", type=int, default=8)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--only", nargs="*", default=list(CONTENDERS), choices=list(CONTENDERS))
    options.add_argument("--child", nargs=2, metavar=("CONTENDER", "JOB"), help=argparse.SUPPRESS)
    options.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "train.md")
    given = options.parse_args()
    if given.child:
        child(given.child[0], Path(given.child[1]))
        return
    rows = examples(given.steps * given.batch, seed=1)
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in given.only}
    with tempfile.TemporaryDirectory() as scratch:
        job = Path(scratch) / "job.json"
        told = {"rows": [asdict(row) for row in rows], "steps": given.steps, "batch": given.batch}
        job.write_text(json.dumps(told), encoding="utf-8")
        for turn in range(given.rounds):
            for name in _turn(given.only, turn):
                results[name].append(_run(name, job))
                print(f"{name}: {results[name][-1]['clock']:.1f} s", flush=True)
                done = {name: runs for name, runs in results.items() if runs}
                given.out.parent.mkdir(parents=True, exist_ok=True)
                given.out.write_text(page(rows, done, given.steps, given.batch), encoding="utf-8")
    print(given.out.read_text(encoding="utf-8"))


def _turn(names: list[str], turn: int) -> list[str]:
    """The contenders of a round, each time another one first."""
    first = turn % len(names)
    return [*names[first:], *names[:first]]


def _run(contender: str, job: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", contender, str(job)]
    path = os.pathsep.join([str(ROOT), *([str(trl())] if contender != "lema" else [])])
    environment = os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, env=environment, text=True, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"{contender} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def trl() -> Path:
    """The folder that holds TRL, installed when it is not there yet."""
    folder = ROOT / ".lema" / "bench" / TRL.replace("==", "-")
    if not folder.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), TRL]
        subprocess.run(command, check=True)
    return folder


def page(rows: list[Example], results: dict[str, list[dict[str, Any]]], steps: int, batch: int) -> str:
    """The report. Ratios are those of pairs, runs of the same round."""
    import torch

    from lema.models.local_weights import available_cores
    from lema.models.tokenize import load_tokenizer
    from lema.train.batching import encode_example
    from lema.train.packed import pack_rows

    tokenizer = load_tokenizer(base().location)
    encoded = [encode_example(row, tokenizer, chat=True) for row in rows]
    lengths = [len(row["input_ids"]) for row in encoded]
    learnt = sum(label >= 0 for row in encoded for label in row["labels"])
    once = pack_rows(encoded[:batch])["input_ids"].shape[1] / sum(lengths[:batch])
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {available_cores()} cores, fp32"
    rounds = max(map(len, results.values()))
    lines = [
        "# Training speed: lema and TRL",
        "",
        f"`make bench-train`, {rounds} rounds of {steps} steps of {batch} examples: SmolLM2-135M, LoRA of rank 16 on "
        f"all linear layers. {where}; torch {torch.__version__}, {TRL}, Python {platform.python_version()}.",
        "",
        f"{len(rows)} examples of {min(lengths)} to {max(lengths)} tokens (mean {statistics.mean(lengths):.0f}), half "
        f"CoT, half corrections; {learnt} tokens of loss. What examples begin with alike is computed once: {once:.0%} "
        f"of the tokens of the first {batch} examples are left.",
        "",
        "| | tokens of loss a second | a second of processor | peak memory |",
        "|---|---|---|---|",
    ]
    for name, runs in results.items():
        rates = [[learnt / run[kind] for run in runs] for kind in ("clock", "processor")]
        peak = statistics.median(run["peak"] for run in runs) / 1e9
        lines.append(f"| `{name}` | {_range(rates[0], '.1f')} | {_range(rates[1], '.1f')} | {peak:.2f} GB |")
    lines += ["", "Median (least to most). " + " ".join(f"`{name}`: {CONTENDERS[name]}." for name in results), ""]
    if "lema" in results and len(results) > 1:
        lines += ["| lema, times as fast as | by the clock | by processor time |", "|---|---|---|"]
        for name, runs in results.items():
            if name != "lema":
                pairs = list(zip(results["lema"], runs, strict=False))
                ratios = [[other[kind] / ours[kind] for ours, other in pairs] for kind in ("clock", "processor")]
                lines.append(f"| `{name}` | {_range(ratios[0], '.2f')} | {_range(ratios[1], '.2f')} |")
    if {"lema", "trl"} <= set(results):
        curves = [results[name][0]["losses"] for name in ("lema", "trl")]
        apart = max(abs(one - other) / other for one, other in zip(*curves, strict=True))
        lines += ["", f"Loss of each step, at most {apart:.1e} of it apart:", "", "| step | lema | trl |"]
        both = enumerate(zip(*curves, strict=True), 1)
        lines += ["|---|---|---|", *(f"| {step} | {one:.5f} | {other:.5f} |" for step, (one, other) in both)]
    return "\n".join(lines) + "\n"


def _range(numbers: list[float], form: str) -> str:
    """Median, and least and most when there are several."""
    middle = format(statistics.median(numbers), form)
    return middle if len(numbers) == 1 else f"{middle} ({min(numbers):{form}} to {max(numbers):{form}})"


if __name__ == "__main__":
    main()
