"""`evolved`: new questions like those that could be corrected, for another round (LEMA, section 2.2).

Questions that are too easy bring no mistakes, and those that are too hard no good corrections; so seeds are drawn from
the questions of accepted corrections, with replacement. Optional: a recipe without the key has none.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lema.errors import RunError
from lema.models.types import Completion, Model, Request, key
from lema.recipe.prompt import digest, render
from lema.recipe.schema import EvolvedSpec
from lema.rows import Evolved, Question, Verdict
from lema.stages.common import Generate, provenance, sampling_parameters
from lema.tasks import Reading, Task, majority_vote
from lema.text.final_answer import drop_answer_step
from lema.text.steps import split_steps

_LABEL = re.compile(r"^[\s#*]*(?:(?:new|related|evolved)\s+)?(?:question|problem)\**\s*\d*\s*:[\s*]*", re.IGNORECASE)
_END = re.compile(r"\n[\s#*]*(?:answer|solution|explanation)\**\s*:", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _New:
    """A new question as far as it has come: `reason` says why it goes no further."""

    seed: Question
    index: int
    request: Request
    reply: Completion
    text: str
    reason: str | None


def evolved(
    questions: Iterable[Question],
    base: Model,
    verdicts: Iterable[Verdict],
    *,
    spec: EvolvedSpec | None,
    task: Task,
    models: Mapping[str, Model],
    generate: Generate,
) -> Iterator[Evolved]:
    """`spec.questions` rows, those that are dropped with their reason; none without a `spec`.

    RunError when the task cannot write records, or there is no seed to draw.
    """
    if spec is None:
        return
    if task.write is None:
        raise RunError(f"evolved: the task {task.name} cannot write records")
    known, asked = {**models, "base": base}, list(questions)
    seeds = _seeds(asked, verdicts, spec)
    writer, how, origin = known[spec.write.model], sampling_parameters(spec.write), digest(spec.write.prompt)
    requests = [
        Request(writer, render(spec.write.prompt, {"question": seed.text}), how, index, origin) for seed, index in seeds
    ]
    taken = {_same(question.text): question.id for question in asked}
    written = [
        _new(seed, index, request, reply, taken)
        for (seed, index), request, reply in zip(seeds, requests, generate(requests), strict=True)
    ]
    solver = known[spec.solve.model]
    how, origin = sampling_parameters(spec.solve), digest(spec.solve.prompt)
    tries = [
        Request(solver, render(spec.solve.prompt, {"question": new.text}), how, index, origin)
        for new in written
        if new.reason is None
        for index in range(spec.answers)
    ]
    replies = iter(list(zip(tries, generate(tries), strict=True)) if tries else [])
    for new in written:
        own = [next(replies) for _ in range(spec.answers)] if new.reason is None else []
        yield _row(new, own, solver, origin, task)


def _seeds(questions: Sequence[Question], verdicts: Iterable[Verdict], spec: EvolvedSpec) -> list[tuple[Question, int]]:
    """Draws with replacement, a question as often as it has accepted corrections; the index tells apart those of one
    question. Each draw has its own random numbers, so that asking for more keeps the first ones."""
    train = {question.id: question for question in questions if question.split == "train"}
    if spec.seeds == "corrections":
        pool = [train[row.question_id] for row in verdicts if row.accepted and row.question_id in train]
    else:
        pool = list(train.values())
    if not pool:
        raise RunError("evolved: no correction was accepted, so there are no seeds")
    drawn: Counter[str] = Counter()
    seeds = []
    for number in range(spec.questions):
        seed = random.Random(f"{spec.seed}:{number}").choice(pool)
        seeds.append((seed, drawn[seed.id]))
        drawn[seed.id] += 1
    return seeds


def _new(seed: Question, index: int, request: Request, reply: Completion, taken: dict[str, str]) -> _New:
    """The question in a reply, unless it is none or is there already; what it is then is taken."""
    text = " ".join(_LABEL.sub("", _END.split(reply.text, maxsplit=1)[0], count=1).split())
    name = f"{seed.id}/e{index}"
    reason = None
    if reply.finish in ("failed", "refused"):
        text, reason = "", f"the writer failed: {reply.error}"
    elif reply.finish == "length":
        reason = "the question was cut at max_tokens"
    elif not text:
        reason = "the writer wrote no question"
    elif _same(text) in taken:
        reason = f"the same as {taken[_same(text)]}"
    else:
        taken[_same(text)] = name
    return _New(seed, index, request, reply, text, reason)


def _same(text: str) -> str:
    """Questions are the same whatever their case, punctuation and white space; "3 + 4" and "3 - 4" are not."""
    return " ".join(re.findall(r"\w+|[-+*/^=<>|]", text.casefold()))


def _row(new: _New, own: Sequence[tuple[Request, Completion]], solver: Model, origin: str, task: Task) -> Evolved:
    answers = [task.extract(reply.text) if reply.finish == "stop" else None for _, reply in own]
    agreeing = majority_vote(answers, task.equal)
    votes, place = len(agreeing), agreeing[0] if agreeing else None
    reason = new.reason
    if reason is None and place is None:
        reason = f"none of {len(own)} answers could be read"
    elif reason is None and votes * 2 <= len(own):
        reason = f"no majority: at most {votes} of {len(own)} answers agree"
    record = None
    if reason is None and place is not None:
        record, reason = _record(new.text, str(answers[place]), own[place][1].text, task)
    return Evolved(
        id=f"{new.seed.id}/e{new.index}",
        seed_id=new.seed.id,
        index=new.index,
        text=new.text,
        answers=tuple(answers),
        votes=votes,
        accepted=reason is None,
        reason=reason,
        record=record,
        **provenance(new.request.model, new.request.prompt, key(new.request)),
        solver=solver.identity,
        solver_prompt=origin,
        completions=tuple(key(request) for request, _ in own),
        prompt_tokens=new.reply.prompt_tokens + sum(reply.prompt_tokens for _, reply in own),
        completion_tokens=new.reply.completion_tokens + sum(reply.completion_tokens for _, reply in own),
    )


def _record(text: str, gold: str, path: str, task: Task) -> tuple[str | None, str | None]:
    """The record of a question, or why the task cannot read what it wrote."""
    assert task.write is not None
    rationale = "\n".join(drop_answer_step(split_steps(path))) or None
    record = task.write(Reading(text, gold, rationale))
    try:
        task.read(record)
    except ValueError as error:
        return None, f"the task cannot read it: {error}"
    return json.dumps(record, sort_keys=True, ensure_ascii=False), None
