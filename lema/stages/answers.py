"""`answers`: the test questions, asked of the base and of every arm alike (LEMA, section 3.3: greedy, pass@1)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from lema.models.types import Completion, Model, Request, Sampling, key
from lema.recipe.prompt import digest, render
from lema.recipe.training_schema import AnswersSpec
from lema.rows import Answer, Finish, Outcome, Question, Split
from lema.stages import Generate, grade, sampling, trained, usage
from lema.tasks import Task

# One answer to ask for: arm, seed, question, the name that its id ends with, kind, index.
Slot = tuple[str, int | None, Question, str, Literal["single", "vote"], int]


def answers(
    questions: Iterable[Question],
    base: Model,
    adapters: Mapping[str, Mapping[int, Model]],
    *,
    spec: AnswersSpec,
    tasks: Mapping[Split, Task],
    generate: Generate,
    pmap: Callable[..., Iterator[Any]],
) -> Iterator[Answer]:
    """One row a question and model, and with `votes` one a vote and their majority; `adapters` are by arm and seed.

    Test questions and those of transfer sets are asked, dev questions when the recipe says so. Every model gets the
    same prompts, so that answers can be paired.
    """
    unasked = {"train"} if spec.dev else {"train", "dev"}
    asked = [question for question in questions if question.split not in unasked]
    k, drawn = _votes(spec)
    origin = digest(spec.prompt)
    slots: list[Slot] = []
    requests: list[Request] = []
    for name, arm, seed, model in trained(base, adapters):
        for question in asked:
            messages = render(spec.prompt, {"question": question.text})
            slots.append((arm, seed, question, name, "single", 0))
            requests.append(Request(model, messages, sampling(spec), prompt=origin))
            for index in range(k):
                slots.append((arm, seed, question, f"{name}/v{index}", "vote", index))
                requests.append(Request(model, messages, drawn, index, origin))
    # All of them before the first is graded: a model that still answers would keep the processors that grading needs.
    replies = list(generate(requests))
    texts = [
        (reply.text, reply.finish, question.gold, question.split)
        for (_, _, question, *_), reply in zip(slots, replies, strict=True)
    ]
    votes: list[Answer] = []
    outcomes = pmap(partial(_grade, tasks=tasks), texts)
    for slot, request, reply, graded in zip(slots, requests, replies, outcomes, strict=True):
        task = tasks[slot[2].split]
        row = _answer(slot, request, reply, graded)
        yield row
        if row.kind == "vote":
            votes.append(row)
        if votes and len(votes) == k:
            yield majority(votes, task)
            votes = []


def majority(votes: Sequence[Answer], task: Task) -> Answer:
    """The vote whose answer is the commonest, as a row of its own (self-consistency, Wang et al., arXiv 2203.11171).

    Right answers are one answer, and so are wrong ones that the task holds to be equal; a text that was cut short or
    has no answer does not vote. Of equally common answers the one that was given first wins. Without any, the row is
    worth what the first vote is.
    """
    groups: list[list[Answer]] = []
    for vote in votes:
        if vote.outcome in ("correct", "incorrect"):
            group = next((group for group in groups if _agree(vote, group[0], task)), None)
            if group is None:
                groups.append([vote])
            else:
                group.append(vote)
    winner = max(groups, key=len)[0] if groups else votes[0]
    return replace(
        winner,
        id=f"{votes[0].id.rpartition('/')[0]}/majority",
        kind="majority",
        index=0,
        completion="",
        prompt_tokens=sum(vote.prompt_tokens for vote in votes),
        completion_tokens=sum(vote.completion_tokens for vote in votes),
    )


def _agree(vote: Answer, other: Answer, task: Task) -> bool:
    if vote.outcome != other.outcome or vote.answer is None or other.answer is None:
        return False
    return vote.outcome == "correct" or vote.answer == other.answer or bool(task.equal(vote.answer, other.answer))


def _votes(spec: AnswersSpec) -> tuple[int, Sampling]:
    """How many votes, and how they are drawn."""
    if spec.votes is None:
        return 0, sampling(spec)
    drawn = spec.votes.model_dump(exclude={"paths"})
    return spec.votes.paths, replace(sampling(spec), **drawn)


def _grade(text: tuple[str, Finish, str, Split], *, tasks: Mapping[Split, Task]) -> tuple[Outcome, str | None]:
    reply, finish, gold, split = text
    return grade(reply, finish, gold, tasks[split])


def _answer(slot: Slot, request: Request, reply: Completion, graded: tuple[Outcome, str | None]) -> Answer:
    arm, seed, question, name, kind, index = slot
    outcome, answer = graded
    return Answer(
        id=f"{question.id}/{name}",
        question_id=question.id,
        arm=arm,
        seed=seed,
        kind=kind,
        index=index,
        text=reply.text,
        finish=reply.finish,
        error=reply.error,
        outcome=outcome,
        answer=answer,
        completion=key(request),
        **usage(reply),
    )
