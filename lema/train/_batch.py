"""Batches for training, and a loss that computes no logits where it asks for none.

With a vocabulary of 49,000 the logits of a small model cost more than a fifth of its arithmetic and most of its
memory, and two thirds of an example is its prompt. So a batch is padded on the left: then all completions end
together, and the last `logits_to_keep` places are all that the loss needs. Every causal model of transformers takes
that argument.
"""

from collections.abc import Sequence
from typing import Any

IGNORED = -100  # the label that no loss is computed for


class Pad:
    """Rows of `input_ids` and `labels` of any length as tensors (rows, longest)."""

    def __init__(self, tokenizer: Any) -> None:
        self.filler = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id

    def __call__(self, rows: Sequence[dict[str, list[int]]]) -> dict[str, Any]:
        import torch

        width = max(len(row["input_ids"]) for row in rows)
        fill = {"input_ids": self.filler, "labels": IGNORED}
        batch = {
            name: torch.tensor([[value] * (width - len(row[name])) + row[name] for row in rows])
            for name, value in fill.items()
        }
        gaps = torch.tensor([[width - len(row["input_ids"])] for row in rows])
        mask = (torch.arange(width)[None, :] >= gaps).long()
        first = min(next(at for at, label in enumerate(row) if label != IGNORED) for row in batch["labels"].tolist())
        return {
            **batch,
            "attention_mask": mask,
            "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
            # The place before the first label predicts it.
            "logits_to_keep": min(width, width - first + 1),
        }


def loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    """Mean cross entropy of the labels (rows, width) under the logits (rows, the last places kept, vocabulary), over
    `num_items_in_batch` labels when gradients are accumulated, else over those of the batch."""
    from torch.nn.functional import cross_entropy

    scores = outputs.logits[:, :-1]
    wanted = labels[:, labels.shape[1] - scores.shape[1] :]
    counted = wanted != IGNORED
    total = cross_entropy(scores[counted].float(), wanted[counted], reduction="sum")
    return total / (counted.sum() if num_items_in_batch is None else num_items_in_batch)
