"""Everything that needs torch, except the local model backend: bases, the tiny student, LoRA fine-tuning.

torch, transformers and peft are imported inside functions, so that cheap stages never load them.
"""

from collections.abc import Callable

# Called with (done, total, note): optimizer steps, or other steps where there are none; `note` is one short line.
Progress = Callable[[int, int, str], None]


def silent(done: int, total: int, note: str) -> None:
    """A progress that shows nothing."""
