"""`answers`: the test questions, asked of the base and of every arm alike (LEMA, section 3.3: greedy, pass@1)."""

from collections.abc import Iterable, Iterator, Mapping

from lema.models import Model, Request, key
from lema.prompt import render
from lema.recipe import AnswersSpec
from lema.rows import Answer, Question
from lema.stages import Generate, grade, sampling, usage
from lema.tasks import Task


def answers(
    questions: Iterable[Question],
    base: Model,
    adapters: Mapping[str, Model],
    *,
    spec: AnswersSpec,
    task: Task,
    generate: Generate,
) -> Iterator[Answer]:
    """One row a test question and model; every model gets the same prompts, so that answers can be paired."""
    test = [question for question in questions if question.split == "test"]
    slots = [(arm, model, question) for arm, model in {"base": base, **adapters}.items() for question in test]
    requests = [
        Request(model, render(spec.prompt, {"question": question.text}), sampling(spec)) for _, model, question in slots
    ]
    for (arm, _, question), request, reply in zip(slots, requests, generate(requests), strict=True):
        outcome, answer = grade(reply.text, reply.finish, question.gold, task)
        yield Answer(
            id=f"{question.id}/{arm}",
            question_id=question.id,
            arm=arm,
            text=reply.text,
            finish=reply.finish,
            error=reply.error,
            outcome=outcome,
            answer=answer,
            completion=key(request),
            **usage(reply),
        )
