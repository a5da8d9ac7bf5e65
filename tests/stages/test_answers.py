from lema.models import Completion, Model, Request, key
from lema.recipe import AnswersSpec
from lema.stages.answers import answers
from tests.stages.rows import BASE, Script, question, task

ARMS = {"cot": Model("cot", "transformers", "a"), "lema": Model("lema", "transformers", "b")}
QUESTIONS = [question(1), question(2, "test"), question(3, "test")]
SPEC = AnswersSpec.model_validate({"prompt": {"user": "{{ question }}"}, "max_tokens": 20})


def test_every_model_answers_the_same_test_questions() -> None:
    def reply(request: Request) -> Completion:
        right = request.model.label == "lema" or "2" in request.messages[-1].content
        return Completion(f"The answer is {request.messages[-1].content[9] if right else 0}.", "stop")

    generate = Script(reply)
    made = list(answers(QUESTIONS, BASE, ARMS, spec=SPEC, task=task(), generate=generate))
    assert [(row.id, row.arm, row.outcome, row.answer) for row in made] == [
        ("q2/base", "base", "correct", "2"),
        ("q3/base", "base", "incorrect", "0"),
        ("q2/cot", "cot", "correct", "2"),
        ("q3/cot", "cot", "incorrect", "0"),
        ("q2/lema", "lema", "correct", "2"),
        ("q3/lema", "lema", "correct", "3"),
    ]
    assert [row.completion for row in made] == [key(request) for request in generate.asked]
    asked = {(request.messages, request.sampling) for request in generate.asked}
    assert len(asked) == 2
    assert {sampling.temperature for _, sampling in asked} == {0.0}


def test_a_request_that_failed_is_a_row_that_is_not_right() -> None:
    made = answers(QUESTIONS, BASE, {}, spec=SPEC, task=task(), generate=Script(Completion("", "failed", "down")))
    assert [(row.outcome, row.error, row.answer) for row in made] == [("failed", "down", None)] * 2
