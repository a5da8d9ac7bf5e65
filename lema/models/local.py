"""What local models and their training share: the machine, loading, and how messages become tokens."""

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from lema.errors import RunError
from lema.models.plain_text import plain
from lema.models.types import Completion, Model, Request
from lema.rows import Message


def cores() -> int:
    """Processors that this process may use: fewer than the machine has, in a container or when pinned."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_tokenizer(location: str, revision: str | None = None) -> Any:
    """The tokenizer of a folder or hub model; raises RunError."""
    from transformers import AutoTokenizer

    quiet()
    try:
        return AutoTokenizer.from_pretrained(location, revision=revision)
    except (OSError, ValueError) as error:
        raise RunError(unloadable(location, error)) from error


def load_network(location: str, revision: str | None = None, **more: Any) -> Any:
    """A causal language model on the GPU in bf16, or else on the CPU in fp32 (bf16 is slower there without matrix
    extensions); `more` goes to `from_pretrained`. Raises RunError."""
    import torch
    from transformers import AutoModelForCausalLM

    quiet()
    cuda = torch.cuda.is_available()
    more.setdefault("dtype", torch.bfloat16 if cuda else torch.float32)
    try:
        network = AutoModelForCausalLM.from_pretrained(location, revision=revision, **more)
    except (OSError, ValueError) as error:
        raise RunError(unloadable(location, error)) from error
    return network if "device_map" in more else network.to("cuda" if cuda else "cpu")


def unloadable(location: str, error: Exception) -> str:
    """One line, without a folder of this machine."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    # A recipe names no absolute folder, so it is one of ours, and called as the recipe calls the model.
    shown = Path(location).name if Path(location).is_absolute() else location
    return f"model {shown} cannot be loaded: {first.replace(location, shown)}"


def quiet() -> None:
    """Keep transformers' bars and advice off the screen; errors still show."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def prompt_ids(tokenizer: Any, messages: Sequence[Message], chat: bool) -> list[int]:
    """The tokens that a model reads before it writes: by its chat template, or as plain text.

    Raises ValueError when the chat template refuses the messages or there is none.
    """
    if not chat:
        return list(tokenizer(plain(messages))["input_ids"])
    turns = [{"role": message.role, "content": message.content} for message in messages]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # templates are programs of the model's makers and raise what they like
        raise ValueError(f"the chat template refuses the messages ({type(error).__name__})") from error
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def fitting_ids(tokenizer: Any, request: Request, context: int) -> list[int] | Completion:
    """The tokens of a prompt that leaves room for a reply in a context of so many, or else the failure of it."""
    try:
        ids = prompt_ids(tokenizer, request.messages, request.model.chat)
    except ValueError as error:
        return Completion("", "failed", str(error))
    if not ids:
        return Completion("", "failed", "the prompt is empty")
    if len(ids) >= context:
        reason = f"the prompt of {len(ids)} tokens leaves no room in the model's context of {context}"
        return Completion("", "failed", reason, len(ids))
    return ids


def count_tokens(model: Model, prompts: Sequence[Sequence[Message]], completions: Sequence[str]) -> list[int]:
    """Tokens of each completion as a local model is trained on it, its end counted, and of its prompt where there are
    prompts.

    Raises RunError when there is no such model, or its chat template refuses a prompt.
    """
    if not completions:
        return []
    tokenizer = _kept(str(model.folder), model.revision)
    written = tokenizer(list(completions), add_special_tokens=False)["input_ids"]
    try:
        read = [len(prompt_ids(tokenizer, prompt, model.chat)) for prompt in prompts] or [0] * len(written)
    except ValueError as error:
        raise RunError(f"tokens cannot be counted: {error}") from None
    return [before + len(tokens) + 1 for before, tokens in zip(read, written, strict=True)]


# Loading one takes longer than counting thousands of rows, and an arm may be counted several times.
_kept = lru_cache(maxsize=1)(load_tokenizer)
