"""The backend without a model."""

from dataclasses import replace
from typing import Any

import pytest

from lema.errors import RunError
from lema.models.scripted import scripted
from lema.models.types import Completion, Model, Request, Sampling
from lema.models.worker import load_backend
from lema.recipe import part_loader
from lema.recipe.params import Run
from lema.rows import Message

MODEL = Model("actor", "scripted", "scripted/actor")
REPLIES = ["The answer is 1.", "The answer is 2.", "The answer is 3."]


def ask(text: str, index: int = 0, sampling: Sampling | None = None, **options: Any) -> Completion:
    request = Request(MODEL, (Message("system", "s"), Message("user", text)), sampling or Sampling(), index)
    (completion,) = scripted(MODEL, Run(), **options)([request])
    return completion


def test_replies_are_taken_in_turn_and_are_the_same_every_time() -> None:
    texts = [ask("How many?", index, replies=REPLIES).text for index in range(6)]
    assert sorted(texts[:3]) == REPLIES
    assert texts[3:] == texts[:3]
    assert texts == [ask("How many?", index, replies=REPLIES).text for index in range(6)]
    assert len({ask(f"Question {n}?", replies=REPLIES).text for n in range(20)}) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one apple", Completion("Apples.", "stop", None, 3, 1)),
        ("two apples and a pear", Completion("Apples.", "stop", None, 6, 1)),
        ("a pear", Completion("", "failed", "timed out")),
        ("a bomb", Completion("", "refused", "policy")),
        ("nothing", Completion("", "failed", "no rule of the script applies")),
    ],
)
def test_the_first_rule_that_applies(text: str, expected: Completion) -> None:
    rules = [
        {"when": "apple", "reply": "Apples."},
        {"when": "pear", "fail": "timed out"},
        {"when": "bomb", "refuse": "policy"},
    ]
    assert ask(text, rules=rules) == expected


def test_stop_strings_and_length() -> None:
    replies = ["Step 1: two and two.\nThe answer is 4.\nQuestion: next"]
    reply = ask("q", sampling=Sampling(stop=("\nQuestion:",)), replies=replies)
    assert (reply.text, reply.finish) == ("Step 1: two and two.\nThe answer is 4.", "stop")
    reply = ask("q", sampling=Sampling(max_tokens=3), replies=replies)
    assert (reply.text, reply.finish, reply.completion_tokens) == ("Step 1: two", "length", 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs replies, rules or both"),
        ({"rules": [{"when": "a"}]}, "rule 1 needs `when`"),
        ({"rules": [{"when": "a", "reply": "b"}, {"reply": "b", "fail": "c"}]}, "rule 2 needs `when`"),
    ],
)
def test_a_script_that_says_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError, match=message):
        ask("q", **options)


def test_it_is_found_by_name_and_its_options_are_checked() -> None:
    assert part_loader.load_part("models", "scripted") is scripted
    assert part_loader.option_problems(scripted, {"replies": REPLIES, "rules": [{"when": "a", "reply": "b"}]}) == []
    assert part_loader.option_problems(scripted, {"replies": "no list"})
    misspelt = replace(MODEL, options={"reply": REPLIES})
    with pytest.raises(
        RunError, match=r"^model 'actor': unknown option 'reply'; did you mean 'replies'. allowed: replies, rules$"
    ):
        load_backend(misspelt, Run())
