"""A local model, answered in batches by transformers on the CPU (fp32) or the GPU (bf16).

The text of a request depends on that request alone, not on its neighbours, so adding requests, another batch size
or a resumed run give the same texts. Random numbers are drawn from the request's key. On the CPU even the last bit
of the arithmetic agrees: what a row is padded to is a function of its own length, and no batch is so small that
the matrix kernels change (measured: bit-equal from 4 rows on, with one thread or two). GPU kernels promise no such
thing; there, rare near-ties may fall the other way in another batch.
"""

import copy
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lema.errors import RunError
from lema.models.local import cores, fitting_ids, prompt_ids
from lema.models.network_cache import Loaded, loaded
from lema.models.types import Completion, Model, Request, Sampling, cut, key
from lema.recipe.params import Run
from lema.rows import Finish

PAD_TO = 64  # prompts are padded to a multiple of this many tokens
SMALLEST = 4  # rows in a batch, below which CPU kernels add up in another order
KEEP = 0.75  # share of rows still going, below which the others are taken out of the batch
SHARED = 16  # tokens that a common beginning must have to be computed once


def transformers(model: Model, run: Run) -> "Generator":
    """A worker for a folder saved by transformers or a model of the hub, with or without a LoRA adapter. Workers of one
    base share it in memory, as long as there is one.

    Raises RunError when it cannot be loaded.
    """
    import torch

    location = model.folder or model.name
    if location is None:
        raise RunError(f"model {model.label!r}: the transformers backend needs the `name` of a folder or of the hub")
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, cores() // run.workers))
    return Generator(loaded(location, model.revision), model.adapter, run.batch)


@dataclass(slots=True)
class Row:
    """A request on its way. The first `shared` of its `ids` are the same for every question of its prompt."""

    at: int
    request: Request
    ids: list[int]
    shared: int
    limit: int
    uniform: random.Random
    written: list[int] = field(default_factory=list)
    finish: Finish | None = None

    @property
    def padded(self) -> int:
        """Tokens after the shared ones, with padding: a function of the request alone."""
        return -(-(len(self.ids) - self.shared) // PAD_TO) * PAD_TO

    @property
    def kind(self) -> tuple[list[int], int, str]:
        """Rows that are equal in this may be computed together."""
        return self.ids[: self.shared], self.padded, repr(replace(self.request.sampling, seed=0))


class Generator:
    """Answers requests in batches of at most `batch`."""

    def __init__(self, base: Loaded, adapter: str | None, batch: int) -> None:
        self.tokenizer, self.batch = base.tokenizer, batch
        self._base, self._adapter = base, adapter
        self.context = int(getattr(base.config, "max_position_embeddings", 0)) or 1 << 30
        ends = base.generation_config.eos_token_id
        self.ends = {self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}

    @property
    def network(self) -> Any:
        """The base with this worker's adapter, until another worker of the base is asked."""
        return self._base.network(self._adapter)

    def __call__(self, requests: Sequence[Request], /) -> list[Completion]:
        import torch

        replies: dict[int, Completion] = {}
        rows = []
        for at, request in enumerate(requests):
            row = self._row(at, request)
            if isinstance(row, Completion):
                replies[at] = row
            else:
                rows.append(row)
        shared, prefix = None, None
        with self._base.lock, torch.inference_mode():
            for batch in _batches(rows, self.batch):
                if batch[0].ids[: batch[0].shared] != shared:
                    shared = batch[0].ids[: batch[0].shared]
                    prefix = self._read(shared)
                self._write(batch, prefix)
                replies |= {row.at: self._completion(row) for row in batch}
        return [replies[at] for at in range(len(requests))]

    def _row(self, at: int, request: Request) -> Row | Completion:
        ids = fitting_ids(self.tokenizer, request, self.context)
        if isinstance(ids, Completion):
            return ids
        *before, last = request.messages
        try:
            blank = prompt_ids(self.tokenizer, [*before, replace(last, content="")], request.model.chat)
        except ValueError as error:
            return Completion("", "failed", str(error))
        same = next((n for n, (one, other) in enumerate(zip(ids, blank, strict=False)) if one != other), 0)
        limit = min(request.sampling.max_tokens, self.context - len(ids))
        return Row(at, request, ids, same if same >= SHARED else 0, limit, random.Random(key(request)))

    def _read(self, ids: list[int]) -> Any:
        """The cache after tokens that all rows of a batch begin with."""
        import torch
        from transformers import DynamicCache

        cache = DynamicCache(config=self.network.config)
        if ids:
            tokens = torch.tensor([ids], device=self.network.device)
            self.network(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return cache

    def _write(self, batch: list[Row], prefix: Any) -> None:
        """Fill in `written` and `finish` of every row. A lane is a row of the tensors."""
        import torch

        rows, shared, width, device = batch, batch[0].shared, batch[0].padded, self.network.device
        lanes = _lanes(range(len(rows)))
        cache = copy.deepcopy(prefix)
        if shared:
            cache.batch_repeat_interleave(len(lanes))
        # Padding lies between the shared tokens and the row's own.
        gaps = [shared + width - len(rows[at].ids) for at in lanes]
        filler = self.tokenizer.pad_token_id or 0
        padded = [[filler] * gap + rows[at].ids[shared:] for at, gap in zip(lanes, gaps, strict=True)]
        tokens = torch.tensor(padded, device=device)
        mask = torch.ones(len(lanes), shared + width, dtype=torch.long, device=device)
        for lane, gap in enumerate(gaps):
            mask[lane, shared : shared + gap] = 0
        places = (mask.cumsum(1) - 1).clamp(min=0)[:, shared:]
        while True:
            scores = self.network(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=places,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[: len(rows), -1]
            picked = pick(scores, [row.uniform.random() for row in rows], rows[0].request.sampling)
            for row, token in zip(rows, picked.tolist(), strict=True):
                self._take(row, token)
            going = [at for at, row in enumerate(rows) if row.finish is None]
            if not going:
                return
            if len(going) <= KEEP * len(rows):
                chosen = torch.tensor(_lanes(going), device=device)
                rows, picked = [rows[at] for at in going], picked[going]
                cache.batch_select_indices(chosen)
                mask, places = mask[chosen], places[chosen]
            tokens = picked[_lanes(range(len(rows)))][:, None]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            places = places[:, -1:] + 1

    def _take(self, row: Row, token: int) -> None:
        """A row's next token; ignored once it is finished."""
        if row.finish is not None:
            return
        row.written.append(token)
        stop = row.request.sampling.stop
        if token in self.ends or (stop and cut(self._text(row), stop)[1]):
            row.finish = "stop"
        elif len(row.written) >= row.limit:
            row.finish = "length"

    def _text(self, row: Row) -> str:
        return str(self.tokenizer.decode(row.written, skip_special_tokens=True))

    def _completion(self, row: Row) -> Completion:
        text, _ = cut(self._text(row), row.request.sampling.stop)
        return Completion(text.strip(), row.finish or "length", None, len(row.ids), len(row.written))


def _batches(rows: Sequence[Row], size: int) -> Iterator[list[Row]]:
    """Rows of one kind, those of similar length together."""
    batch: list[Row] = []
    for row in sorted(rows, key=lambda row: (row.kind, len(row.ids), row.at)):
        if batch and (len(batch) == size or row.kind != batch[0].kind):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _lanes(rows: Sequence[int]) -> list[int]:
    """Which row each lane computes: the last one again in lanes that are only there for SMALLEST."""
    return [*rows, *[rows[-1]] * (SMALLEST - len(rows))]


def pick(scores: Any, uniforms: Sequence[float], sampling: Sampling) -> Any:
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
