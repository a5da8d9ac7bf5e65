"""The network that learns: the base with a LoRA adapter, the same on 4-bit weights (QLoRA, arXiv 2305.14314), or all
of the base."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lema.errors import RunError
from lema.models.local import load_network
from lema.recipe.training_schema import AdapterSpec
from lema.train import _packed
from lema.train.base import Base


def open_network(base: Base, spec: AdapterSpec) -> tuple[Any, bool]:
    """The network, and whether it can learn from packed examples.

    Raises RunError when it cannot be loaded.
    """
    import torch

    if spec.method == "full":
        # Small updates vanish in bf16 weights; the arithmetic is in bf16 all the same.
        network = load_network(base.location, base.revision, dtype=torch.float32)
        return network, _packed.pack(network, spec.max_length)
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if spec.method == "qlora":
        network = load_network(
            base.location, base.revision, quantization_config=four_bit(), device_map={"": torch.cuda.current_device()}
        )
        network = prepare_model_for_kbit_training(network, use_gradient_checkpointing=spec.gradient_checkpointing)
    else:
        network = load_network(base.location, base.revision)
    packed = _packed.pack(network, spec.max_length)
    targets = spec.targets if isinstance(spec.targets, str) else list(spec.targets)
    config = LoraConfig(
        r=spec.rank, lora_alpha=spec.alpha, lora_dropout=spec.dropout, target_modules=targets, task_type="CAUSAL_LM"
    )
    network = get_peft_model(network, config)
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


def refuse(spec: AdapterSpec) -> None:
    """Raises RunError when this machine lacks what the settings need."""
    import torch

    wants = [
        f"`{key}: {value}`"
        for key, value in (("method", spec.method), ("optimizer", spec.optimizer))
        if value in ("qlora", "paged_adamw_32bit")
    ]
    if wants and not torch.cuda.is_available():
        raise RunError(f"adapter: {' and '.join(wants)} needs a GPU; `method: lora` with `optimizer: adamw` does not")
    if wants and find_spec("bitsandbytes") is None:
        raise RunError(f"adapter: {' and '.join(wants)} needs bitsandbytes: pip install -e '.[qlora]'")


def save(network: Any, tokenizer: Any, base: Base, spec: AdapterSpec, folder: Path) -> None:
    """Write the adapter, or the whole model, into an existing folder; no path of this machine stands in it."""
    import torch

    if spec.method == "full":
        # On a GPU answers are computed in bf16, so nobody reads more.
        network = network.to(torch.bfloat16) if torch.cuda.is_available() else network
        network.config._name_or_path = base.identity
        network.set_attn_implementation("sdpa")
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return
    # The name of the base instead of a folder of this machine.
    network.peft_config["default"].base_model_name_or_path = base.identity
    network.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
