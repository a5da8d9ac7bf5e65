"""Exports train in TRL: one step of a tiny student on each kind of file. `make exports` installs TRL and runs this."""

from pathlib import Path
from typing import Any

import pytest

from lema.recipe.basic_types import Prompt
from lema.recipe.training_schema import ExportSpec
from lema.rows import Example, Message
from lema.stages.export import export
from tests.stages.rows import accepted, correction, graded, question, sample

pytest.importorskip("trl", reason="TRL is not installed: `make exports`")

COT = Prompt(user="{{ question }}", assistant="{{ steps | join('\n') }}\nThe answer is {{ answer }}.")
TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
PLAN = {
    "recipe": "toy",
    "description": "",
    "verdicts": {"filters": []},
    "mix": {"a": {"formats": {}}},
    "export": {"code": ""},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    questions = [question(number) for number in range(4)]
    wrong = [sample(row.id, f"Begin.\n{n} + 1 = {n + 1}.\nThe answer is {n + 1}.") for n, row in enumerate(questions)]
    mended = [correction(row, f"...\n{n} + 0 = {n}.\nThe answer is {n}.", 2) for n, row in enumerate(wrong)]
    mix = [
        Example(f"a/{n}", "a", "cot", row.id, row.id, (Message("user", row.text),), f"It is {n}.")
        for n, row in enumerate(questions)
    ]
    grades = [graded(row, "incorrect", str(n + 1)) for n, row in enumerate(wrong)]
    folder = tmp_path_factory.mktemp("export")
    judged = [accepted(row) for row in mended]
    export(PLAN, questions, wrong, grades, [], mended, judged, {"a": mix}, spec=ExportSpec(), cot=COT, folder=folder)
    return folder


def student(base: Any) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base.location)
    tokenizer.chat_template = TEMPLATE
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return AutoModelForCausalLM.from_pretrained(base.location), tokenizer


def loaded(folder: Path, name: str, cache: Path) -> Any:
    from datasets import load_dataset

    return load_dataset(str(folder), name, split="train", cache_dir=str(cache))


def trained(trainer: Any) -> dict[str, float]:
    """What one step logged; the weights have moved."""
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    done = trainer.train()
    assert done.global_step == 1
    assert any((weight != before[name]).any() for name, weight in trainer.model.named_parameters())
    return next(entry for entry in trainer.state.log_history if "loss" in entry)


SETTINGS: dict[str, Any] = {
    "max_steps": 1, "per_device_train_batch_size": 2, "learning_rate": 1e-2, "report_to": [], "logging_steps": 1,
    "use_cpu": True, "bf16": False, "save_strategy": "no", "disable_tqdm": True,
}  # fmt: skip


@pytest.mark.parametrize("name", ["chat-a", "prompt_completion-a"])
def test_supervised(base: Any, folder: Path, tmp_path: Path, name: str) -> None:
    from trl import SFTConfig, SFTTrainer

    model, tokenizer = student(base)
    arguments = SFTConfig(output_dir=str(tmp_path), **SETTINGS)
    data = loaded(folder, name, tmp_path / "cache")
    trainer = SFTTrainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer)
    assert trained(trainer)["loss"] > 0


@pytest.mark.parametrize("name", ["pairs-full", "pairs-step"])
def test_preferences(base: Any, folder: Path, tmp_path: Path, name: str) -> None:
    import math

    from trl import DPOConfig, DPOTrainer

    model, tokenizer = student(base)
    arguments = DPOConfig(output_dir=str(tmp_path), **SETTINGS)
    data = loaded(folder, name, tmp_path / "cache")
    trainer = DPOTrainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer)
    # Before the first step the model is its own reference, so chosen and rejected are equally likely.
    assert trained(trainer)["loss"] == pytest.approx(math.log(2), abs=1e-3)
