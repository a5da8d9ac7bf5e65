"""A local model, answered in batches by transformers on the CPU (fp32) or the GPU (bf16).

The text of a request depends on that request alone, not on its neighbours, so adding requests, another batch size
or a resumed run give the same texts. Random numbers are drawn from the request's key. On the CPU even the last bit
of the arithmetic agrees: what a row is padded to is a function of its own length, and no batch is so small that
the matrix kernels change (measured: bit-equal from 4 rows on, with one thread or two). GPU kernels promise no such
thing; there, rare near-ties may fall the other way in another batch.
"""

import copy
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lema.models.local_weights import SharedNetwork, shared_network
from lema.models.tokenize import prompt_token_ids, request_token_ids
from lema.models.types import Completion, Model, Request, Sampling, cut
from lema.recipe.params import Run
from lema.rows import Finish

PAD_TO = 64  # prompts are padded to a multiple of this many tokens
MIN_ROWS = 4  # rows in a batch, below which CPU kernels add up in another order
COMPACT_BELOW = 0.75  # share of rows still generating, at which the finished ones are taken out of the batch
MIN_PREFIX = 16  # tokens that a common beginning must have to be computed once


def transformers(model: Model, run: Run) -> "TransformersWorker":
    """A worker for a folder saved by transformers or a model of the hub, with or without a LoRA adapter. Workers of one
    base share it in memory, as long as there is one.

    Raises RunError when it cannot be loaded.
    """
    return TransformersWorker(shared_network(model, run.workers), model.adapter, run.batch)


