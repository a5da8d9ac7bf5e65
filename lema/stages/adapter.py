"""`adapter`: the base fine-tuned on the examples of one arm, as LoRA weights or as a whole model."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lema.recipe import AdapterSpec
from lema.rows import Example


def adapter(
    mix: Iterable[Example], base: Any, *, spec: AdapterSpec, train: Callable[..., None], folder: Path, curve: Path
) -> None:
    """Writes the adapter's folder (safetensors, training.json) and its training curve (CSV, one line a logged step).

    Only what is in `mix` reaches the trainer: no test question can.
    """
    train(list(mix), base, spec, folder, curve)
