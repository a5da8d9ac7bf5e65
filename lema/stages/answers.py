"""`answers`: the test questions, asked of the base and of every arm alike (LEMA, section 3.3: greedy, pass@1)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from lema.models.types import Completion, Model, Request
from lema.recipe.prompt import digest, render
from lema.recipe.training_schema import AnswersSpec
from lema.rows import Answer, Question, Split, row_class
from lema.stages.common import GenerateFn, complete, sampling_parameters, trained_models
from lema.stages.grades import grade_text
from lema.tasks import Task, majority_vote


@row_class
class _Slot:
    """One answer to ask for; `name` is what its id ends with."""

    question: Question
    name: str
    arm: str
    seed: int | None
    model: Model
    kind: Literal["single", "vote"]
    index: int


def answers(
    questions: Iterable[Question],
    base: Model,
    adapters: Mapping[str, Mapping[int, Model]],
    *,
    spec: AnswersSpec,
    tasks: Mapping[Split, Task],
    generate: GenerateFn,
    pmap: Callable[..., Iterator[Any]],
) -> Iterator[Answer]:
    """One row a question and model, and with `votes` one a vote and their majority; `adapters` are by arm and seed.

    Test questions and those of transfer sets are asked, dev questions when the recipe says so. Every model gets the
    same prompts, so that answers can be paired.
    """
    left_out = {"train"} if spec.dev else {"train", "dev"}
    single, origin = sampling_parameters(spec), digest(spec.prompt)
    votes = spec.votes.paths if spec.votes else 0
    drawn = replace(single, **(spec.votes.model_dump(exclude={"paths"}) if spec.votes else {}))

    def slots() -> Iterator[_Slot]:
        for name, arm, seed, model in trained_models(base, adapters):
            for question in questions:
                if question.split not in left_out:
                    yield _Slot(question, name, arm, seed, model, "single", 0)
                    for index in range(votes):
                        yield _Slot(question, f"{name}/v{index}", arm, seed, model, "vote", index)

    def request(slot: _Slot) -> Request:
        messages = render(spec.prompt, {"question": slot.question.text})
        return Request(slot.model, messages, single if slot.kind == "single" else drawn, slot.index, origin)

    graded = pmap(partial(_answer, tasks=tasks), complete(slots, request, generate))
    own: list[Answer] = []
    for row, split in graded:
        yield row
        if row.kind == "vote":
            own.append(row)
        if own and len(own) == votes:
            yield majority_answer(own, tasks[split])
            own = []


def majority_answer(votes: Sequence[Answer], task: Task) -> Answer:
    """The vote whose answer is the commonest, as a row of its own (self-consistency, Wang et al., arXiv 2203.11171).

    Right answers are one answer, and so are wrong ones that the task holds to be equal; a text that was cut short or
    has no answer does not vote. Of equally common answers the one that was given first wins. Without any, the row is
    worth what the first vote is.
    """

    def equal(one: Answer, other: Answer) -> bool:
        right = one.outcome == other.outcome == "correct"
        return right or (one.outcome == other.outcome and bool(task.equal(str(one.answer), str(other.answer))))

    counted = [vote if vote.outcome in ("correct", "incorrect") else None for vote in votes]
    return replace(
        votes[(majority_vote(counted, equal) or [0])[0]],
        id=f"{votes[0].id.rpartition('/')[0]}/majority",
        kind="majority",
        index=0,
        completion="",
        prompt_tokens=sum(vote.prompt_tokens for vote in votes),
        completion_tokens=sum(vote.completion_tokens for vote in votes),
    )


def _answer(completed: tuple[_Slot, str, Completion], *, tasks: Mapping[Split, Task]) -> tuple[Answer, Split]:
    """The graded row of a reply, and the split of its question."""
    slot, name, reply = completed
    question = slot.question
    outcome, answer = grade_text(reply.text, reply.finish, question.gold, tasks[question.split])
    row = Answer(
        f"{question.id}/{slot.name}", question.id, slot.arm, slot.seed, slot.kind, slot.index,
        text=reply.text, finish=reply.finish, error=reply.error, outcome=outcome, answer=answer, completion=name,
        prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens,
    )  # fmt: skip
    return row, question.split