@dataclass(slots=True)
class GeneratingRow:
    """A request while its reply is generated. The first `prefix` of its `ids` are the same for every question of its
    prompt."""

    position: int
    request: Request
    ids: list[int]
    prefix: int
    limit: int
    uniform: random.Random
    written: list[int] = field(default_factory=list)
    finish: Finish | None = None

    @property
    def padded(self) -> int:
        """Tokens after the common prefix, with padding: a function of the request alone."""
        return -(-(len(self.ids) - self.prefix) // PAD_TO) * PAD_TO

    @property
    def kind(self) -> tuple[list[int], int, str]:
        """Rows that are equal in this may be computed together."""
        return self.ids[: self.prefix], self.padded, repr(replace(self.request.sampling, seed=0))


class TransformersWorker:
    """Answers requests in batches of at most `batch`."""

    def __init__(self, base: SharedNetwork, adapter: str | None, batch: int) -> None:
        self.base, self.tokenizer = base, base.tokenizer
        self._adapter, self._batch = adapter, batch
        ends = base.generation_config.eos_token_id
        self._ends = {self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}

    @property
    def network(self) -> Any:
        """The base with this worker's adapter, until another worker of the base is called."""
        return self.base.network(self._adapter)

    def __call__(self, requests: Sequence[Request], /) -> list[Completion]:
        import torch

        rows = [self._row(position, request) for position, request in enumerate(requests)]
        replies = {position: row for position, row in enumerate(rows) if isinstance(row, Completion)}
        prefix, cache = None, None
        with self.base.lock, torch.inference_mode():
            for batch in _batches([row for row in rows if isinstance(row, GeneratingRow)], self._batch):
                if batch[0].ids[: batch[0].prefix] != prefix:
                    prefix = batch[0].ids[: batch[0].prefix]
                    cache = self._prefill(prefix)
                self._generate(batch, cache)
                replies |= {row.position: self._completion(row) for row in batch}
        return [replies[position] for position in range(len(requests))]

    def _row(self, position: int, request: Request) -> GeneratingRow | Completion:
        ids = request_token_ids(self.tokenizer, request, self.base.context)
        if isinstance(ids, Completion):
            return ids
        *before, last = request.messages
        try:
            blank = prompt_token_ids(self.tokenizer, [*before, replace(last, content="")], request.model.chat)
        except ValueError as error:
            return Completion("", "failed", str(error))
        # The prefix ends where a prompt without its question differs.
        same = next((n for n, (one, other) in enumerate(zip(ids, blank, strict=False)) if one != other), 0)
        prefix = same if same >= MIN_PREFIX else 0
        limit = min(request.sampling.max_tokens, self.base.context - len(ids))
        return GeneratingRow(position, request, ids, prefix, limit, random.Random(request.key))

    def _prefill(self, ids: list[int]) -> Any:
        """The key-value cache after the tokens that all rows of a batch begin with."""
        import torch
        from transformers import DynamicCache

        cache = DynamicCache(config=self.network.config)
        if ids:
            tokens = torch.tensor([ids], device=self.network.device)
            self.network(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return cache

    def _generate(self, rows: list[GeneratingRow], prefilled: Any) -> None:
        """Fill in `written` and `finish` of every row. A lane is a row of the tensors."""
        import torch

        prefix, width, device = rows[0].prefix, rows[0].padded, self.network.device
        lanes = _lanes(range(len(rows)))
        cache = copy.deepcopy(prefilled)
        if prefix:
            cache.batch_repeat_interleave(len(lanes))
        # Padding lies between the common prefix and the row's own tokens.
        gaps = [prefix + width - len(rows[lane].ids) for lane in lanes]
        filler = self.tokenizer.pad_token_id or 0
        padded = [[filler] * gap + rows[lane].ids[prefix:] for lane, gap in zip(lanes, gaps, strict=True)]
        tokens = torch.tensor(padded, device=device)
        mask = torch.ones(len(lanes), prefix + width, dtype=torch.long, device=device)
        for lane, gap in enumerate(gaps):
            mask[lane, prefix : prefix + gap] = 0
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, prefix:]
        while True:
            scores = self.network(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[: len(rows), -1]
            picked = sample_tokens(scores, [row.uniform.random() for row in rows], rows[0].request.sampling)
            for row, token in zip(rows, picked.tolist(), strict=True):
                self._append(row, token)
            going = [at for at, row in enumerate(rows) if row.finish is None]
            if not going:
                return
            if len(going) <= COMPACT_BELOW * len(rows):
                kept = torch.tensor(_lanes(going), device=device)
                rows, picked = [rows[at] for at in going], picked[going]
                cache.batch_select_indices(kept)
                mask, positions = mask[kept], positions[kept]
            tokens = picked[_lanes(range(len(rows)))][:, None]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            positions = positions[:, -1:] + 1

    def _append(self, row: GeneratingRow, token: int) -> None:
        """A row's next token; ignored once it is finished."""
        if row.finish is not None:
            return
        row.written.append(token)
        stop = row.request.sampling.stop
        if token in self._ends or (stop and cut(self._decode(row), stop)[1]):
            row.finish = "stop"
        elif len(row.written) >= row.limit:
            row.finish = "length"

    def _decode(self, row: GeneratingRow) -> str:
        return str(self.tokenizer.decode(row.written, skip_special_tokens=True))

    def _completion(self, row: GeneratingRow) -> Completion:
        text, _ = cut(self._decode(row), row.request.sampling.stop)
        return Completion(text.strip(), row.finish or "length", None, len(row.ids), len(row.written))


def _batches(rows: Sequence[GeneratingRow], size: int) -> Iterator[list[GeneratingRow]]:
    """Rows of one kind, those of similar length together."""
    ordered = sorted(rows, key=lambda row: (row.kind, len(row.ids), row.position))
    for _, same in itertools.groupby(ordered, key=lambda row: row.kind):
        while batch := list(itertools.islice(same, size)):
            yield batch


def _lanes(rows: Sequence[int]) -> list[int]:
    """Which row each lane computes: the last one again in lanes that are only there for MIN_ROWS."""
    return [*rows, *[rows[-1]] * (MIN_ROWS - len(rows))]


def sample_tokens(scores: Any, uniforms: Sequence[float], sampling: Sampling) -> Any:
    """One token a row, (rows, vocabulary) → (rows): greedy, or by inverse CDF from a uniform number a row.

    `top_k` and then `top_p` are applied after the temperature.
    """
    import torch

    if sampling.temperature == 0:
        return scores.argmax(-1)
    ids = None
    if sampling.top_k is not None or sampling.top_p < 1:
        scores, ids = scores.topk(min(sampling.top_k or scores.shape[-1], scores.shape[-1]), dim=-1)
    chances = (scores.double() / sampling.temperature).softmax(-1)
    if sampling.top_p < 1:
        chances = chances * (chances.cumsum(-1) - chances < sampling.top_p)
    ladder = chances.cumsum(-1)
    drawn = torch.tensor(uniforms, dtype=ladder.dtype, device=ladder.device)[:, None] * ladder[:, -1:]
    at = torch.searchsorted(ladder, drawn, right=True).clamp(max=ladder.shape[-1] - 1)
    return (at if ids is None else ids.gather(-1, at)).squeeze(-1)
