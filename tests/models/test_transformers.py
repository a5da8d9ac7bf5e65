"""The local backend on a tiny Llama with random weights: what it writes, and that neighbours do not matter."""

import collections
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lema.errors import RunError
from lema.models import local_weights
from lema.models.local_weights import load_network
from lema.models.tokenize import prompt_token_ids
from lema.models.transformers import sample_tokens, transformers
from lema.models.types import Completion, Model, Request, Sampling
from lema.recipe.params import Run
from lema.rows import Message

torch = pytest.importorskip("torch")

CONTEXT = 256


@pytest.fixture
def model(folder: Path) -> Model:
    return Model("base", "transformers", "tiny", folder=str(folder))


def asked(model: Model, sampling: Sampling, count: int = 7) -> list[Request]:
    """Requests of several lengths, with a common few-shot beginning."""
    shots = (Message("system", "Be short and be right."), Message("user", "1 + 1?"), Message("assistant", "It is 2."))
    return [
        Request(model, (*shots, Message("user", f"{number} + {'9' * 9 * number}?")), sampling, number % 2)
        for number in range(1, count + 1)
    ]


def greedy_text(network: Any, tokenizer: Any, request: Request) -> tuple[str, int]:
    """What `generate` of transformers writes, and the number of tokens that it has read."""
    ids = torch.tensor([prompt_token_ids(tokenizer, request.messages, request.model.chat)])
    whole = network.generate(input_ids=ids, max_new_tokens=request.sampling.max_tokens, do_sample=False)
    return tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True).strip(), ids.shape[1]


@pytest.mark.parametrize("chat", [True, False])
def test_greedy_is_what_generate_of_transformers_writes(model: Model, chat: bool) -> None:
    worker = transformers(model, Run(batch=3))
    requests = asked(replace(model, chat=chat), Sampling(max_tokens=12))
    for request, reply in zip(requests, worker(requests), strict=True):
        assert (reply.text, reply.prompt_tokens) == greedy_text(worker.network, worker.tokenizer, request)


@pytest.mark.parametrize("more", [{}, {"temperature": 1.0}, {"temperature": 0.7, "top_k": 20, "top_p": 0.9}])
def test_a_text_depends_on_its_request_alone(model: Model, more: dict[str, Any]) -> None:
    requests = asked(model, Sampling(max_tokens=20, **more), 9)
    worker = transformers(model, Run(batch=32))
    together = worker(requests)
    assert [worker([request])[0] for request in requests] == together
    assert transformers(model, Run(batch=4))(requests[::-1])[::-1] == together


def test_paths_of_a_question_differ(model: Model) -> None:
    one = asked(model, Sampling(temperature=1.0, max_tokens=20), 1)[0]
    paths = transformers(model, Run())([replace(one, index=index) for index in range(4)])
    assert len({path.text for path in paths}) == 4


def test_a_stop_string_ends_a_text_and_is_cut_from_it(model: Model) -> None:
    worker = transformers(model, Run())
    free = worker(asked(model, Sampling(temperature=1.0, max_tokens=40)))
    mark = collections.Counter("".join(reply.text for reply in free)).most_common(1)[0][0]
    stopped = worker(asked(model, Sampling(temperature=1.0, max_tokens=40, stop=(mark,))))
    assert all(mark not in reply.text for reply in stopped)
    ended = [reply for reply in stopped if reply.finish == "stop"]
    assert ended
    assert all(reply.completion_tokens < 40 for reply in ended)


def test_max_tokens_or_the_context_ends_a_text(model: Model) -> None:
    worker = transformers(model, Run())
    replies = worker(asked(model, Sampling(max_tokens=5)))
    assert all((reply.finish == "length") == (reply.completion_tokens == 5) for reply in replies)
    assert {reply.finish for reply in replies} >= {"length"}
    long = Request(model, (Message("user", "7" * 200),), Sampling(max_tokens=500, temperature=1.0))
    (reply,) = worker([long])
    assert reply.prompt_tokens + reply.completion_tokens <= CONTEXT


