"""Sequence packing with shared prefixes: examples in one row, one after another, with what they begin with alike once.

Padding is arithmetic thrown away, and with a mask the kernels compute the half of every square that nobody may see.
Without both, an example attends to itself alone, by construction. Prompts of a format begin alike, with the system
message and the instruction: what causal layers make of such a beginning is the same in every example.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from lema.train.batching import IGNORED, TokenRow

ATTENTION = "lema_packed"
# Architectures whose attention is plain causal attention over all earlier tokens. Others are padded.
PACKABLE = frozenset({"llama", "mistral", "qwen2", "qwen3"})


def enable_packing(network: Any, longest: int) -> bool:
    """Let a network attend along the `paths` of `pack_rows`; False, and nothing is changed, when it is of a kind that
    does more than plain causal attention on examples of up to `longest` tokens."""
    from transformers import AttentionInterface

    config = network.config
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if config.model_type not in PACKABLE or (window or longest) < longest:
        return False
    AttentionInterface.register(ATTENTION, _packed_attention)
    network.set_attn_implementation(ATTENTION)
    return True


def pack_rows(rows: Sequence[TokenRow]) -> dict[str, Any]:
    """Collates token rows of any length into one row of tensors (1, tokens): a trie of the rows, in the order of their
    token ids. With dropout, rows share its draw for the tokens that they share.

    The tokens lie in `pieces` of the given lengths; a path of `paths` names the pieces of one example. `labels` are
    those that there are, after one IGNORED; `logits_to_keep` the positions that predict them.
    """
    import torch

    tokens, positions, predicting, labels = list[int](), list[int](), list[int](), [IGNORED]
    trails, cuts, trail, before = list[list[int]](), {0}, list[int](), list[int]()
    for row in sorted(rows, key=lambda row: row["input_ids"]):
        ids = row["input_ids"]
        differing = (at for at, (one, other) in enumerate(zip(ids, before, strict=False)) if one != other)
        shared = next(differing, min(len(ids), len(before)))
        if shared:
            cuts.add(trail[shared - 1] + 1)
        cuts.add(len(tokens))
        # Where the tokens of this example lie in the packed row.
        trail = [*trail[:shared], *range(len(tokens), len(tokens) + len(ids) - shared)]
        if len(ids) > shared:
            trails.append(trail)
        tokens += ids[shared:]
        positions += range(shared, len(ids))
        labelled = [at for at in range(1, len(ids)) if row["labels"][at] != IGNORED]
        predicting += [trail[at - 1] for at in labelled]
        labels += [row["labels"][at] for at in labelled]
        before = ids
    ends = sorted({*cuts, len(tokens)})
    piece = {start: number for number, start in enumerate(ends[:-1])}
    return {
        "input_ids": torch.tensor([tokens]),
        "position_ids": torch.tensor([positions]),
        "pieces": [end - start for start, end in pairwise(ends)],
        "paths": [[piece[at] for at in trail if at in piece] for trail in trails],
        "labels": torch.tensor([labels]),
        # The last position is there as in a padded batch, where it predicts nothing.
        "logits_to_keep": torch.tensor([*predicting, len(tokens) - 1]),
    }


def _packed_attention(
    _module: Any,
    query: Any,
    key: Any,
    value: Any,
    _mask: Any,
    *,
    pieces: list[int],
    paths: list[list[int]],
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Any, None]:
    """Query, key and value (1, heads, tokens, size) → (1, tokens, heads, size).

    The pieces of a path that no earlier path has named come last in it, and in the order of the pieces.
    """
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    groups = query.shape[1] // key.shape[1]
    key, value = (heads.repeat_interleave(groups, 1) if groups > 1 else heads for heads in (key, value))
    split = [heads.split(pieces, 2) for heads in (query, key, value)]
    mixed, done = [], 0
    for path in paths:
        queries, keys, values = (torch.cat([part[piece] for piece in path], 2) for part in split)
        seen = scaled_dot_product_attention(queries, keys, values, dropout_p=dropout, is_causal=True, scale=scaling)
        known = sum(pieces[piece] for piece in path if piece < done)
        mixed.append(seen[:, :, known:])
        done = path[-1] + 1
    return torch.cat(mixed, 2).transpose(1, 2), None
