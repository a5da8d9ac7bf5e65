"""LoRA fine-tuning of the base on the examples of one arm: peft on transformers' Trainer (LEMA, section 3.3)."""

import csv
import json
import random
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lema.errors import RunError
from lema.models._local import cores, load_network, load_tokenizer, prompt_ids
from lema.recipe import AdapterSpec
from lema.rows import Example
from lema.train import Progress, silent
from lema.train._batch import IGNORED, Pad, loss
from lema.train.base import Base


def train(
    examples: Sequence[Example],
    base: Base,
    spec: AdapterSpec,
    folder: Path,
    scratch: Path,
    curve: Path,
    log: Progress = silent,
) -> None:
    """Train, and write the adapter and `training.json` into `folder` and the training curve (CSV) to `curve`.

    The loss is on completions only. Examples of more than `max_length` tokens are left out and listed, never cut.
    Checkpoints go to `scratch`; a run that was killed resumes there and ends like an undisturbed one.
    Raises RunError when no example is left.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import PrinterCallback, Trainer, TrainingArguments, set_seed

    # transformers calls what it deprecates itself.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    tokenizer = load_tokenizer(base.location, base.revision)
    encoded = [(example.id, encode(example, tokenizer, base.chat)) for example in examples]
    rows = [row for _, row in encoded if len(row["input_ids"]) <= spec.max_length]
    too_long = [name for name, row in encoded if len(row["input_ids"]) > spec.max_length]
    if not rows:
        raise RunError(f"adapter: none of {len(examples)} examples fits in max_length {spec.max_length}")
    set_seed(spec.seed)
    torch.set_num_threads(cores())
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Reads of memory that nobody wrote would be a bug of torch's; filling it first costs 3 % of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    gpu = torch.cuda.is_available()
    model = load_network(base.location, base.revision)
    targets = spec.targets if isinstance(spec.targets, str) else list(spec.targets)
    config = LoraConfig(
        r=spec.rank, lora_alpha=spec.alpha, lora_dropout=spec.dropout, target_modules=targets, task_type="CAUSAL_LM"
    )
    model = get_peft_model(model, config)
    if spec.gradient_checkpointing:
        model.enable_input_require_grads()
    arguments = TrainingArguments(
        output_dir=str(scratch),
        per_device_train_batch_size=spec.batch,
        gradient_accumulation_steps=spec.accumulate,
        num_train_epochs=spec.epochs or 1,
        max_steps=spec.steps or -1,
        learning_rate=spec.lr,
        lr_scheduler_type=spec.schedule,
        warmup_steps=spec.warmup,
        weight_decay=spec.weight_decay,
        adam_beta2=spec.beta2,
        max_grad_norm=spec.max_grad_norm,
        gradient_checkpointing=spec.gradient_checkpointing,
        logging_steps=1,
        save_steps=spec.save_every,
        save_total_limit=2,
        seed=spec.seed,
        data_seed=spec.seed,
        bf16=gpu,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=gpu,
        remove_unused_columns=False,
    )
    trainer = _trainer(Trainer)(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=Pad(tokenizer),
        compute_loss_func=loss,
        callbacks=[_callback(log)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.order = _order([len(row["input_ids"]) for row in rows], spec) if spec.group_by_length else None
    trainer.train(resume_from_checkpoint=_newest(scratch))
    # The name of the base instead of a folder of this machine.
    model.peft_config["default"].base_model_name_or_path = base.identity
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    _settle(folder / "adapter_config.json")
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    _write_curve(curve, history)
    record = {
        "base": base.identity,
        "examples": len(rows),
        "too_long": too_long,
        "tokens_an_epoch": sum(len(row["input_ids"]) for row in rows),
        "loss_tokens_an_epoch": sum(label != IGNORED for row in rows for label in row["labels"]),
        "steps": trainer.state.global_step,
        "epochs": round(trainer.state.epoch or 0, 4),
        "first_loss": history[0]["loss"] if history else None,
        "final_loss": history[-1]["loss"] if history else None,
        "settings": spec.model_dump(mode="json"),
        "versions": _versions(),
    }
    (folder / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(scratch, ignore_errors=True)


def encode(example: Example, tokenizer: Any, chat: bool) -> dict[str, list[int]]:
    """Token ids of prompt and completion, as they will be asked and answered, and labels of the completion alone.

    A token that any masked character belongs to has no label; the end of the completion always has one.
    Raises RunError when the base's chat template refuses the prompt, or its tokenizer cannot say where tokens lie.
    """
    try:
        prompt = prompt_ids(tokenizer, example.prompt, chat)
    except ValueError as error:
        raise RunError(f"adapter: example {example.id}: {error}") from None
    completion = tokenizer(example.completion, add_special_tokens=False)["input_ids"]
    labels = _unmasked(example, tokenizer, completion) if example.masked else completion
    end = tokenizer.eos_token_id
    return {"input_ids": [*prompt, *completion, end], "labels": [*[IGNORED] * len(prompt), *labels, end]}


def _unmasked(example: Example, tokenizer: Any, completion: Sequence[int]) -> list[int]:
    """The completion's token ids, IGNORED where a token has a masked character."""
    if not tokenizer.is_fast:
        raise RunError(f"adapter: example {example.id} masks characters, and the base has no fast tokenizer")
    places = tokenizer(example.completion, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return [
        IGNORED if any(start < last and end > first for first, last in example.masked) else token
        for token, (start, end) in zip(completion, places, strict=True)
    ]


def _order(lengths: Sequence[int], spec: AdapterSpec) -> list[int]:
    """Examples of similar length in one batch, batches in an order drawn by seed: less padding, the same mix."""
    chance = random.Random(spec.seed)
    size = spec.batch * spec.accumulate
    shuffled = chance.sample(range(len(lengths)), len(lengths))
    batches = []
    # Sorted within stretches of fifty batches, so that epochs of large sets still mix what goes together.
    for start in range(0, len(shuffled), size * 50):
        stretch = sorted(shuffled[start : start + size * 50], key=lambda at: -lengths[at])
        batches += [stretch[at : at + size] for at in range(0, len(stretch), size)]
    full, rest = [one for one in batches if len(one) == size], [one for one in batches if len(one) < size]
    chance.shuffle(full)
    return [at for batch in (*full, *rest) for at in batch]


def _trainer(trainer: Any) -> Any:
    class Ordered(trainer):  # type: ignore[misc]
        """A Trainer that reads the examples in the given order, the same in every epoch."""

        order: list[int] | None = None

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return super()._get_train_sampler(train_dataset) if self.order is None else self.order

    return Ordered


def _callback(log: Progress) -> Any:
    from transformers import TrainerCallback

    class Show(TrainerCallback):  # type: ignore[misc]
        """Tells the progress of the optimizer steps and the newest loss."""

        loss = ""

        def on_log(self, _arguments: Any, _state: Any, _control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                self.loss = f"loss {float(logs['loss']):.3f}"

        def on_step_end(self, _arguments: Any, state: Any, _control: Any, **_: Any) -> None:
            log(state.global_step, state.max_steps, self.loss)

    return Show()


def _newest(scratch: Path) -> str | None:
    """The newest whole checkpoint; one that a kill cut short has no trainer state yet and is removed."""
    found = sorted(scratch.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for path in reversed(found):
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            shutil.rmtree(path)
            continue
        return str(path)
    return None


def _settle(path: Path) -> None:
    """peft keeps module names in sets, whose order differs from process to process."""
    config = json.loads(path.read_text(encoding="utf-8"))
    ordered = {key: sorted(value) if isinstance(value, list) else value for key, value in config.items()}
    path.write_text(json.dumps(ordered, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_curve(path: Path, history: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("step", "loss", "lr", "grad_norm"))
        for entry in history:
            numbers = (float(entry[name]) for name in ("loss", "learning_rate", "grad_norm"))
            table.writerow((entry["step"], *(f"{number:.6g}" for number in numbers)))


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    from lema import __version__

    return {"lema": __version__, **{name: version(name) for name in ("torch", "transformers", "peft")}}
