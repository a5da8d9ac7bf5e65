"""Examples as tokens, batches of them, and a loss that computes no logits where it asks for none.

With a vocabulary of 49,000 the logits of a small model cost more than a fifth of its arithmetic and most of its
memory, and two thirds of an example is its prompt. Every causal model of transformers takes `logits_to_keep`. Packed,
a batch asks for exactly the places of its labels. Padded, for models that cannot be packed, it is padded on the left:
then all completions end together, and the last places are all that the loss needs.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from lema.errors import RunError
from lema.models.local import prompt_ids
from lema.rows import Example

IGNORED = -100  # the label that no loss is computed for


def encode(example: Example, tokenizer: Any, chat: bool, *, whole: bool = False) -> dict[str, list[int]]:
    """Token ids of prompt and completion, as they will be asked and answered, and labels of the completion, or of the
    whole.

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
    # Nothing predicts the first token.
    before = [IGNORED, *prompt[1:]] if whole else [IGNORED] * len(prompt)
    return {"input_ids": [*prompt, *completion, end], "labels": [*before, *labels, end]}


def _unmasked(example: Example, tokenizer: Any, completion: Sequence[int]) -> list[int]:
    """The completion's token ids, IGNORED where a token has a masked character."""
    if not tokenizer.is_fast:
        raise RunError(f"adapter: example {example.id} masks characters, and the base has no fast tokenizer")
    places = tokenizer(example.completion, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return [
        IGNORED if any(start < last and end > first for first, last in example.masked) else token
        for token, (start, end) in zip(completion, places, strict=True)
    ]


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
        labelled = (at for row in batch["labels"].tolist() for at, label in enumerate(row) if label != IGNORED)
        first = min(labelled, default=width)
        return {
            **batch,
            "attention_mask": mask,
            "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
            # The place before the first label predicts it.
            "logits_to_keep": min(width, width - first + 1),
        }


def pack(rows: Sequence[dict[str, list[int]]]) -> dict[str, Any]:
    """Rows of `input_ids` and `labels` of any length as one row of tensors (1, tokens), for a model that attends
    along `paths` through `pieces` (`lema.train._packed`). Tokens with which several rows begin are there once; with
    dropout, those rows share its draw for them.

    `labels` are those that there are, after one IGNORED; `logits_to_keep` the places that predict them.
    """
    import torch

    tokens, positions, places, labels = list[int](), list[int](), list[int](), [IGNORED]
    trails, cuts, trail, before = list[list[int]](), {0}, list[int](), list[int]()
    for row in sorted(rows, key=lambda row: row["input_ids"]):
        ids = row["input_ids"]
        shared = next((at for at, (one, other) in enumerate(zip(ids, before, strict=False)) if one != other), None)
        shared = min(len(ids), len(before)) if shared is None else shared
        if shared:
            cuts.add(trail[shared - 1] + 1)
        cuts.add(len(tokens))
        trail = [*trail[:shared], *range(len(tokens), len(tokens) + len(ids) - shared)]
        if len(ids) > shared:
            trails.append(trail)
        tokens += ids[shared:]
        positions += range(shared, len(ids))
        wanted = [at for at in range(1, len(ids)) if row["labels"][at] != IGNORED]
        places += [trail[at - 1] for at in wanted]
        labels += [row["labels"][at] for at in wanted]
        before = ids
    ends = sorted({*cuts, len(tokens)})
    piece = {start: number for number, start in enumerate(ends[:-1])}
    return {
        "input_ids": torch.tensor([tokens]),
        "position_ids": torch.tensor([positions]),
        "pieces": [end - start for start, end in pairwise(ends)],
        "paths": [[piece[at] for at in trail if at in piece] for trail in trails],
        "labels": torch.tensor([labels]),
        # The last place is there as in a padded batch, where it predicts nothing.
        "logits_to_keep": torch.tensor([*places, len(tokens) - 1]),
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
