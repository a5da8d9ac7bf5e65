"""The backend vllm: what it asks of the engine, with a stand-in, and with vLLM itself where that is installed."""

import importlib.machinery
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from lema.errors import RunError
from lema.models.local_weights import load_network
from lema.models.tokenize import load_tokenizer, prompt_token_ids
from lema.models.transformers import transformers
from lema.models.types import Completion, Model, Request, Sampling
from lema.models.vllm import vllm
from lema.recipe.params import Run, Vllm
from lema.recipe.part_loader import option_problems
from lema.rows import Message

pytest.importorskip("torch", reason="needs the extra `train`")
CONTEXT = 256
RUN = Run(executor="local", vllm=Vllm(gpu_memory_utilization=0.5, enforce_eager=True))


@pytest.fixture
def model(folder: Path) -> Model:
    return Model("open", "vllm", "tiny", folder=str(folder))


def asked(model: Model, text: str = "1 + 1?", index: int = 0, **sampling: Any) -> Request:
    return Request(model, (Message("user", text),), Sampling(**sampling), index)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Instead of vLLM, an engine that writes "abc." and keeps what it was given: engines as they are made."""
    made: list[Any] = []

    class LLM:
        def __init__(self, **arguments: Any) -> None:
            if arguments.get("dtype") == "float1":
                raise ValueError(f"{arguments['model']} has no float1\nand more")
            self.arguments, self.asked = arguments, []
            self.said = load_tokenizer(arguments["model"])(" abc.")["input_ids"]
            self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=CONTEXT))
            # Not the engine itself: it would never leave the memory.
            made.append(SimpleNamespace(arguments=arguments, asked=self.asked))

        def generate(self, prompts: Any, sampling: Any, *, use_tqdm: bool, lora_request: Any) -> list[Any]:
            assert not use_tqdm
            if refusal[0]:
                raise refusal[0]
            self.asked += [
                (prompt["prompt_token_ids"], one, lora_request) for prompt, one in zip(prompts, sampling, strict=True)
            ]
            said = SimpleNamespace(token_ids=tuple(self.said), finish_reason=reason[0])
            return [SimpleNamespace(outputs=[said]) for _ in prompts]

    reason, refusal = ["stop"], [None]
    module, lora = ModuleType("vllm"), ModuleType("vllm.lora.request")
    vars(module).update(LLM=LLM, SamplingParams=dict, reason=reason, refusal=refusal)
    module.__spec__ = importlib.machinery.ModuleSpec("vllm", None)
    vars(lora).update(LoRARequest=lambda name, number, path: (name, number, path))
    for name, one in (("vllm", module), ("vllm.lora", ModuleType("vllm.lora")), ("vllm.lora.request", lora)):
        monkeypatch.setitem(sys.modules, name, one)
    return made


def test_the_engine_gets_what_decides_replies_from_the_recipe_and_the_rest_from_params(
    model: Model, stand_in: list[Any]
) -> None:
    worker = vllm(replace(model, revision="main"), RUN, dtype="bfloat16")
    assert not stand_in  # before there is a request, nothing is loaded
    worker([asked(model)])
    seed = stand_in[0].arguments.pop("seed")
    assert 0 <= seed < 1 << 31
    assert stand_in[0].arguments == {
        "model": model.folder, "revision": "main", "dtype": "bfloat16", "disable_log_stats": True,
        "max_model_len": None, "quantization": None,
        "gpu_memory_utilization": 0.5, "enforce_eager": True,
    }  # fmt: skip


@pytest.mark.parametrize("chat", [True, False])
def test_prompts_are_the_tokens_that_transformers_gets(model: Model, stand_in: list[Any], chat: bool) -> None:
    request = asked(replace(model, chat=chat))
    (reply,) = vllm(request.model, RUN)([request])
    ids = prompt_token_ids(load_tokenizer(str(model.folder)), request.messages, chat)
    assert stand_in[0].asked[0][0] == ids
    assert reply == Completion("abc.", "stop", None, len(ids), 5)


def test_sampling_parameters(model: Model, stand_in: list[Any]) -> None:
    greedy = asked(model, max_tokens=9)
    drawn = [asked(model, "2?", index, temperature=0.7, top_p=0.9, top_k=20, stop=("\n\n",)) for index in (0, 1)]
    vllm(model, RUN)([greedy, *drawn])
    first, *paths = [sampling for _, sampling, _ in stand_in[0].asked]
    assert first == {"temperature": 0.0, "top_p": 1.0, "max_tokens": 9}
    seeds = [one.pop("seed") for one in paths]
    room = CONTEXT - len(stand_in[0].asked[1][0])
    assert paths == [{"temperature": 0.7, "top_p": 0.9, "top_k": 20, "stop": ["\n\n"], "max_tokens": room}] * 2
    assert len(set(seeds)) == 2
    vllm(model, RUN)(drawn[::-1])
    assert [sampling["seed"] for _, sampling, _ in stand_in[-1].asked] == seeds[::-1]
    vllm(model, RUN, omit=["seed", "top_k"])(drawn[:1])
    assert stand_in[-1].asked[0][1].keys() == {"temperature", "top_p", "stop", "max_tokens"}


def test_without_seeds_an_engine_that_goes_on_later_draws_other_numbers(model: Model, stand_in: list[Any]) -> None:
    for index in (0, 1, 0):
        vllm(model, RUN, omit=["seed"])([asked(model, "2?", index, temperature=0.7)])
    first, later, again = (one.arguments["seed"] for one in stand_in)
    assert first == again != later


def test_what_the_engine_does_not_cut_is_cut(model: Model, stand_in: list[Any]) -> None:
    worker = vllm(model, RUN, omit=["stop"])
    sys.modules["vllm"].reason[0] = "length"
    assert worker([asked(model, stop=("c",))])[0].text == "ab"
    assert [worker([asked(model, stop=stop)])[0].finish for stop in ((), ("c",))] == ["length", "stop"]
    sys.modules["vllm"].reason[0] = "abort"
    (reply,) = worker([asked(model)])
    assert (reply.text, reply.finish, reply.error) == ("", "failed", "vLLM ended the reply: abort")


def test_a_prompt_that_does_not_fit_fails_alone_with_a_reason(model: Model, stand_in: list[Any]) -> None:
    worker = vllm(model, RUN)
    first, failed, last = worker([asked(model), asked(model, "1" * CONTEXT), asked(model)])
    assert first == last
    assert (failed.text, failed.finish) == ("", "failed")
    assert f"no room in the model's context of {CONTEXT}" in str(failed.error)
    assert len(stand_in[0].asked) == 2
    assert [one.finish for one in worker([asked(model, "1" * CONTEXT)])] == ["failed"]


def test_a_parameter_that_the_engine_refuses_stops(model: Model, stand_in: list[Any]) -> None:
    """Every prompt fits, so all requests would fail alike."""
    worker = vllm(model, RUN)
    for parameter, named in (("temperature", "temperature"), ("PROMPT TEXT", "ValueError")):
        refused = sys.modules["vllm"].refusal[0] = ValueError("no PROMPT TEXT, please")
        vars(refused)["parameter"] = parameter
        with pytest.raises(RunError, match=rf"^vLLM refuses the requests \({named}\); the option omit leaves"):
            worker([asked(model)])


def adapter(folder: Path, rank: int, **more: Any) -> str:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank, **more}))
    return str(folder)


def test_adapters_share_an_engine_with_room_for_their_rank(model: Model, stand_in: list[Any], tmp_path: Path) -> None:
    one, two = (replace(model, adapter=adapter(tmp_path / name, 12)) for name in ("one", "two"))
    workers = [vllm(one, RUN), vllm(two, RUN), vllm(one, RUN)]
    for worker in workers:
        worker([asked(model)])
    (engine,) = stand_in
    assert (engine.arguments["enable_lora"], engine.arguments["max_lora_rank"]) == (True, 16)
    assert [lora[1:] for _, _, lora in engine.asked] == [(1, one.adapter), (2, two.adapter), (1, one.adapter)]
    large = replace(model, adapter=adapter(tmp_path / "large", 8, rank_pattern={"q_proj": 513}))
    with pytest.raises(RunError, match="up to rank 512; this one has rank 513"):
        vllm(large, RUN)


def test_an_engine_leaves_the_memory_with_its_last_worker(model: Model, stand_in: list[Any]) -> None:
    worker = vllm(model, RUN)
    worker([asked(model)])
    vllm(model, RUN)([asked(model)])
    assert len(stand_in) == 1
    del worker
    vllm(model, RUN)([asked(model)])
    assert len(stand_in) == 2


def test_an_engine_that_cannot_load_or_go_on_is_one_line_without_a_folder(model: Model, stand_in: list[Any]) -> None:
    with pytest.raises(RunError, match=r"^model \w+ cannot be loaded: \w+ has no float1$") as caught:
        vllm(model, RUN, dtype="float1")([asked(model)])
    assert str(Path(str(model.folder)).parent) not in str(caught.value)
    sys.modules["vllm"].refusal[0] = RuntimeError("CPU Generator does not use offset\nand more")
    with pytest.raises(
        RunError, match=r"^vLLM stopped: CPU Generator does not use offset; the option `omit: \[seed\]`"
    ):
        vllm(model, RUN)([asked(model)])


def test_without_vllm_the_error_says_how_to_install_it(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    class Nowhere:
        def find_spec(self, name: str, *_: Any) -> None:
            if name == "vllm":
                raise ModuleNotFoundError("No module named 'vllm'", name="vllm")

    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Nowhere(), *sys.meta_path])
    with pytest.raises(RunError, match=r"pip install -e '\.\[vllm\]'"):
        vllm(model, RUN)


def test_options_are_checked() -> None:
    assert option_problems(vllm, {"omit": ["seed"], "dtype": "float32", "max_model_len": 4096}) == []
    ((name, problem),) = option_problems(vllm, {"trust_remote_code": True})
    assert (name, problem.partition(";")[0]) == ("trust_remote_code", "unknown option 'trust_remote_code'")
    wanted = "a list, each 'seed' or 'stop' or 'top_k' or 'top_p' or null, got ['temperature']"
    assert option_problems(vllm, {"omit": ["temperature"]}) == [("omit", f"option 'omit' needs {wanted}")]


# With vLLM itself: run in an environment of its own, as benchmarks/servers.py makes it.
real = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: pip install -e '.[vllm]'")
ENGINE: Any = {"dtype": "float32", "max_model_len": CONTEXT}


@pytest.fixture
def worker(model: Model) -> Callable[..., Any]:
    return lambda **more: vllm(replace(model, **more), RUN, **ENGINE, omit=["seed"])


@real
def test_real_greedy_texts_are_those_of_transformers(model: Model, worker: Callable[..., Any]) -> None:
    requests = [asked(model, f"{number} + {'9' * number}?", max_tokens=12) for number in range(1, 8)]
    theirs = transformers(replace(model, backend="transformers"), Run())(requests)
    assert worker()([*requests, asked(model, "1" * CONTEXT)])[:-1] == theirs


@real
def test_real_paths_differ_and_end_at_stop_strings(model: Model, worker: Callable[..., Any]) -> None:
    ask = worker()
    free = ask([asked(model, "2?", index, temperature=1.0, max_tokens=30) for index in range(6)])
    assert len({reply.text for reply in free}) == 6
    mark = max(free, key=lambda reply: len(reply.text)).text[5]
    stopped = ask([asked(model, "2?", index, temperature=1.0, max_tokens=30, stop=(mark,)) for index in range(6)])
    assert all(mark not in reply.text for reply in stopped)
    assert "stop" in {reply.finish for reply in stopped}


@real
def test_real_adapters(model: Model, worker: Callable[..., Any], tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    requests = [asked(model, f"{number}?", max_tokens=12) for number in range(4)]
    arms = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
        get_peft_model(load_network(str(model.folder)), config).save_pretrained(tmp_path / str(seed))
        arms.append(replace(model, adapter=str(tmp_path / str(seed))))
    workers = [worker(adapter=arm.adapter) for arm in arms]
    texts = [[reply.text for reply in ask(requests)] for ask in (*workers, workers[0], worker())]
    assert texts[0] == texts[2]
    assert len({tuple(one) for one in texts}) == 3
