"""Fine-tuning of the base on the examples of one arm: peft on transformers' Trainer (LEMA, section 3.3)."""

import csv
import json
import random
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lema.errors import RunError
from lema.models.local import cores, load_tokenizer
from lema.recipe.training_schema import AdapterSpec
from lema.rows import Example
from lema.train import Progress, silent
from lema.train._batch import IGNORED, Pad, encode, loss, pack
from lema.train._network import open_network, refuse, save
from lema.train._trainer import arguments, callback, trainer_class
from lema.train.base import Base
from lema.train.share import Share, epochs


def train(
    examples: Sequence[Example],
    base: Base,
    spec: AdapterSpec,
    folder: Path,
    scratch: Path,
    curve: Path,
    log: Progress = silent,
    threads: int | None = None,
    share: Share | None = None,
) -> None:
    """Train, and write the adapter (of `method: full` the whole model) and `training.json` into `folder` and the
    training curve (CSV) to `curve`.

    Examples of more than `max_length` tokens are left out and listed, never cut. Checkpoints go to `scratch`; a run
    that was killed resumes there and ends like an undisturbed one. With a `share`, this is one of several processes
    that train together, joined by torch.distributed; the first one writes. `threads` of torch: all cores when absent.
    Raises RunError when no example is left, or this machine cannot train so.
    """
    import torch
    from transformers import PrinterCallback, set_seed

    # transformers calls what it deprecates itself.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    refuse(spec)
    tokenizer = load_tokenizer(base.location, base.revision)
    learnt, dev = _held_out(examples, spec)
    rows, too_long = _encoded(learnt, tokenizer, base.chat, spec)
    held, _ = _encoded(dev, tokenizer, base.chat, spec)
    if not rows:
        raise RunError(f"adapter: none of {len(learnt)} examples fits in max_length {spec.max_length}")
    if spec.choose and not held:
        asked = f"choose.share: {spec.choose.share}"
        raise RunError(f"adapter: `{asked}` holds out no CoT example that fits in max_length {spec.max_length}")
    set_seed(spec.seed)
    torch.set_num_threads(threads or cores())
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Reads of memory that nobody wrote would be a bug of torch's; filling it first costs 3 % of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    network, packed = open_network(base, spec)
    trainer = trainer_class()(
        model=network,
        args=arguments(spec, scratch, share),
        train_dataset=rows,
        eval_dataset=held or None,
        data_collator=pack if packed else Pad(tokenizer),
        compute_loss_func=loss,
        callbacks=[callback(log, spec, share)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.order = _order([len(row["input_ids"]) for row in rows], spec) if spec.group_by_length else None
    trainer.spec, trainer.share = spec, share
    trainer.train(resume_from_checkpoint=_newest(scratch))
    if share and share.rank:
        return
    save(network, tokenizer, base, spec, folder)
    if spec.method != "full":
        _settle(folder / "adapter_config.json")
    history = trainer.state.log_history
    _write_curve(curve, history, held_out=bool(held))
    losses = [entry["loss"] for entry in history if "loss" in entry]
    record = {
        "base": base.identity,
        "examples": len(rows),
        "too_long": too_long,
        "tokens_an_epoch": sum(len(row["input_ids"]) for row in rows),
        "loss_tokens_an_epoch": sum(label != IGNORED for row in rows for label in row["labels"]),
        "steps": trainer.state.global_step,
        "epochs": round(epochs(trainer.state.global_step, len(rows), spec), 4),
        "first_loss": losses[0] if losses else None,
        "final_loss": losses[-1] if losses else None,
        **(_choice(trainer.state, len(held)) if held else {}),
        "settings": spec.model_dump(mode="json"),
        "versions": _versions(),
    }
    (folder / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(scratch, ignore_errors=True)


def _held_out(examples: Sequence[Example], spec: AdapterSpec) -> tuple[list[Example], list[Example]]:
    """Examples to learn from, and the CoT examples of questions that are held out: a draw by question alone, so that
    all arms and seeds hold out the same ones, as far as they have them."""
    if spec.choose is None:
        return list(examples), []
    out = {
        example.question_id
        for example in examples
        if random.Random(f"held out {example.question_id}").random() < spec.choose.share
    }
    dev = [example for example in examples if example.question_id in out and example.kind == "cot"]
    return [example for example in examples if example.question_id not in out], dev


def _encoded(
    examples: Sequence[Example], tokenizer: Any, chat: bool, spec: AdapterSpec
) -> tuple[list[dict[str, list[int]]], list[str]]:
    """The rows of examples that fit, and the ids of those that do not."""
    encoded = [(example.id, encode(example, tokenizer, chat, whole=spec.loss == "all")) for example in examples]
    rows = [row for _, row in encoded if len(row["input_ids"]) <= spec.max_length]
    return rows, [name for name, row in encoded if len(row["input_ids"]) > spec.max_length]


def _choice(state: Any, held: int) -> dict[str, Any]:
    """Which checkpoint was kept, and why."""
    step = int(str(state.best_model_checkpoint).rpartition("-")[2])
    return {"held_out_examples": held, "chosen_step": step, "held_out_loss": state.best_metric}


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


def _newest(scratch: Path) -> str | None:
    """The newest whole checkpoint; one that a kill cut short has no trainer state yet and is removed."""
    found = sorted(scratch.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for path in reversed(found):
        state = path / "trainer_state.json"
        try:
            known = json.loads(state.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            shutil.rmtree(path)
            continue
        if known.get("best_model_checkpoint"):
            # It may have been written elsewhere.
            known["best_model_checkpoint"] = str(scratch / Path(known["best_model_checkpoint"]).name)
            state.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        return str(path)
    return None


def _settle(path: Path) -> None:
    """peft keeps module names in sets, whose order differs from process to process."""
    config = json.loads(path.read_text(encoding="utf-8"))
    ordered = {key: sorted(value) if isinstance(value, list) else value for key, value in config.items()}
    path.write_text(json.dumps(ordered, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_curve(path: Path, history: Sequence[dict[str, Any]], *, held_out: bool) -> None:
    """One line a step; `held_out_loss` where it was measured."""
    measured = {entry["step"]: entry["eval_loss"] for entry in history if "eval_loss" in entry}
    names = ("loss", "learning_rate", "grad_norm")
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("step", "loss", "lr", "grad_norm", *(["held_out_loss"] if held_out else [])))
        for entry in (entry for entry in history if "loss" in entry):
            numbers = [f"{float(entry[name]):.6g}" for name in names]
            found = [f"{measured[entry['step']]:.6g}" if entry["step"] in measured else ""] if held_out else []
            table.writerow((entry["step"], *numbers, *found))


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    from lema import __version__

    return {"lema": __version__, **{name: version(name) for name in ("torch", "transformers", "peft")}}
