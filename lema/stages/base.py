"""`base`: the student before fine-tuning: an embedded model, one trained from scratch, one of the hub, or a folder."""

from collections.abc import Callable
from pathlib import Path

from lema.recipe.training_schema import BaseSpec


def base(*, spec: BaseSpec, build: Callable[[BaseSpec, Path], None], folder: Path) -> None:
    """Writes the base's folder: what identifies it, and for a model trained here its weights and tokenizer."""
    build(spec, folder)
