"""The fine-tuned student as a model of its own, for servers and others' tools: the adapter added into its base."""

import shutil
from pathlib import Path

from lema.models.local_weights import load_network
from lema.models.tokenize import load_tokenizer
from lema.train.base import Base


def merge_adapter(base: Base, adapter: Path, folder: Path) -> None:
    """Write weights, configuration and tokenizer into an existing folder, in the precision of the base's own weights.

    Of `method: full` the adapter is a whole model already, and is copied. Raises RunError when the base cannot be
    loaded.
    """
    if not (adapter / "adapter_config.json").is_file():
        shutil.copytree(adapter, folder, dirs_exist_ok=True)
        return
    import torch
    from peft import PeftModel
    from transformers import AutoConfig

    # Added in fp32, on any machine: in bf16 small updates would be lost before they are rounded once.
    network = load_network(base.location, base.revision, dtype=torch.float32, device_map="cpu")
    network = PeftModel.from_pretrained(network, adapter).merge_and_unload()
    own = AutoConfig.from_pretrained(base.location, revision=base.revision).dtype
    network.to(own or torch.float32).save_pretrained(folder)
    load_tokenizer(base.location, base.revision).save_pretrained(folder)