def test_a_prompt_that_does_not_fit_or_is_refused_fails_alone_with_a_reason(model: Model) -> None:
    short, long = (Request(model, (Message("user", text),), Sampling(max_tokens=8)) for text in ("1 + 1?", "1" * 300))
    worker = transformers(model, Run())
    first, failed, last = worker([short, long, short])
    assert (failed.text, failed.finish, "256" in str(failed.error)) == ("", "failed", True)
    assert first == last == worker([short])[0] != failed
    worker.tokenizer.chat_template = None
    (reply,) = worker([short])
    assert reply == Completion("", "failed", reply.error)
    assert "chat template" in str(reply.error)


def adapter(model: Model, folder: Path, seed: int) -> tuple[Model, Any]:
    """The model with an adapter of random weights, and the network that peft makes of it."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(r=2 + seed, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    tuned = get_peft_model(load_network(str(model.folder)), config)
    tuned.save_pretrained(folder / str(seed))
    return replace(model, label=f"arm-{seed}", adapter=str(folder / str(seed))), tuned.eval()


def test_adapters_take_turns_on_one_base_as_if_peft_had_loaded_each_alone(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one, tuned), (two, _) = (adapter(model, tmp_path, seed) for seed in (1, 2))
    models = [model, one, two]
    requests = asked(model, Sampling(max_tokens=12), 3)

    def weights(worker: Any) -> dict[str, bytes]:
        return {name: one.numpy().tobytes() for name, one in worker.network.state_dict().items()}

    alone = []
    for each in models:
        worker = transformers(each, Run())
        alone.append((worker(requests), weights(worker)))
        del worker
    loads: list[str] = []
    monkeypatch.setattr(local_weights, "load_network", lambda *given: loads.append(given[0]) or load_network(*given))
    workers = [transformers(each, Run()) for each in models]
    for at in (0, 1, 2, 1, 0, 2):
        assert (workers[at](requests), weights(workers[at])) == alone[at]
    # Again for the second adapter, and never after.
    assert loads == [model.folder] * 2
    assert len({replies[0].text for replies, _ in alone}) == 3
    assert alone[1][0][0].text == greedy_text(tuned, workers[1].tokenizer, requests[0])[0]


def test_a_base_leaves_the_memory_with_its_last_worker(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = transformers(model, Run())
    assert local_weights.shared_network(model) is worker.base
    del worker
    monkeypatch.setattr(local_weights, "load_network", lambda *given: pytest.fail("loaded anew"))
    with pytest.raises(pytest.fail.Exception, match="loaded anew"):
        transformers(model, Run())


def test_a_folder_without_a_model_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "smollm").mkdir()
    with pytest.raises(RunError, match="model smollm cannot be loaded: ") as caught:
        transformers(Model("base", "transformers", "none", folder=str(tmp_path / "smollm")), Run())
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    ("sampling", "shares"),
    [
        (Sampling(temperature=1.0), (0.1, 0.4, 0.3, 0.2)),
        (Sampling(temperature=1.0, top_k=2), (0, 4 / 7, 3 / 7, 0)),
        (Sampling(temperature=1.0, top_p=0.5), (0, 4 / 7, 3 / 7, 0)),
        (Sampling(temperature=1.0, top_p=0.3), (0, 1, 0, 0)),
        (Sampling(temperature=1.0, top_k=3, top_p=0.8), (0, 4 / 9, 3 / 9, 2 / 9)),
        (Sampling(temperature=0.5), (1 / 30, 16 / 30, 9 / 30, 4 / 30)),
        (Sampling(temperature=0.0), (0, 1, 0, 0)),
    ],
)
def test_tokens_are_drawn_as_often_as_they_should(sampling: Sampling, shares: tuple[float, ...]) -> None:
    draws = 1000
    scores = torch.tensor([0.1, 0.4, 0.3, 0.2]).log().repeat(draws, 1)
    picked = sample_tokens(scores, [(draw + 0.5) / draws for draw in range(draws)], sampling)
    counts = torch.bincount(picked, minlength=4) / draws
    assert counts.tolist() == pytest.approx(shares, abs=2 / draws)
