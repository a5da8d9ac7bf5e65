"""Fine-tuning of the base on the examples of one arm (LEMA, section 3.3): a LoRA adapter, the same on 4-bit weights
(QLoRA, arXiv 2305.14314), or all weights. peft on transformers' Trainer."""

import csv
import json
import random
import shutil
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lema import __version__
from lema.errors import RunError
from lema.models.local_weights import available_cores, load_network
from lema.models.tokenize import load_tokenizer
from lema.recipe.training_schema import AdapterSpec
from lema.rows import Example
from lema.train import Progress, silent
from lema.train.base import Base
from lema.train.batching import IGNORED, LeftPadding, Shard, TokenRow, encode_example, epochs_done
from lema.train.packed import enable_packing, pack_rows
from lema.train.trainer import make_trainer


def train_adapter(
    examples: Sequence[Example],
    base: Base,
    spec: AdapterSpec,
    folder: Path,
    scratch: Path,
    curve: Path,
    log: Progress = silent,
    threads: int | None = None,
    shard: Shard | None = None,
) -> None:
    """Train, and write the adapter (of `method: full` the whole model) and `training.json` into `folder` and the
    training curve (CSV) to `curve`.

    Examples of more than `max_length` tokens are left out and listed, never cut. Checkpoints go to `scratch`; a run
    that was killed resumes there and ends like an undisturbed one. With a `shard`, this is one of several processes
    that train together, joined by torch.distributed; the first one writes. `threads` of torch: all cores when absent.
    Raises RunError when no example is left, or this machine cannot train so.
    """
    import torch
    from transformers import set_seed

    # transformers calls what it deprecates itself.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    check_hardware(spec)
    tokenizer = load_tokenizer(base.location, base.revision)
    learnt, dev = hold_out(examples, spec)
    rows, too_long = _encode_fitting(learnt, tokenizer, base.chat, spec)
    held, _ = _encode_fitting(dev, tokenizer, base.chat, spec)
    if not rows:
        raise RunError(f"adapter: none of {len(learnt)} examples fits in max_length {spec.max_length}")
    if spec.choose and not held:
        share = f"choose.share: {spec.choose.share}"
        raise RunError(f"adapter: `{share}` holds out no CoT example that fits in max_length {spec.max_length}")
    set_seed(spec.seed)
    torch.set_num_threads(threads or available_cores())
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Reads of memory that nobody wrote would be a bug of torch's; filling it first costs 3 % of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    network, packed = _open_network(base, spec)
    collate = pack_rows if packed else LeftPadding(tokenizer)
    order = length_grouped_order([len(row["input_ids"]) for row in rows], spec) if spec.group_by_length else None
    trainer = make_trainer(network, rows, held, collate, order, spec, scratch, log, shard)
    trainer.train(resume_from_checkpoint=_newest_checkpoint(scratch))
    if shard and shard.rank:
        return
    _save_network(network, tokenizer, base, spec, folder)
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
        "epochs": round(epochs_done(trainer.state.global_step, len(rows), spec), 4),
        "first_loss": losses[0] if losses else None,
        "final_loss": losses[-1] if losses else None,
    }
    if held:
        # Which checkpoint was kept, and why.
        chosen = int(str(trainer.state.best_model_checkpoint).rpartition("-")[2])
        record |= {"held_out_examples": len(held), "chosen_step": chosen, "held_out_loss": trainer.state.best_metric}
    record["settings"] = spec.model_dump(mode="json")
    record["versions"] = {"lema": __version__, **{name: version(name) for name in ("torch", "transformers", "peft")}}
    (folder / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(scratch, ignore_errors=True)


def check_hardware(spec: AdapterSpec) -> None:
    """Raises RunError when this machine lacks what the settings need."""
    import torch

    settings = (f"method: {spec.method}", f"optimizer: {spec.optimizer}")
    wants = " and ".join(f"`{one}`" for one in settings if one in ("method: qlora", "optimizer: paged_adamw_32bit"))
    if wants and not torch.cuda.is_available():
        raise RunError(f"adapter: {wants} needs a GPU; `method: lora` with `optimizer: adamw` does not")
    if wants and find_spec("bitsandbytes") is None:
        raise RunError(f"adapter: {wants} needs bitsandbytes: pip install -e '.[qlora]'")


def _open_network(base: Base, spec: AdapterSpec) -> tuple[Any, bool]:
    """The network to train, and whether it can learn from packed rows. Raises RunError when it cannot be loaded."""
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    options: dict[str, Any] = {}
    if spec.method == "full":
        # Small updates vanish in bf16 weights; the arithmetic is in bf16 all the same.
        options = {"dtype": torch.float32}
    elif spec.method == "qlora":
        options = {"quantization_config": four_bit(), "device_map": {"": torch.cuda.current_device()}}
    network = load_network(base.location, base.revision, **options)
    if spec.method == "qlora":
        network = prepare_model_for_kbit_training(network, use_gradient_checkpointing=spec.gradient_checkpointing)
    packed = enable_packing(network, spec.max_length)
    if spec.method == "full":
        return network, packed
    size = {"r": spec.rank, "lora_alpha": spec.alpha, "lora_dropout": spec.dropout}
    targets = spec.targets if isinstance(spec.targets, str) else list(spec.targets)
    network = get_peft_model(network, LoraConfig(**size, target_modules=targets, task_type="CAUSAL_LM"))
    if spec.gradient_checkpointing:
        network.enable_input_require_grads()
    return network, packed


def four_bit() -> Any:
    """The weights of the paper's QLoRA: NF4 with double quantization, arithmetic in bf16."""
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _save_network(network: Any, tokenizer: Any, base: Base, spec: AdapterSpec, folder: Path) -> None:
    """Write the adapter, or the whole model, into an existing folder; no path of this machine stands in it."""
    import torch

    if spec.method == "full":
        if torch.cuda.is_available():
            network = network.to(torch.bfloat16)  # answers are computed in it, so nobody reads more
        network.config._name_or_path = base.identity
        network.set_attn_implementation("sdpa")
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return
    network.peft_config["default"].base_model_name_or_path = base.identity
    network.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    # peft keeps module names in sets, whose order differs from process to process.
    path = folder / "adapter_config.json"
    saved = json.loads(path.read_text(encoding="utf-8")).items()
    config = {key: sorted(value) if isinstance(value, list) else value for key, value in saved}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def hold_out(examples: Sequence[Example], spec: AdapterSpec) -> tuple[list[Example], list[Example]]:
    """Examples to learn from, and the CoT examples of questions that are held out: a draw by question alone, so that
    all arms and seeds hold out the same ones, as far as they have them."""
    if spec.choose is None:
        return list(examples), []
    ids = {example.question_id for example in examples}
    out = {one for one in ids if random.Random(f"held out {one}").random() < spec.choose.share}
    dev = [example for example in examples if example.question_id in out and example.kind == "cot"]
    return [example for example in examples if example.question_id not in out], dev


def _encode_fitting(
    examples: Sequence[Example], tokenizer: Any, chat: bool, spec: AdapterSpec
) -> tuple[list[TokenRow], list[str]]:
    """The rows of examples that fit, and the ids of those that do not."""
    encoded = [(example.id, encode_example(example, tokenizer, chat, whole=spec.loss == "all")) for example in examples]
    rows = [row for _, row in encoded if len(row["input_ids"]) <= spec.max_length]
    return rows, [name for name, row in encoded if len(row["input_ids"]) > spec.max_length]


def length_grouped_order(lengths: Sequence[int], spec: AdapterSpec) -> list[int]:
    """Length-grouped batches, in an order drawn by seed: less padding, the same mix."""
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


def _newest_checkpoint(scratch: Path) -> str | None:
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


def _write_curve(path: Path, history: Sequence[dict[str, Any]], *, held_out: bool) -> None:
    """One line a step; `held_out_loss` where it was measured."""
    measured = {entry["step"]: f"{entry['eval_loss']:.6g}" for entry in history if "eval_loss" in entry}
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["step", "loss", "lr", "grad_norm", *(["held_out_loss"] if held_out else [])])
        for entry in (entry for entry in history if "loss" in entry):
            numbers = [f"{float(entry[name]):.6g}" for name in ("loss", "learning_rate", "grad_norm")]
            table.writerow([entry["step"], *numbers, *([measured.get(entry["step"], "")] if held_out else [])])
