from dataclasses import replace
from typing import Any

import pytest

from lema.models.types import Completion, Model, Request
from lema.recipe.training_schema import AnswersSpec
from lema.rows import Answer, Outcome
from lema.stages.answers import answers, majority_answer
from tests.stages.rows import BASE, Script, question, task

ARMS = {"cot": {0: Model("cot", "transformers", "a")}, "lema": {0: Model("lema", "transformers", "b")}}
QUESTIONS = [question(1), question(2, "test"), question(3, "test"), question(4, "dev")]
TASKS = {"test": task()}
SPEC = AnswersSpec.model_validate({"prompt": {"user": "{{ question }}"}, "max_tokens": 20})


def run(
    generate: Script, arms: Any = ARMS, questions: Any = QUESTIONS, spec: AnswersSpec = SPEC, tasks: Any = TASKS
) -> list[Answer]:
    return list(answers(questions, BASE, arms, spec=spec, tasks=tasks, generate=generate, pmap=map))


def test_every_model_answers_the_same_test_questions() -> None:
    def reply(request: Request) -> Completion:
        right = request.model.label == "lema" or "2" in request.messages[-1].content
        return Completion(f"The answer is {request.messages[-1].content[9] if right else 0}.", "stop")

    generate = Script(reply)
    made = run(generate)
    assert [(row.id, row.arm, row.outcome, row.answer) for row in made] == [
        ("q2/base", "base", "correct", "2"),
        ("q3/base", "base", "incorrect", "0"),
        ("q2/cot", "cot", "correct", "2"),
        ("q3/cot", "cot", "incorrect", "0"),
        ("q2/lema", "lema", "correct", "2"),
        ("q3/lema", "lema", "correct", "3"),
    ]
    assert [row.completion for row in made] == [request.key for request in generate.asked]
    asked = {(request.messages, request.sampling) for request in generate.asked}
    assert len(asked) == 2
    assert {sampling.temperature for _, sampling in asked} == {0.0}


def test_a_request_that_failed_is_a_row_that_is_not_right() -> None:
    made = run(Script(Completion("", "failed", "down")), {})
    assert [(row.outcome, row.error, row.answer) for row in made] == [("failed", "down", None)] * 2


def test_every_training_answers_and_is_told_apart_by_its_seed() -> None:
    arms = {"cot": {3: Model("cot", "transformers", "a"), 11: Model("cot", "transformers", "b")}}
    made = run(Script("The answer is 2."), arms)
    assert [(row.id, row.seed, row.outcome) for row in made] == [
        ("q2/base", None, "correct"),
        ("q3/base", None, "incorrect"),
        ("q2/cot/3", 3, "correct"),
        ("q3/cot/3", 3, "incorrect"),
        ("q2/cot/11", 11, "correct"),
        ("q3/cot/11", 11, "incorrect"),
    ]


def test_dev_questions_are_asked_when_the_recipe_says_so_and_transfer_questions_always() -> None:
    far = question(5, "far")
    by_split = {**TASKS, "dev": task(), "far": replace(task(), equal=lambda *_: True)}

    def asked(spec: AnswersSpec) -> list[tuple[str, str]]:
        made = run(Script("The answer is 9."), {}, [*QUESTIONS, far], spec, by_split)
        return [(row.question_id, row.outcome) for row in made]

    assert asked(SPEC) == [("q2", "incorrect"), ("q3", "incorrect"), ("q5", "correct")]
    assert ("q4", "incorrect") in asked(SPEC.model_copy(update={"dev": True}))


def test_votes_are_drawn_beside_the_single_answer() -> None:
    spec = AnswersSpec.model_validate({**SPEC.model_dump(), "votes": {"paths": 3, "temperature": 0.5, "top_k": 7}})

    def reply(request: Request) -> Completion:
        said = "3" if request.sampling.temperature == 0 else "252"[request.index]
        return Completion(f"The answer is {said}.", "stop", None, 5, 7)

    generate = Script(reply)
    rows = run(generate, {}, QUESTIONS[:2], spec)
    assert [(row.id, row.kind, row.index, row.answer, row.outcome, row.completion_tokens) for row in rows] == [
        ("q2/base", "single", 0, "3", "incorrect", 7),
        ("q2/base/v0", "vote", 0, "2", "correct", 7),
        ("q2/base/v1", "vote", 1, "5", "incorrect", 7),
        ("q2/base/v2", "vote", 2, "2", "correct", 7),
        ("q2/base/majority", "majority", 0, "2", "correct", 21),
    ]
    drawn = {(one.sampling.temperature, one.sampling.top_k, one.sampling.max_tokens) for one in generate.asked[1:]}
    assert drawn == {(0.5, 7, 20)}
    # The single answer is asked for with the same request as without votes, so votes buy only themselves.
    alone = Script(reply)
    run(alone, {}, QUESTIONS[:2])
    assert [one.key for one in alone.asked] == [generate.asked[0].key]


@pytest.mark.parametrize(
    ("given", "wins"),
    [
        ("1 2 2", "2"),  # the commonest
        ("3 1 1 3", "3"),  # of two that are equally common, the first
        ("1 2.0 2 3", "2.0"),  # equal for the task
        ("7 7.0 8", "7"),  # right answers are one answer
        ("! 4 ! !", "4"),  # no answer is no vote
        ("~5 ~5 4", "4"),  # nor is a text that was cut short
        ("! !", None),
    ],
)
def test_the_majority(given: str, wins: str | None) -> None:
    numbers = replace(task(), equal=lambda one, other: float(one) == float(other))

    def vote(index: int, word: str) -> Answer:
        outcome: Outcome = "unparsed" if word == "!" else "truncated" if word[0] == "~" else "incorrect"
        outcome = "correct" if word in ("7", "7.0") else outcome
        answer = None if word == "!" else word.lstrip("~")
        return Answer(f"q/a/v{index}", "q", "a", 0, "vote", index, word, "stop", None, outcome, answer, "k", 1, 2)

    votes = [vote(index, word) for index, word in enumerate(given.split())]
    row = majority_answer(votes, numbers)
    assert (row.id, row.kind, row.answer) == ("q/a/majority", "majority", wins)
    assert row.outcome == ("unparsed" if wins is None else "correct" if wins == "7" else "incorrect")
    assert row.completion_tokens == 2 * len(votes)
