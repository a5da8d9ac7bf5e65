"""`transformers`: a local model, answering in batches on a processor or a GPU."""

import hashlib
import random
from collections.abc import Sequence
from typing import Any

from lema.models import Completion, Model, Request, cut, key
from lema.models._local import cores
from lema.models._text import plain
from lema.params import Run
from lema.rows import Finish


def transformers(model: Model, run: Run) -> "_Local":
    """A local model by folder or hub name, with the adapter of an arm when there is one."""
    return _Local(model, run)


class _Local:
    """A loaded model. A reply depends on its request alone, whatever else is in the batch: every request draws its
    tokens with random numbers of its own (up to rounding in the last bits of the logits)."""

    def __init__(self, model: Model, run: Run) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.torch, self.size, self.chat = torch, run.batch, model.chat
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        if self.device == "cpu":
            torch.set_num_threads(max(1, cores() // run.workers))
        # float32 on processors: bfloat16 is slower there without matrix extensions.
        dtype = torch.bfloat16 if self.device == "cuda" else torch.float32
        place = model.folder or model.name
        self.tokenizer = AutoTokenizer.from_pretrained(place, revision=model.revision, padding_side="left")
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        loaded = AutoModelForCausalLM.from_pretrained(place, revision=model.revision, dtype=dtype)
        if model.adapter:
            from peft import PeftModel

            # Merged: the products of the low-rank matrices are then made once, not at every token.
            loaded = PeftModel.from_pretrained(loaded, model.adapter).merge_and_unload()
        self.model = loaded.to(self.device).eval()
        self.context = int(self.model.config.max_position_embeddings)

    def __call__(self, requests: Sequence[Request]) -> list[Completion]:
        """Batches of similar length, answers in the order of the requests."""
        prompts = [self._encode(request) for request in requests]
        replies: dict[int, Completion] = {}
        fitting: dict[Any, list[int]] = {}
        for at, (request, prompt) in enumerate(zip(requests, prompts, strict=True)):
            room = self.context - len(prompt)
            if room < request.sampling.max_tokens:
                error = f"{len(prompt)} prompt tokens and max_tokens exceed the context of {self.context}"
                replies[at] = Completion("", "failed", error, len(prompt))
            else:
                fitting.setdefault(_alike(request), []).append(at)
        for group in fitting.values():
            group.sort(key=lambda at: (len(prompts[at]), at))
            for start in range(0, len(group), self.size):
                batch = group[start : start + self.size]
                answers = self._answer([requests[at] for at in batch], [prompts[at] for at in batch])
                replies.update(zip(batch, answers, strict=True))
        return [replies[at] for at in range(len(requests))]

    def _encode(self, request: Request) -> list[int]:
        if self.chat:
            messages = [{"role": one.role, "content": one.content} for one in request.messages]
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return list(self.tokenizer(plain(request.messages))["input_ids"])

    def _answer(self, requests: Sequence[Request], prompts: Sequence[list[int]]) -> list[Completion]:
        torch, tokenizer, sampling = self.torch, self.tokenizer, requests[0].sampling
        padded = tokenizer.pad({"input_ids": list(prompts)}, return_tensors="pt").to(self.device)
        width = padded["input_ids"].shape[1]
        stop = _Stop(tokenizer, width, sampling.stop, len(requests))
        choices: dict[str, Any] = {"do_sample": False}
        if sampling.temperature > 0:
            choices["logits_processor"] = [_Draw(requests, width)]
        with torch.inference_mode():
            output = self.model.generate(
                **padded,
                **choices,
                max_new_tokens=sampling.max_tokens,
                stopping_criteria=[stop],
                pad_token_id=tokenizer.pad_token_id,
                temperature=None,
                top_p=None,
                top_k=None,
            )
        return [
            self._reply(row[width:].tolist(), prompt, request)
            for row, prompt, request in zip(output, prompts, requests, strict=True)
        ]

    def _reply(self, tokens: list[int], prompt: list[int], request: Request) -> Completion:
        ends = self.model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        length = next((at for at, token in enumerate(tokens) if token in ends), None)
        text = self.tokenizer.decode(tokens[:length], skip_special_tokens=True)
        text, stopped = cut(text, request.sampling.stop)
        finish: Finish = "stop" if stopped or length is not None else "length"
        used = len(tokens) if length is None else length + 1
        if stopped:
            used = min(used, _tokens_until(self.tokenizer, tokens, request.sampling.stop))
        return Completion(text.strip(), finish, None, len(prompt), used)


def _alike(request: Request) -> tuple[Any, ...]:
    sampling = request.sampling
    return (sampling.temperature, sampling.top_p, sampling.top_k, sampling.max_tokens, sampling.stop)


def _tokens_until(tokenizer: Any, tokens: list[int], stop: Sequence[str]) -> int:
    """How many tokens it took to write a stop string."""
    low, high = 1, len(tokens)
    while low < high:
        middle = (low + high) // 2
        found = cut(tokenizer.decode(tokens[:middle], skip_special_tokens=True), stop)[1]
        low, high = (low, middle) if found else (middle + 1, high)
    return low


class _Stop:
    """Ends each row at its first stop string; checked on the last tokens only, so that time does not grow."""

    WINDOW = 12

    def __init__(self, tokenizer: Any, width: int, stop: Sequence[str], rows: int) -> None:
        self.tokenizer, self.width, self.stop, self.done = tokenizer, width, stop, [False] * rows

    def __call__(self, tokens: Any, scores: Any, **_: Any) -> Any:  # noqa: ARG002
        import torch

        if self.stop:
            recent = tokens[:, max(self.width, tokens.shape[1] - self.WINDOW) :]
            for row, text in enumerate(self.tokenizer.batch_decode(recent, skip_special_tokens=True)):
                self.done[row] = self.done[row] or cut(text, self.stop)[1]
        return torch.tensor(self.done, device=tokens.device)


class _Draw:
    """Draws each row's next token by inverse CDF with a number that belongs to its request and place, and leaves
    the greedy search that follows no other choice."""

    def __init__(self, requests: Sequence[Request], width: int) -> None:
        self.width, self.sampling = width, requests[0].sampling
        seeds = [hashlib.sha256(f"draw {key(request)}".encode()).digest() for request in requests]
        streams = [random.Random(int.from_bytes(seed)) for seed in seeds]
        self.numbers = [[stream.random() for _ in range(self.sampling.max_tokens)] for stream in streams]

    def __call__(self, tokens: Any, scores: Any) -> Any:
        import torch

        step = tokens.shape[1] - self.width
        scores = scores.float() / self.sampling.temperature
        # The likeliest tokens first: what top_k and top_p keep, and an order that rounding hardly changes.
        count = min(self.sampling.top_k or scores.shape[-1], scores.shape[-1])
        values, places = torch.topk(scores, count)
        chances = values.softmax(-1).double()
        sums = chances.cumsum(-1)
        if self.sampling.top_p < 1:
            keep = (sums - chances) < self.sampling.top_p
            chances = chances * keep
            sums = chances.cumsum(-1)
        drawn = torch.tensor([[row[step]] for row in self.numbers], device=scores.device, dtype=torch.float64)
        rank = torch.searchsorted(sums, drawn * sums[:, -1:]).clamp(max=count - 1)
        token = places.gather(-1, rank)
        return torch.full_like(scores, -torch.inf).scatter_(-1, token, 0.0)
