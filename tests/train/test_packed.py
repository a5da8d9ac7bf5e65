"""Packed batches: the loss and the gradients of every example on its own, on every architecture that is packed."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, set_seed

from lema.train.batching import IGNORED, completion_loss
from lema.train.packed import PACKABLE, enable_packing, pack_rows

SIZES = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip


def network(kind: str, **more: Any) -> Any:
    set_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZES, **more))


def row(ids: list[int], prompt: int) -> dict[str, list[int]]:
    return {"input_ids": ids, "labels": [IGNORED] * prompt + ids[prompt:]}


BEGINNING = [7, 8, 9, 10]
ROWS = [
    row([*BEGINNING, 11, 12, 13, 14], 5),
    row([*BEGINNING, 11, 12, 20, 21, 22], 5),  # begins like the one before, also where it is learnt
    row([*BEGINNING, 30], 4),
    row([3, 4, 5], 1),  # begins like no other
    row([*BEGINNING, 11, 12], 5),  # another begins with all of it
    row([3, 4, 5], 2),  # the same again, learnt otherwise
    {"input_ids": [*BEGINNING, 1, 2, 3], "labels": [IGNORED] * 5 + [2, IGNORED]},
]


def alone(model: Any) -> Any:
    """The mean loss over the labels of all rows, each computed by itself and by transformers alone."""
    total = sum(
        model(torch.tensor([one["input_ids"]]), labels=torch.tensor([one["labels"]])).loss * learnt(one) for one in ROWS
    )
    return total / sum(map(learnt, ROWS))


def learnt(one: dict[str, list[int]]) -> int:
    return sum(label != IGNORED for label in one["labels"][1:])


def gradients(model: Any, error: Any) -> dict[str, Any]:
    model.zero_grad()
    error.backward()
    return {name: weights.grad.clone() for name, weights in model.named_parameters()}


@pytest.mark.parametrize("kind", sorted(PACKABLE))
@pytest.mark.parametrize("checkpointing", [False, True])
def test_packed_examples_do_not_see_one_another(kind: str, checkpointing: bool) -> None:
    model = network(kind).train()
    expected = alone(model)
    wanted = gradients(model, expected)
    assert enable_packing(model, 100)
    if checkpointing:
        model.gradient_checkpointing_enable()
    batch = pack_rows(ROWS)
    labels = batch.pop("labels")
    outputs = model(**batch)
    assert outputs.logits.shape[1] == labels.shape[1], "logits that no label needs"
    found = completion_loss(outputs, labels)
    assert torch.allclose(found, expected, rtol=1e-5)
    for name, gradient in gradients(model, found).items():
        assert torch.allclose(gradient, wanted[name], atol=1e-6), name


def test_what_examples_begin_with_alike_is_there_once() -> None:
    batch = pack_rows(ROWS)
    # 4 at the beginning of five of them, 2 more of three, [3, 4, 5] once, and what is each one's own.
    assert batch["input_ids"].shape == (1, 4 + 2 + 3 + (2 + 3 + 1 + 3))
    assert sum(batch["pieces"]) == batch["input_ids"].shape[1]
    assert batch["position_ids"].max() == 8
    assert (batch["labels"] != IGNORED).sum() == sum(map(learnt, ROWS))
    assert batch["input_ids"].tolist() == pack_rows(ROWS[::-1])["input_ids"].tolist(), "their order is of no matter"


@pytest.mark.parametrize(
    ("kind", "more", "packed"),
    [
        ("gemma2", {}, False),  # caps its attention
        ("mistral", {"sliding_window": 64}, False),
        ("mistral", {"sliding_window": 128}, True),  # no example is as long as the window
        ("qwen2", {"use_sliding_window": False, "sliding_window": 64}, True),
    ],
)
def test_only_plain_causal_attention_is_packed(kind: str, more: dict[str, Any], packed: bool) -> None:
    model = network(kind, **more)
    before = model.config._attn_implementation
    assert enable_packing(model, 100) is packed
    assert (model.config._attn_implementation != before) is packed
