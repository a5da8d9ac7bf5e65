"""The converted SmolLM2; skipped until `make setup` has fetched it."""

from pathlib import Path

import pytest

from lema.train import embedded

FOLDER = Path(__file__).parents[2] / ".lema" / "models" / embedded.EMBEDDED_MODEL
pytestmark = pytest.mark.skipif(
    not (FOLDER / "source.json").exists(), reason="the embedded model is not there: make setup"
)


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(FOLDER)


def test_it_is_found_at_once():
    assert embedded.ensure_embedded(FOLDER.parents[1]) == FOLDER


def test_chat_template(tokenizer):
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    # Without a system message the model's own is put in front.
    alone = tokenizer.apply_chat_template(asked[1:], tokenize=False)
    assert alone.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")


def test_special_tokens(tokenizer):
    special = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2, "<repo_name>": 3}
    assert {token: tokenizer.convert_tokens_to_ids(token) for token in special} == special
    ids = tokenizer("a" + "b".join(special), add_special_tokens=False)["input_ids"]
    assert [token for token in ids if token < 4] == [0, 1, 2, 3]
    assert tokenizer.eos_token == "<|im_end|>"  # the end of a turn ends a reply


def test_digits_newlines_and_spaces(tokenizer):
    assert [tokenizer.decode([token]) for token in tokenizer("1234")["input_ids"]] == ["1", "2", "3", "4"]
    for text in ("a\nb\n\nc", "  two  spaces ", "3 + 41 = 44\nThe answer is 44.", "naïve “quotes” 東京 🍎"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_it_knows_something(tokenizer):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    asked = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
    text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    with torch.inference_mode():
        reply = model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(reply)
