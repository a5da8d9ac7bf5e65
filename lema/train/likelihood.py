"""How likely a local model holds given completions to be: what perplexity is made of."""

from collections.abc import Sequence
from typing import Any

from lema.models.local_weights import shared_network
from lema.models.tokenize import prompt_token_ids
from lema.models.types import Model
from lema.recipe.params import Run
from lema.rows import Message
from lema.train import Progress, silent
from lema.train.batching import IGNORED, LeftPadding, TokenRow, encode_completion, predictions

BATCH_ROWS = 16


def completion_losses(
    model: Model, run: Run, texts: Sequence[tuple[Sequence[Message], str]], log: Progress = silent
) -> list[tuple[float, int] | None]:
    """For every (prompt, completion), the mean negative log-likelihood of a token of the completion given the prompt
    and the tokens before it, in nats, and the number of its tokens; its exponential is the perplexity.

    None where the completion is empty or the two are longer than the model's context. Raises RunError when the model
    cannot be loaded or its chat template refuses a prompt.
    """
    import torch

    shared = shared_network(model, run.workers)
    rows = [_prompted_row(shared.tokenizer, model.chat, *text) for text in texts]
    fitting = [at for at, row in enumerate(rows) if row["input_ids"] and len(row["input_ids"]) <= shared.context]
    found: list[tuple[float, int] | None] = [None] * len(rows)
    pad = LeftPadding(shared.tokenizer)
    # Of like length together, and the same ones always: padding may move the last bit of a figure.
    order = sorted(fitting, key=lambda at: (len(rows[at]["input_ids"]), at))
    with shared.lock, torch.inference_mode():
        for start in range(0, len(order), BATCH_ROWS):
            log(start, len(order), "")
            part = order[start : start + BATCH_ROWS]
            batch, network = pad([rows[at] for at in part]), shared.network(model.adapter)
            labels, keep = batch.pop("labels"), batch.pop("logits_to_keep")
            inputs = {name: value.to(network.device) for name, value in batch.items()}
            logits = network(**inputs, logits_to_keep=keep).logits
            for at, figures in zip(part, _mean_losses(logits, labels), strict=True):
                found[at] = figures
    log(len(order), len(order), "")
    return found


def _prompted_row(tokenizer: Any, chat: bool, messages: Sequence[Message], completion: str) -> TokenRow:
    """Empty where there is nothing to predict."""
    tokens, labels = encode_completion(tokenizer, completion)
    prompt = prompt_token_ids(tokenizer, messages, chat) if tokens else []
    return {"input_ids": [*prompt, *tokens], "labels": [IGNORED] * len(prompt) + labels}


def _mean_losses(logits: Any, labels: Any) -> list[tuple[float, int]]:
    """Mean loss and number of labels of every row."""
    from torch.nn.functional import cross_entropy

    scores, wanted = predictions(logits.float().cpu(), labels)
    each = cross_entropy(scores.transpose(1, 2), wanted, ignore_index=IGNORED, reduction="none")
    counts = (wanted != IGNORED).sum(1)
    return [(round(float(loss / count), 5), int(count)) for loss, count in zip(each.sum(1), counts, strict=True)]
