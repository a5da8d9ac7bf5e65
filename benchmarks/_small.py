"""How a shipped recipe becomes a small one with local models, and what those say: for benchmarks/recipes.py."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from lema.recipe import part_loader
from lema.recipe.sampler_schema import ModelSampler
from lema.recipe.schema import Recipe
from lema.tasks import Reading, Task
from lema.tasks.word_problems import word_problems
from lema.text.final_answer import drop_answer_step
from lema.text.steps import split_steps

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("LEMA_TEST_DATA", ROOT.parent / "shared" / "data"))
TRAIN, TEST, NEW = 6, 4, 10
NO_HUB = {"hub": None, "config": None, "revision": None}
STUDENT = "students/smollm2"  # as a project names it; a link to where `make setup` keeps it
TINY = {
    "task": "word_problems", "options": {"seed": 99, "steps": [1], "largest": 20}, "format": "paper_cot",
    "width": 64, "layers": 2, "heads": 2, "context": 1536, "steps": 60, "batch": 16, "lr": 5e-3,
}  # fmt: skip
OPEN, WEAK, STRONG, WRITER = "llama2-70b", "gpt-3.5", "gpt-4", "writer"  # SmolLM2 stands for the open one
REASONER = "qwen3-32b"  # a strong one, too


@dataclass(frozen=True)
class World:
    """The records of one task: to learn from, to test on, and new ones for those who evolve."""

    task: Task
    train: Sequence[Mapping[str, Any]]
    test: Sequence[Mapping[str, Any]]
    new: Sequence[Mapping[str, Any]]

    def readings(self) -> Iterator[Reading]:
        yield from (self.task.read(record) for record in (*self.train, *self.new))


@cache
def world(name: str) -> World:
    task: Task = part_loader.load_part("tasks", name)
    records = list(islice(_records(name, task), TRAIN + TEST + NEW))
    return World(task, records[:TRAIN], records[TRAIN : TRAIN + TEST], records[TRAIN + TEST :])


def _records(name: str, task: Task) -> Iterator[Mapping[str, Any]]:
    file = {"gsm8k": SHARED / "gsm8k/train.jsonl", "math": SHARED / "math/train_2000.jsonl"}.get(name)
    if name == "csqa":
        yield from rows_of(ROOT / "benchmarks/records/csqa.jsonl")
    elif file and file.is_file():
        # On one line, as evolved questions are.
        yield from (row for row in rows_of(file) if " ".join((text := task.read(row).text).split()) == text)
    else:
        assert word_problems.generate
        assert task.write
        for _, record in word_problems.generate(seed=4, steps=[2, 3]):
            yield task.write(word_problems.read(record))


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def strong(known: World, as_json: bool = False) -> list[dict[str, str]]:
    """To a question its rationale, to a wrong path a correction from the first step on, to a right one to be spoilt
    the answer of the next question."""
    rules, readings = [], list(known.readings())
    for reading, after in zip(readings, [*readings[1:], readings[0]], strict=True):
        lines = _solution(known, reading, reading.gold)
        again = _solution(known, reading, reading.gold, "Once more.")
        why = "What it begins with does not follow from the question."
        if as_json:
            solution = [line.partition(": ")[2] for line in again.splitlines()]
            mended = json.dumps({"incorrect_step": 1, "explanation": why, "solution": solution})
        elif known.task.name == "csqa":
            mended = f"Mistakes: {why}\nCorrected Answer:\n{again}"
        else:
            mended = f"Incorrect Step: Step 1.\nExplanation: {why}\nCorrect Solution:\n{again}"
        rules += [
            {"when": f"{reading.text}\nOriginal", "reply": mended},
            {"when": f"{reading.text}\nRight", "reply": _solution(known, reading, after.gold)},
            {"when": reading.text, "reply": lines},
        ]
    return rules


def weak(known: World) -> list[dict[str, str]]:
    """To a question the answer of the next one, to every other wrong path a correction that cannot be read."""
    rules, readings = strong(known), list(known.readings())
    for place, (reading, after) in enumerate(zip(readings, [*readings[1:], readings[0]], strict=True)):
        if place % 2:
            rules[3 * place]["reply"] = "I see no mistake."
        rules[3 * place + 2]["reply"] = _solution(known, reading, after.gold)
    return rules


def _solution(known: World, reading: Reading, answer: str, opening: str = "Here is how.") -> str:
    """Not quite the rationale, so that it is a row of its own."""
    steps = [opening, *drop_answer_step(split_steps(reading.rationale or f"{reading.gold} fits best."))]
    steps.append(f"The answer is {f'${answer}$' if known.task.name == 'math' else answer}.")
    if known.task.name == "csqa":
        return "\n".join(steps)
    return "\n".join(f"Step {number}: {step}" for number, step in enumerate(steps, 1))


def small(name: str, recipe: Recipe) -> dict[str, Any]:
    """What the recipe of the project says beyond the shipped one."""
    task = recipe.questions.task
    patch: dict[str, Any] = {"extends": f"shipped/{name}.yaml", "scores": {"resamples": 200}}
    patch["questions"] = {"train": None if recipe.source.evolved else TRAIN, "test": TEST}
    if recipe.source.generator:
        patch["source"] = {"train": 60, "test": 40}
        patch["questions"] |= {"dev": min(recipe.questions.dev, 6)}
    elif recipe.source.hub:
        patch["source"] = {**NO_HUB, "file": f"data/sources/{task}/{{split}}.jsonl"}
    transfer = {set_: _transfer(set_, bool(one.source.hub)) for set_, one in recipe.questions.transfer.items()}
    patch["questions"] |= {"transfer": transfer} if transfer else {}
    as_json = recipe.corrections.format == "json"
    stand_ins = (OPEN, WEAK, STRONG, REASONER)
    patch["models"] = {label: _model(label, task, as_json) for label in recipe.models if label in stand_ins}
    if recipe.base.hub:
        patch["base"] = {"hub": None, "revision": None, "pretrain": TINY}
    elif recipe.base.pretrain:
        patch["base"] = {"pretrain": {"steps": 60, "width": 64, "layers": 2, "batch": 16}}
    patch["samples"] = {"samplers": {label: _sampler(one) for label, one in recipe.samples.samplers.items()}}
    if recipe.samples.want:
        patch["samples"]["want"] = {"per_question": 1, "in_all": 5}
    if recipe.locations:
        patch["locations"] = {"max_tokens": 200}
    if recipe.corrections.want:
        patch["corrections"] = {"want": 3, "max_candidates": 8}
    if recipe.evolved:
        patch["evolved"] = {"questions": 6, "write": {"model": WRITER}}
        patch["models"][WRITER] = _model(WRITER, task)
    patch["adapter"] = {"steps": 2, "batch": 4, "accumulate": 1} if recipe.adapter.steps else {"epochs": 1}
    patch["adapter"] |= {"method": "lora", "optimizer": "adamw"} if recipe.adapter.method == "qlora" else {}
    patch["adapter"] |= {"choose": {"every": 1, "share": 0.5}} if recipe.adapter.choose else {}
    patch["adapter"] |= {"seeds": list(recipe.adapter.seeds[:2])} if recipe.adapter.seeds else {}
    patch["answers"] = {"max_tokens": 40, **({"votes": {"paths": 2}} if recipe.answers.votes else {})}
    patch["probe"] = {"questions": min(recipe.probe.questions, TEST)}
    return patch


def _model(label: str, task: str, as_json: bool = False) -> dict[str, Any]:
    if label == OPEN:
        return {"backend": "transformers", "endpoint": None, "name": STUDENT, "revision": None}
    known = world(task)
    if label == WRITER:
        said: dict[str, Any] = {"replies": [known.task.read(row).text for row in known.new]}
    else:
        said = {"rules": weak(known) if label == WEAK else strong(known, as_json), "extra": None}
    return {"backend": "scripted", "endpoint": None, "name": None, "options": said}


def _sampler(sampler: Any) -> dict[str, Any]:
    """One path is all that a script has to say."""
    if not isinstance(sampler, ModelSampler):
        return {}
    if sampler.model in (WEAK, STRONG, REASONER):
        return {"paths": 1}
    return {"paths": min(sampler.paths, 2), "max_tokens": min(sampler.max_tokens, 100)}


def _transfer(name: str, hub: bool) -> dict[str, Any]:
    if not hub:
        return {"source": {"test": 6}}
    return {"source": {**NO_HUB, "test_from": None, "file": f"data/sources/{name}.jsonl"}}
