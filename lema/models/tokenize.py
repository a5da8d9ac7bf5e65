"""How messages become tokens: the one place that renders a chat template or plain text for a model of this machine.

Local backends, training and the counting of tokens share it, so that what a model is asked is what it was trained on.
transformers is imported inside functions.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from lema.errors import RunError
from lema.models.types import Completion, Model, Request
from lema.rows import Message


def plain_text(messages: Sequence[Message]) -> str:
    """The prompt of a model without a chat template: the contents, each ended by a line break. The model continues
    right after the last one.

    >>> plain_text([Message("user", "1 + 1 = ?"), Message("assistant", "2"), Message("user", "2 + 2 = ?")])
    '1 + 1 = ?\\n2\\n2 + 2 = ?\\n'
    """
    return "".join(f"{message.content}\n" for message in messages)


def prompt_token_ids(tokenizer: Any, messages: Sequence[Message], chat: bool) -> list[int]:
    """The tokens that a model reads before it writes: by its chat template, or as plain text.

    Raises ValueError when the chat template refuses the messages or there is none.
    """
    if not chat:
        return list(tokenizer(plain_text(messages))["input_ids"])
    turns = [{"role": message.role, "content": message.content} for message in messages]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # templates are programs of the model's makers and raise what they like
        raise ValueError(f"the chat template refuses the messages ({type(error).__name__})") from error
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def request_token_ids(tokenizer: Any, request: Request, context: int) -> list[int] | Completion:
    """The tokens of a request's prompt, or the failed completion of a prompt that is empty, refused by the chat
    template, or leaves no room for a reply in a context of so many tokens."""
    try:
        ids = prompt_token_ids(tokenizer, request.messages, request.model.chat)
    except ValueError as error:
        return Completion("", "failed", str(error))
    if not ids:
        return Completion("", "failed", "the prompt is empty")
    if len(ids) >= context:
        reason = f"the prompt of {len(ids)} tokens leaves no room in the model's context of {context}"
        return Completion("", "failed", reason, len(ids))
    return ids


def count_tokens(model: Model, prompts: Sequence[Sequence[Message]], completions: Sequence[str]) -> list[int]:
    """Tokens of each completion as a local model is trained on it, its end included, and of its prompt where there are
    prompts.

    Raises RunError when there is no such model, or its chat template refuses a prompt.
    """
    if not completions:
        return []
    tokenizer = _cached_tokenizer(str(model.folder), model.revision)
    written = tokenizer(list(completions), add_special_tokens=False)["input_ids"]
    try:
        read = [len(prompt_token_ids(tokenizer, prompt, model.chat)) for prompt in prompts] or [0] * len(written)
    except ValueError as error:
        raise RunError(f"tokens cannot be counted: {error}") from None
    return [before + len(tokens) + 1 for before, tokens in zip(read, written, strict=True)]


def load_tokenizer(location: str, revision: str | None = None) -> Any:
    """The tokenizer of a folder or hub model; raises RunError."""
    from transformers import AutoTokenizer

    silence_transformers()
    try:
        return AutoTokenizer.from_pretrained(location, revision=revision)
    except (OSError, ValueError) as error:
        raise loading_error(location, error) from error


# Loading one takes longer than counting thousands of rows, and an arm may be counted several times.
_cached_tokenizer = lru_cache(maxsize=1)(load_tokenizer)


def loading_error(location: str, error: Exception) -> RunError:
    """Why a model cannot be loaded, in one line that shows no folder of this machine."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    # A recipe names no absolute folder, so it is one of ours, and called as the recipe calls the model.
    shown = Path(location).name if Path(location).is_absolute() else location
    return RunError(f"model {shown} cannot be loaded: {first.replace(location, shown)}")


def silence_transformers() -> None:
    """Keep transformers' progress bars and advice off the screen; errors still show."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
