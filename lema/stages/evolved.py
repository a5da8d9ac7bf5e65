"""`evolved`: new questions like those that could be corrected, for another round (LEMA, section 2.2).

Questions that are too easy bring no mistakes, and those that are too hard no good corrections; so seeds are drawn from
the questions of accepted corrections, with replacement. Optional: a recipe without the key has none.
"""

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

from lema.errors import RunError
from lema.models.types import Completion, Model, Request
from lema.recipe.schema import EvolvedSpec
from lema.rows import Evolved, Question, Verdict, row_class
from lema.stages.common import GenerateFn, PromptedModel, complete, prompted_model
from lema.tasks import Reading, Task, majority_vote
from lema.text.final_answer import drop_answer_step
from lema.text.joins import SortedLookup
from lema.text.steps import split_steps

_LABEL = re.compile(r"^[\s#*]*(?:(?:new|related|evolved)\s+)?(?:question|problem)\**\s*\d*\s*:[\s*]*", re.IGNORECASE)
_END = re.compile(r"\n[\s#*]*(?:answer|solution|explanation)\**\s*:", re.IGNORECASE)


@row_class
class _New:
    """A new question as far as it has come: `reason` says why it goes no further, `completion` and the tokens are the
    writer's."""

    seed_id: str
    index: int
    text: str
    reason: str | None
    completion: str
    prompt_tokens: int
    completion_tokens: int

    @property
    def id(self) -> str:
        return f"{self.seed_id}/e{self.index}"


def evolved(
    questions: Iterable[Question],
    base: Model,
    verdicts: Iterable[Verdict],
    *,
    spec: EvolvedSpec | None,
    task: Task,
    models: Mapping[str, Model],
    generate: GenerateFn,
) -> Iterator[Evolved]:
    """`spec.questions` rows, those that are dropped with their reason; none without a `spec`.

    RunError when the task cannot write records, or there is no seed to draw.
    """
    if spec is None:
        return
    if task.write is None:
        raise RunError(f"evolved: the task {task.name} cannot write records")
    writer, solver = (prompted_model(one, models, base) for one in (spec.write, spec.solve))
    seeds = _draw_seeds(questions, verdicts, spec)
    drawn = {name for name, _ in seeds}
    texts = {question.id: question.text for question in questions if question.id in drawn}

    def write(seed: tuple[str, int]) -> Request:
        return writer.request({"question": texts[seed[0]]}, seed[1])

    def solve(attempt: tuple[_New, int]) -> Request:
        return solver.request({"question": attempt[0].text}, attempt[1])

    written = _drop_repeats([_new_question(*item) for item in complete(lambda: seeds, write, generate)], questions)
    new = [entry for entry in written if entry.reason is None]
    replies = complete(lambda: product(new, range(spec.answers)), solve, generate) if new else iter(())
    for entry in written:
        own = [] if entry.reason else [next(replies)[1:] for _ in range(spec.answers)]
        yield _evolved_row(entry, own, task, writer, solver)


def _draw_seeds(questions: Iterable[Question], verdicts: Iterable[Verdict], spec: EvolvedSpec) -> list[tuple[str, int]]:
    """Ids of questions, drawn with replacement, a question as often as it has accepted corrections; the index tells
    apart those of one question. Each draw has its own random numbers, so that asking for more keeps the first ones."""

    def pool() -> Iterator[str]:
        if spec.seeds == "questions":
            yield from (question.id for question in questions if question.split == "train")
            return
        asked = SortedLookup(questions)
        for row in verdicts:
            if row.accepted and asked[row.question_id].split == "train":
                yield row.question_id

    places = range(sum(1 for _ in pool()))
    if not places:
        raise RunError("evolved: no correction was accepted, so there are no seeds")
    chosen = [random.Random(f"{spec.seed}:{number}").choice(places) for number in range(spec.questions)]
    names, drawn = dict.fromkeys(chosen, ""), Counter[str]()
    names.update((place, name) for place, name in enumerate(pool()) if place in names)
    seeds = []
    for name in map(names.__getitem__, chosen):
        seeds.append((name, drawn[name]))
        drawn[name] += 1
    return seeds


def _new_question(seed: tuple[str, int], completion: str, reply: Completion) -> _New:
    """The question in a reply, or why it is none."""
    text = " ".join(_LABEL.sub("", _END.split(reply.text, maxsplit=1)[0], count=1).split())
    reason = None
    if reply.finish in ("failed", "refused"):
        text, reason = "", f"the writer failed: {reply.error}"
    elif reply.finish == "length":
        reason = "the question was cut at max_tokens"
    elif not text:
        reason = "the writer wrote no question"
    return _New(*seed, text, reason, completion, reply.prompt_tokens, reply.completion_tokens)


def _drop_repeats(written: Sequence[_New], questions: Iterable[Question]) -> list[_New]:
    """What was written, with a reason where it is a question that is there or was written before."""
    digests = [_text_digest(new.text) for new in written]
    seen = dict.fromkeys(digests, "")
    seen.update((name, question.id) for question in questions if (name := _text_digest(question.text)) in seen)
    checked = []
    for new, name in zip(written, digests, strict=True):
        if new.reason is None and seen[name]:
            new = replace(new, reason=f"the same as {seen[name]}")
        elif new.reason is None:
            seen[name] = new.id
        checked.append(new)
    return checked


def _text_digest(text: str) -> bytes:
    """Equal for questions that differ in case, punctuation and white space alone; "3 + 4" and "3 - 4" are not equal."""
    words = " ".join(re.findall(r"\w+|[-+*/^=<>|]", text.casefold()))
    return hashlib.sha256(words.encode()).digest()[:16]


def _evolved_row(
    new: _New,
    own: Sequence[tuple[str, Completion]],
    task: Task,
    writer: PromptedModel,
    solver: PromptedModel,
) -> Evolved:
    """A new question with its solutions."""
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
        id=new.id,
        seed_id=new.seed_id,
        index=new.index,
        text=new.text,
        answers=tuple(answers),
        votes=votes,
        accepted=reason is None,
        reason=reason,
        record=record,
        model=writer.model.identity,
        prompt=writer.digest,
        completion=new.completion,
        solver=solver.model.identity,
        solver_prompt=solver.digest,
        completions=tuple(name for name, _ in own),
        prompt_tokens=new.prompt_tokens + sum(reply.prompt_tokens for _, reply in own),
        completion_tokens=new.completion_tokens + sum(reply.completion_tokens for _, reply in own),
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
