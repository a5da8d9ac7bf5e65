from collections.abc import Sequence
from typing import Any

import pytest

from lema.errors import RunError
from lema.models.types import Model
from lema.recipe.basic_types import Prompt
from lema.recipe.training_schema import ProbeSpec
from lema.rows import Answer, Probe
from lema.stages.probe import probe
from tests.stages.rows import BASE, question

ASK = Prompt(user="Q: {{ question }}")
COT = Prompt(user="{{ question }}", assistant="{{ steps | join(' ') }} The answer is {{ answer }}.")
QUESTIONS = [*(question(number, "test") for number in range(1, 7)), question(7), question(8, "test", rationale=None)]
ARMS = {"cot": {0: Model("cot", "transformers", "a"), 5: Model("cot", "transformers", "b")}}


def answered(number: int, outcome: Any, arm: str = "base", text: str = "Wrong.") -> Answer:
    return Answer(f"q{number}/{arm}", f"q{number}", arm, None, "single", 0, text, "stop", None, outcome, "0", "", 1, 1)


WRONG = [answered(number, "incorrect", text=f"Wrong {number}.") for number in (1, 2, 3, 7, 8)]
ANSWERS = [*WRONG, answered(4, "correct"), answered(5, "truncated"), answered(6, "incorrect", text=" ")]


def run(count: int = 9, long: str = "none") -> tuple[list[Probe], list[Any]]:
    """The rows, and what every model was asked; `long` fits no model."""
    asked = []

    def losses(model: Model, texts: Sequence[Any]) -> list[Any]:
        asked.append((model.identity, [(messages[0].content, text) for messages, text in texts]))
        return [None if text == long else (len(text) / 10, len(text)) for _, text in texts]

    spec = ProbeSpec(questions=count)
    rows = probe(QUESTIONS, BASE, ARMS, ANSWERS, spec=spec, prompt=ASK, cot=COT, losses=losses)
    return list(rows), asked


def test_every_model_is_asked_for_the_same_pairs() -> None:
    rows, asked = run()
    assert [identity for identity, _ in asked] == [BASE.identity, "a", "b"]
    assert asked[0][1] == asked[1][1] == asked[2][1]
    assert set(asked[0][1]) == {
        pair
        for number in (1, 2, 3)
        for pair in (
            (f"Q: Question {number}?", f"Wrong {number}."),
            (f"Q: Question {number}?", f"{number} + 0 = {number}. The answer is {number}."),
        )
    }
    assert {row.id for row in rows} == {f"q{n}/{name}" for n in (1, 2, 3) for name in ("base", "cot/0", "cot/5")}
    right, wrong = len("1 + 0 = 1. The answer is 1."), len("Wrong 1.")
    assert {(row.right, row.wrong, row.right_tokens, row.wrong_tokens) for row in rows} == {
        (right / 10, wrong / 10, right, wrong)
    }


def test_the_right_path_is_written_as_cot_rows_are() -> None:
    asked = []

    def losses(_: Model, texts: Sequence[Any]) -> list[Any]:
        asked.extend(text for _, text in texts)
        return [(1.0, 1)] * len(texts)

    one = question(1, "test", rationale="1 + 0 = 1.\nSo the answer is 1.")
    list(probe([one], BASE, {}, WRONG, spec=ProbeSpec(questions=1), prompt=ASK, cot=COT, losses=losses))
    assert asked == ["1 + 0 = 1. The answer is 1.", "Wrong 1."]


def test_without_rationales_there_is_no_right_path() -> None:
    unknown = [question(1, "test", rationale=None)]
    rows = probe(unknown, BASE, {}, WRONG, spec=ProbeSpec(questions=1), prompt=ASK, cot=COT, losses=lambda *_: [])
    with pytest.raises(RunError, match="no test question has a gold rationale"):
        list(rows)


def test_choices_are_nested_and_none_costs_nothing() -> None:
    sizes = [{row.question_id for row in run(count)[0]} for count in (0, 1, 2, 3)]
    assert [len(ids) for ids in sizes] == [0, 1, 2, 3]
    assert sizes[1] < sizes[2] < sizes[3]
    assert run(0)[1] == []


def test_a_pair_that_does_not_fit_is_left_out_for_all() -> None:
    rows, _ = run(long="Wrong 2.")
    assert {row.question_id for row in rows} == {"q1", "q3"}
