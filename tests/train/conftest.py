"""A tiny student, trained once for all tests of this folder, and what it is fine-tuned on."""

from pathlib import Path

import pytest

from lema.recipe.basic_types import Prompt
from lema.recipe.training_schema import AdapterSpec, BaseSpec, PretrainSpec
from lema.rows import Example, Message
from lema.train.base import Base, open_base, write_base

COT = Prompt(
    user="{{ question }}",
    assistant="{% for step in steps %}\n{{ step }}\n{% endfor %}\nThe answer is {{ answer }}.",
)
TINY = PretrainSpec(
    format=COT, options={"seed": 5, "steps": (1,), "largest": 20}, width=32, layers=1, heads=2, vocabulary=350,
    context=256, steps=25, batch=16, lr=1e-2,
)  # fmt: skip
SPEC = AdapterSpec(rank=2, alpha=4, lr=1e-2, epochs=2, batch=2, max_length=80, save_every=1)


def example(number: int, words: int = 1) -> Example:
    text = " ".join(["It is", *["so"] * words, f"{number} + {number} = {2 * number}."])
    asked = (Message("user", f"What is {number} + {number}?"),)
    return Example(f"arm/{number:06d}", "arm", "cot", f"q{number}", f"q{number}", asked, text)


EXAMPLES = [example(number, words=number % 4) for number in range(10)]


@pytest.fixture(scope="session", autouse=True)
def _small_tokenizer_sample():
    """Most of the time that a tiny student takes goes into the texts that its tokenizer is learnt from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lema.train.pretrain.TOKENIZER_TEXTS", 300)
        yield


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    write_base(BaseSpec(pretrain=TINY, chat=False), folder, tmp_path_factory.mktemp("home"))
    return folder


@pytest.fixture(scope="session")
def base(base_folder, tmp_path_factory) -> Base:
    return open_base(base_folder, tmp_path_factory.mktemp("home"))
