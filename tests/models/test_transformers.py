"""The local backend on a tiny student with weights drawn at random: what it says is noise, how it says it is not."""

from pathlib import Path

import pytest

from lema.models import Model, Request, Sampling
from lema.models.transformers import transformers
from lema.params import Run
from lema.rows import Message

pytestmark = pytest.mark.xdist_group("torch")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    from lema.recipe import BaseSpec, PretrainSpec, Prompt
    from lema.train.base import build

    folder: Path = tmp_path_factory.mktemp("student")
    text = Prompt(user="{{ question }}", assistant="The answer is {{ answer }}.")
    options = {"seed": 2, "steps": (1,), "largest": 20}
    spec = PretrainSpec(format=text, options=options, width=32, layers=1, heads=2, vocabulary=350, steps=8, context=128)
    build(BaseSpec(pretrain=spec, chat=False), folder, folder)
    return Model("base", "transformers", "tiny", chat=False, folder=str(folder))


@pytest.fixture(scope="module")
def worker(model):
    return transformers(model, Run(batch=4))


def requests(model: Model, count: int = 6, **sampling) -> list[Request]:
    settings = Sampling(**{"temperature": 1.0, "max_tokens": 12, **sampling})
    asked = [(Message("user", f"What is {at} and {at} more" + " and more" * at),) for at in range(count)]
    return [Request(model, messages, settings) for messages in asked]


def test_a_reply_depends_on_its_request_alone(model, worker):
    asked = requests(model)
    whole = worker(asked)
    assert whole == worker(asked)
    assert whole == [worker([request])[0] for request in asked]
    assert whole[::-1] == worker(asked[::-1])
    assert len({reply.text for reply in whole}) > 1


def test_seed_and_index_make_other_paths(model, worker):
    one = requests(model, 1)[0]
    others = [Request(model, one.messages, one.sampling, index) for index in range(5)]
    assert len({reply.text for reply in worker(others)}) > 2
    reseeded = worker(requests(model, 1, seed=1))
    assert reseeded[0].text != worker([one])[0].text


def test_greedy_is_top_k_of_one(model, worker):
    greedy = [reply.text for reply in worker(requests(model, temperature=0.0))]
    assert greedy == [reply.text for reply in worker(requests(model, top_k=1))]
    assert greedy == [reply.text for reply in worker(requests(model, top_p=1e-9))]


def test_max_tokens_and_stop(model, worker):
    cut = worker(requests(model, temperature=0.0, max_tokens=3))
    assert {reply.finish for reply in cut} == {"length"}
    assert {reply.completion_tokens for reply in cut} == {3}
    free = worker(requests(model, temperature=1.0, max_tokens=40))
    mark = next(reply.text for reply in free if len(reply.text) > 4)[2:4]
    stopped = worker(requests(model, temperature=1.0, max_tokens=40, stop=(mark,)))
    assert all(mark not in reply.text for reply in stopped)
    assert any(reply.finish == "stop" for reply in stopped)


def test_too_long_for_the_context(model, worker):
    asked = [Request(model, (Message("user", "so " * 200),), Sampling(max_tokens=5)), *requests(model, 1)]
    long, short = worker(asked)
    assert long.finish == "failed"
    assert "exceed the context of 128" in long.error
    assert short.finish in ("stop", "length")
