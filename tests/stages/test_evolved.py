import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lema.errors import RunError
from lema.models.types import Completion, Model, Request
from lema.recipe.schema import EvolvedSpec
from lema.rows import Evolved
from lema.stages.evolved import evolved
from lema.tasks import Task
from lema.tasks.gsm8k import gsm8k
from tests.stages.rows import BASE, Script, accepted, correction, question, sample

QUESTIONS = [question(number) for number in range(1, 6)] + [question(9, "test")]
# Question 1 was corrected three times, 2 once, 3 never rightly; 4 and 5 had no mistakes.
VERDICTS = [
    accepted(correction(sample(f"q{number}", "?", index=index), "?"), number < 3)
    for number, index in ((1, 0), (1, 1), (1, 2), (2, 0), (3, 0))
]
MODELS = {name: Model(name, "b", f"{name}-1") for name in ("writer", "solver")}
WRITE = {"model": "writer", "prompt": {"user": "Like: {{ question }}"}, "temperature": 0.7}
SOLVE = {"model": "solver", "prompt": {"user": "Solve: {{ question }}"}, "temperature": 0.7}


def run(reply: Callable[[Request], Completion], task: Task = gsm8k, **spec: Any) -> list[Evolved]:
    made = EvolvedSpec.model_validate({"questions": 20, "write": WRITE, "solve": SOLVE, **spec})
    return list(evolved(QUESTIONS, BASE, VERDICTS, spec=made, task=task, models=MODELS, generate=Script(reply)))


def said(write: Callable[[Request], str], *answers: str) -> Callable[[Request], Completion]:
    """A writer, and a solver whose tries end in these answers."""

    def reply(request: Request) -> Completion:
        if request.model.label == "writer":
            return Completion(write(request), "stop", None, 5, 3)
        return Completion(f"1 + 1 = 2\nThe answer is {answers[request.index]}.", "stop", None, 7, 2)

    return reply


def fresh(request: Request) -> str:
    return f"New Question: {request.messages[-1].content} again, {request.index}?"


AGREED = said(fresh, "4", "4", "4")


def test_seeds_are_questions_with_accepted_corrections_as_often_as_they_have_some() -> None:
    made = run(AGREED, questions=400)
    drawn = [row.seed_id for row in made]
    assert set(drawn) == {"q1", "q2"}
    assert 0.65 < drawn.count("q1") / len(drawn) < 0.85
    assert sorted(row.index for row in made if row.seed_id == "q2") == list(range(drawn.count("q2")))
    assert {row.id for row in made} == {f"{row.seed_id}/e{row.index}" for row in made}
    # The control draws from all training questions.
    control = run(AGREED, questions=100, seeds="questions")
    assert {row.seed_id for row in control} == {"q1", "q2", "q3", "q4", "q5"}


def test_asking_for_more_keeps_the_first_ones() -> None:
    few, many = (run(AGREED, questions=number) for number in (10, 30))
    assert {(row.id, row.completion) for row in few} < {(row.id, row.completion) for row in many}
    assert {row.id for row in few} != {row.id for row in run(AGREED, questions=10, seed=1)}


@pytest.mark.parametrize(
    ("answers", "gold", "votes", "reason"),
    [
        (("4", "4", "4"), "4", 3, None),
        (("5", "4", "4.0"), "4", 2, None),
        (("4", "5", "6"), None, 1, "no majority: at most 1 of 3 answers agree"),
        (("4", "no", "no"), None, 1, "no majority: at most 1 of 3 answers agree"),
        (("no", "no", "no"), None, 0, "none of 3 answers could be read"),
    ],
)
def test_the_majority_of_three_answers_is_the_gold_one(answers: Any, gold: Any, votes: int, reason: Any) -> None:
    row = run(said(fresh, *answers), questions=1)[0]
    assert (row.votes, row.accepted, row.reason) == (votes, reason is None, reason)
    if gold is None:
        assert row.record is None
    else:
        assert row.record is not None
        reading = gsm8k.read(json.loads(row.record))
        assert (reading.text, reading.gold, reading.rationale) == (row.text, gold, "1 + 1 = 2")


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("How many?", "How many?"),
        ("New Question: How many?", "How many?"),
        ("**Related Problem:** How\nmany?\n\nAnswer: 7", "How many?"),
        ("### Question 2: How many?\nSolution: none.", "How many?"),
    ],
)
def test_the_question_in_a_reply(reply: str, text: str) -> None:
    assert run(said(lambda _: reply, "4", "4", "4"), questions=1)[0].text == text


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        (Completion("", "failed", "timed out"), "the writer failed: timed out"),
        (Completion("How m", "length"), "the question was cut at max_tokens"),
        (Completion(" \n", "stop"), "the writer wrote no question"),
        (Completion("QUESTION 1", "stop"), "the same as q1"),
        (Completion("Question: Question 9?", "stop"), "the same as q9"),
    ],
)
def test_what_is_no_new_question_is_kept_with_a_reason_and_not_answered(completion: Completion, reason: str) -> None:
    def reply(request: Request) -> Completion:
        assert request.model.label == "writer"
        return completion

    row = run(reply, questions=1)[0]
    assert (row.accepted, row.reason, row.record, row.answers, row.completions) == (False, reason, None, (), ())


@pytest.mark.parametrize(("other", "accepted"), [("what is 3+4", 1), ("What is $3 - 4$?", 2), ("What is $3 = 4$?", 2)])
def test_a_question_is_taken_once_and_one_of_another_operation_is_another(other: str, accepted: int) -> None:
    texts = iter(["What is $3 + 4$?", other])
    made = run(said(lambda _: next(texts), "4", "4", "4"), questions=2)
    taken = [row.id for row in made if row.accepted]
    assert len(taken) == accepted
    assert {row.reason for row in made if not row.accepted} <= {f"the same as {taken[0]}"}


def test_where_it_comes_from() -> None:
    asked: list[Request] = []
    row = run(lambda request: (asked.append(request), AGREED(request))[1], questions=1)[0]
    assert (row.model, row.solver) == ("writer-1", "solver-1")
    assert [row.completion, *row.completions] == [request.key for request in asked]
    assert (row.prompt_tokens, row.completion_tokens) == (5 + 3 * 7, 3 + 3 * 2)


def test_a_record_that_the_task_cannot_read_back_is_dropped() -> None:
    def read(_: Any) -> Any:
        raise ValueError("too odd")

    row = run(AGREED, replace(gsm8k, read=read), questions=1)[0]
    assert (row.accepted, row.reason) == (False, "the task cannot read it: too odd")


def test_what_cannot_be_run_and_a_recipe_without_it() -> None:
    with pytest.raises(RunError, match="the task gsm8k cannot write records"):
        run(AGREED, replace(gsm8k, write=None))
    generate = Script("?")
    usual: dict[str, Any] = {"task": gsm8k, "models": MODELS, "generate": generate}
    spec = EvolvedSpec.model_validate({"questions": 1, "write": WRITE, "solve": SOLVE})
    with pytest.raises(RunError, match="no correction was accepted"):
        list(evolved(QUESTIONS, BASE, [], spec=spec, **usual))
    assert list(evolved(QUESTIONS, BASE, VERDICTS, spec=None, **usual)) == generate.asked == []
