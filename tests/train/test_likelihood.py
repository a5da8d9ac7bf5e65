import math

import pytest

from lema.models.local_weights import load_network
from lema.models.tokenize import load_tokenizer
from lema.models.types import Model
from lema.recipe.params import Run
from lema.rows import Message
from lema.train.likelihood import completion_losses

torch = pytest.importorskip("torch")
PROMPT = (Message("user", "Tom has 3 apples. He eats 2. How many are left?"),)
TEXTS = ["3 - 2 = 1 apples are left. The answer is 1.", "No.", "1", "3 + 2 = 5 apples are left.\nThe answer is 5."]


@pytest.fixture
def model(base):
    return Model("base", "transformers", base.identity, chat=False, folder=base.location)


def test_the_loss_is_that_of_the_model_itself_whatever_stands_beside_it(model, base):
    pairs = [(PROMPT, text) for text in TEXTS * 6]
    found = completion_losses(model, Run(), pairs)
    for first, last in zip(found, found[-len(TEXTS) :], strict=False):
        assert first == pytest.approx(last, abs=2e-5)
    tokenizer, network = load_tokenizer(base.location), load_network(base.location).eval()
    prompt = tokenizer(PROMPT[0].content + "\n")["input_ids"]
    for text, (loss, count) in zip(TEXTS, found, strict=False):
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            scores = network(torch.tensor([prompt + tokens])).logits[0].log_softmax(-1)
        expected = [-scores[len(prompt) + at - 1, token].item() for at, token in enumerate(tokens)]
        assert count == len(tokens)
        assert loss == pytest.approx(sum(expected) / len(tokens), abs=1e-4)
    assert all(0 < loss < 2 * math.log(350) for loss, _ in found)


def test_what_is_empty_or_too_long_has_no_loss(model):
    found = completion_losses(model, Run(), [(PROMPT, ""), (PROMPT, "1"), (PROMPT, "1 + 1 = 2. " * 200)])
    assert [figures is None for figures in found] == [True, False, True]
    assert completion_losses(model, Run(), []) == []
