"""How likely a local model holds given completions to be: what perplexity is made of."""

from collections.abc import Sequence
from typing import Any

from lema.models.local import prompt_ids
from lema.models.transformers import transformers
from lema.models.types import Model
from lema.recipe.params import Run
from lema.rows import Message
from lema.train import Progress, silent
from lema.train._batch import IGNORED, Pad

_BATCH = 16


def losses(
    model: Model, run: Run, texts: Sequence[tuple[Sequence[Message], str]], log: Progress = silent
) -> list[tuple[float, int] | None]:
    """For every (prompt, completion), the mean negative log-likelihood of a token of the completion given the prompt
    and the tokens before it, in nats, and the number of its tokens; its exponential is the perplexity.

    None where the completion is empty or the two are longer than the model's context. Raises RunError when the model
    cannot be loaded or its chat template refuses a prompt.
    """
    import torch

    worker = transformers(model, run)
    rows = [_row(messages, completion, worker.tokenizer, model.chat) for messages, completion in texts]
    fitting = [at for at, row in enumerate(rows) if row and len(row["input_ids"]) <= worker.context]
    found: list[tuple[float, int] | None] = [None] * len(rows)
    pad = Pad(worker.tokenizer)
    # Of like length together, and the same ones always: padding may move the last bit of a figure.
    order = sorted(fitting, key=lambda at: (len(rows[at]["input_ids"]), at))
    with torch.inference_mode():
        for start in range(0, len(order), _BATCH):
            log(start, len(order), "")
            part = order[start : start + _BATCH]
            batch = pad([rows[at] for at in part])
            labels = batch.pop("labels")
            inputs = {name: _move(value, worker.network.device) for name, value in batch.items()}
            for at, figures in zip(part, _figures(worker.network(**inputs).logits, labels), strict=True):
                found[at] = figures
    log(len(order), len(order), "")
    return found


def _row(messages: Sequence[Message], completion: str, tokenizer: Any, chat: bool) -> dict[str, list[int]]:
    """Empty where there is nothing to predict."""
    tokens = list(tokenizer(completion, add_special_tokens=False)["input_ids"])
    if not tokens:
        return {}
    prompt = prompt_ids(tokenizer, messages, chat)
    return {"input_ids": [*prompt, *tokens], "labels": [IGNORED] * len(prompt) + tokens}


def _move(value: Any, device: Any) -> Any:
    return value.to(device) if hasattr(value, "to") else value


def _figures(logits: Any, labels: Any) -> list[tuple[float, int]]:
    """Mean loss and number of labels of every row; `logits` are those of the last places of a row."""
    from torch.nn.functional import cross_entropy

    scores = logits[:, :-1].float().cpu()
    wanted = labels[:, labels.shape[1] - scores.shape[1] :]
    each = cross_entropy(scores.transpose(1, 2), wanted, ignore_index=IGNORED, reduction="none")
    counts = (wanted != IGNORED).sum(1)
    return [(round(float(loss / count), 5), int(count)) for loss, count in zip(each.sum(1), counts, strict=True)]
