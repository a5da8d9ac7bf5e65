"""Examples as token ids and labels, batches of them, their shares for several processes, and the loss.

With a vocabulary of 49,000 the logits of a small model cost more than a fifth of its arithmetic and most of its
memory, and two thirds of an example is its prompt. Every causal model of transformers takes `logits_to_keep`. Packed
(`lema.train.packed`), a batch asks for exactly the positions of its labels. Padded, for models that cannot be packed,
it is padded on the left: then all completions end together, and the last positions are all that the loss needs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from lema.errors import RunError
from lema.models.tokenize import prompt_token_ids
from lema.recipe.training_schema import AdapterSpec
from lema.rows import Example

IGNORED = -100  # the label that no loss is computed for

TokenRow = dict[str, list[int]]  # `input_ids` and, equally many, `labels`


def encode_example(example: Example, tokenizer: Any, chat: bool, *, whole: bool = False) -> TokenRow:
    """Token ids of prompt and completion, as the model will be asked and is to answer, and labels of the completion,
    or with `whole` of both. The end of the completion always has a label.

    Raises RunError when the base's chat template refuses the prompt, or its tokenizer cannot say where tokens lie.
    """
    try:
        prompt = prompt_token_ids(tokenizer, example.prompt, chat)
        completion, labels = encode_completion(tokenizer, example.completion, example.masked)
    except ValueError as error:
        raise RunError(f"adapter: example {example.id}: {error}") from None
    end = tokenizer.eos_token_id
    # Nothing predicts the first token.
    before = [IGNORED, *prompt[1:]] if whole else [IGNORED] * len(prompt)
    return {"input_ids": [*prompt, *completion, end], "labels": [*before, *labels, end]}


def encode_completion(tokenizer: Any, text: str, masked: Sequence[tuple[int, int]] = ()) -> tuple[list[int], list[int]]:
    """Token ids of a completion without its end, and their labels: a token that any `masked` character belongs to has
    none. Raises ValueError when the tokenizer does not know the characters of its tokens."""
    if not masked:
        ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        return ids, ids
    if not tokenizer.is_fast:
        raise ValueError("it masks characters, and the base has no fast tokenizer")
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    labels = [
        IGNORED if any(start < last and end > first for first, last in masked) else token
        for token, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ]
    return encoded["input_ids"], labels


class LeftPadding:
    """Collates token rows of any length into tensors (rows, longest)."""

    def __init__(self, tokenizer: Any) -> None:
        self.filler = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id

    def __call__(self, rows: Sequence[TokenRow]) -> dict[str, Any]:
        import torch

        width = max(len(row["input_ids"]) for row in rows)
        gaps = [width - len(row["input_ids"]) for row in rows]
        tokens = [[self.filler] * gap + row["input_ids"] for gap, row in zip(gaps, rows, strict=True)]
        labels = [[IGNORED] * gap + row["labels"] for gap, row in zip(gaps, rows, strict=True)]
        mask = (torch.arange(width)[None, :] >= torch.tensor(gaps)[:, None]).long()
        labelled = (at for row in labels for at, label in enumerate(row) if label != IGNORED)
        return {
            "input_ids": torch.tensor(tokens),
            "labels": torch.tensor(labels),
            "attention_mask": mask,
            "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
            # The position before the first label predicts it.
            "logits_to_keep": min(width, width - min(labelled, default=width) + 1),
        }


def predictions(logits: Any, labels: Any) -> tuple[Any, Any]:
    """Logits (rows, n, vocabulary) and the labels (rows, n) that they predict, of the logits of the last positions of
    rows with labels (rows, width)."""
    scores = logits[:, :-1]
    return scores, labels[:, labels.shape[1] - scores.shape[1] :]


def completion_loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    """Mean cross entropy of the labels (rows, width) under the logits (rows, the last positions kept, vocabulary), over
    `num_items_in_batch` labels when gradients are accumulated, else over those of the batch."""
    from torch.nn.functional import cross_entropy

    scores, wanted = predictions(outputs.logits, labels)
    counted = wanted != IGNORED
    total = cross_entropy(scores[counted].float(), wanted[counted], reduction="sum")
    return total / (counted.sum() if num_items_in_batch is None else num_items_in_batch)


@dataclass(frozen=True, slots=True)
class Shard:
    """The part of a training in one of `world_size` processes. That of rank 0 writes, and calls `saved` with every
    checkpoint that it has written and the names of those that are still there."""

    rank: int
    world_size: int
    saved: Callable[[Path, Sequence[str]], None]


def accumulation_steps(spec: AdapterSpec, world_size: int) -> int:
    """Steps whose gradients a process sums for one optimizer step, so that none holds more than `batch` examples.

    Raises RunError when the examples of an optimizer step cannot be divided equally.
    """
    whole = spec.batch * spec.accumulate
    if whole % world_size:
        raise RunError(
            f"adapter: run.trainers is {world_size}, and {whole} examples an optimizer step (batch times accumulate) "
            f"cannot be shared equally among them"
        )
    return ceil(whole // world_size / spec.batch)


class ShardedBatchSampler:
    """The batches of one process of several, as lists of numbers of examples: data parallelism in which all processes
    together do what one would do, so that their number changes neither the steps nor the learning rates. The loss of a
    process is divided by the labels of the whole batch, and gradients are added up: what comes out differs from one
    process's by rounding alone, and with dropout by the draws.

    Every process has equally many batches, so that none waits for another for ever: empty ones at the end of the epoch
    if need be. `order` is a sampler of torch, or a list of numbers.
    """

    def __init__(self, order: Any, spec: AdapterSpec, shard: Shard) -> None:
        self.order, self.shard = order, shard
        self.whole, self.steps = spec.batch * spec.accumulate, accumulation_steps(spec, shard.world_size)

    def set_epoch(self, epoch: int) -> None:
        if hasattr(self.order, "set_epoch"):
            self.order.set_epoch(epoch)

    def __len__(self) -> int:
        full, rest = divmod(len(self.order), self.whole)
        return full * self.steps + self._steps_of(rest)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.order)
        for start in range(0, len(order), self.whole):
            batch = order[start : start + self.whole]
            mine, count = batch[self.shard.rank :: self.shard.world_size], self._steps_of(len(batch))
            yield from (mine[step::count] for step in range(count))

    def _steps_of(self, examples: int) -> int:
        """Steps for a batch: of the last of an epoch there are fewer."""
        each = ceil(self.whole / self.shard.world_size / self.steps)
        return ceil(ceil(examples / self.shard.world_size) / each)


def sharded_loader(
    rows: Sequence[TokenRow], order: Sequence[int] | None, spec: AdapterSpec, shard: Shard, collate: Callable[..., Any]
) -> Any:
    """A DataLoader of the examples of a process. Without an `order`, they come as transformers' Trainer draws them."""
    from accelerate.data_loader import SeedableRandomSampler
    from torch.utils.data import DataLoader

    drawn = order if order is not None else SeedableRandomSampler(rows, data_seed=spec.seed)
    sampler = ShardedBatchSampler(drawn, spec, shard)
    blank = {**rows[0], "labels": [IGNORED] * len(rows[0]["labels"])}
    # A process with nothing to learn in the last batch keeps in step with the others.
    loader: Any = DataLoader(rows, batch_sampler=sampler, collate_fn=lambda mine: collate(mine or [blank]))  # type: ignore[arg-type]
    loader.set_epoch = sampler.set_epoch  # called by the Trainer: the draw depends on the epoch
    return loader


def epochs_done(steps: int, examples: int, spec: AdapterSpec) -> float:
    """Passes over the examples after optimizer steps, counted as one process counts them: in batches."""
    batches = ceil(examples / spec.batch)
    whole, rest = divmod(steps, ceil(batches / spec.accumulate))
    return whole + min(rest * spec.accumulate, batches) / batches
