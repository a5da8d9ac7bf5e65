"""Attention within examples that lie in one row, one after another, with what they begin with alike only once.

Padding is arithmetic thrown away, and with a mask the kernels compute the half of every square that nobody may see.
Without both, an example attends to itself alone, by construction. Prompts of a format begin alike, with the system
message and the instruction: what causal layers make of such a beginning is the same in every example.
"""

from typing import Any

NAME = "lema_packed"
# Architectures whose attention is plain causal attention over all earlier tokens. Others are padded.
PLAIN = frozenset({"llama", "mistral", "qwen2", "qwen3"})


def pack(network: Any, longest: int) -> bool:
    """Let a network attend along `paths`; False, and nothing is changed, when it is of a kind that does more than
    plain causal attention on examples of up to `longest` tokens."""
    from transformers import AttentionInterface

    config = network.config
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if config.model_type not in PLAIN or (window or longest) < longest:
        return False
    AttentionInterface.register(NAME, _attend)
    network.set_attn_implementation(NAME)
    return True


def _attend(
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

    The tokens lie in pieces of the given lengths. A path names the pieces of one example; those that no earlier path
    has named come last in it, and in the order of the pieces.
    """
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    groups = query.shape[1] // key.shape[1]
    key, value = (heads.repeat_interleave(groups, 1) if groups > 1 else heads for heads in (key, value))
    parts = [heads.split(pieces, 2) for heads in (query, key, value)]
    mixed, done = [], 0
    for path in paths:
        queries, keys, values = (torch.cat([part[piece] for piece in path], 2) for part in parts)
        seen = scaled_dot_product_attention(queries, keys, values, dropout_p=dropout, is_causal=True, scale=scaling)
        known = sum(pieces[piece] for piece in path if piece < done)
        mixed.append(seen[:, :, known:])
        done = path[-1] + 1
    return torch.cat(mixed, 2).transpose(1, 2), None
