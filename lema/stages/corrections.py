"""`corrections`: the corrector finds, explains and mends the mistake of each wrong path (LEMA, section 2.1)."""

import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from lema.models.types import Completion, Model, Request
from lema.recipe.prompt import variables
from lema.recipe.schema import CorrectionsSpec
from lema.rows import Correction, Grade, Location, Question, Sample, Verdict, row_class
from lema.stages.common import (
    GenerateFn,
    PromptedModel,
    complete,
    mistake_variables,
    prompted_model,
    stable_shuffle,
)
from lema.tasks import Task
from lema.text.correction_format import ELLIPSIS, Malformed, parse_correction, parse_correction_json
from lema.text.joins import SortedLookup, accepted
from lema.text.steps import first_difference, split_steps

# The stage `verdicts`, for corrections in the order of their ids.
Judge = Callable[[Iterable[Question], Iterable[Sample], Sequence[Correction]], Iterable[Verdict]]


def corrections(
    questions: Iterable[Question],
    base: Model,
    samples: Iterable[Sample],
    grades: Iterable[Grade],
    locations: Iterable[Location],
    *,
    spec: CorrectionsSpec,
    task: Task,
    models: Mapping[str, Model],
    generate: GenerateFn,
    judge: Judge,
    pmap: Callable[..., Iterator[Any]],
    log: Callable[[str], None],
) -> Iterator[Correction]:
    """`tries` rows for every path graded incorrect. Parsing costs nothing: replies come from the store.

    A prompt that uses `incorrect_step` is given the step in which the path goes wrong; a path without a location is
    then not sent to the corrector, and its row has the reason.

    With `want`, paths are taken in an order drawn by seed, until so many corrections are accepted; the others have no
    rows. Where there are too few, all are taken, and `log` gets the number of accepted ones. Rows are then kept in
    memory, as many as it takes.
    """
    located = "incorrect_step" in variables(spec.prompt)
    corrector = prompted_model(spec, models, base)

    def mistakes(chosen: Container[str] | None = None) -> Iterator[_Mistake]:
        """Wrong paths, all of them or those with a chosen id."""
        by_id, graded, found = SortedLookup(questions), SortedLookup(grades), SortedLookup(locations)
        for sample in samples:
            if graded[sample.id].outcome != "incorrect" or (chosen is not None and sample.id not in chosen):
                continue
            if spec.samplers is None or sample.sampler in spec.samplers:
                yield _Mistake(by_id[sample.question_id], sample, found.get(sample.id))

    def slots(chosen: Container[str] | None = None) -> Iterator[tuple[_Mistake, int]]:
        """What the corrector is asked for."""
        for mistake in mistakes(chosen):
            if not located or mistake.step is not None:
                yield from ((mistake, index) for index in range(spec.tries))

    def request(slot: tuple[_Mistake, int]) -> Request:
        mistake, index = slot
        given = mistake_variables(mistake.question, mistake.sample, spec.hint)
        given |= {"incorrect_step": mistake.step} if mistake.step else {}
        return corrector.request(given, index)

    def correct(chosen: Container[str] | None = None) -> Iterator[Correction]:
        replies = complete(partial(slots, chosen), request, generate)
        parse_reply = partial(_correction, located=located, spec=spec, task=task, corrector=corrector)
        return pmap(parse_reply, replies)

    def unlocated() -> Iterator[Correction]:
        for mistake in mistakes() if located else ():
            if mistake.step is None:
                yield from (_unlocated(mistake, index, corrector) for index in range(spec.tries))

    if spec.want is None:
        yield from unlocated()
        yield from correct()
        return
    rows = list(unlocated())

    def lacking(want: int) -> int:
        there = sorted(rows, key=lambda row: row.id)
        return want - sum(1 for _ in accepted(there, judge(questions, samples, there)))

    asked_for = dict.fromkeys(mistake.sample.id for mistake, _ in slots())
    order = stable_shuffle(asked_for, spec.seed, str)
    most = min(len(order), (spec.max_candidates or len(order) * spec.tries) // spec.tries)
    taken = 0
    # Of one path at most `tries` corrections are accepted: so no round takes a path that is not needed.
    while (still := lacking(spec.want)) > 0 and taken < most:
        due = order[taken : min(most, taken + math.ceil(still / spec.tries))]
        rows += correct(frozenset(due))
        taken += len(due)
    yield from rows
    if still > 0:
        why = "there are no more wrong paths" if taken == len(order) else "`max_candidates` allows no more"
        got = f"got {spec.want - still:,} of {len(rows):,} candidates"
        log(f"wanted {spec.want:,} accepted corrections, {got}: {why}")


@row_class
class _Mistake:
    """A wrong path, and where it goes wrong if that was looked for."""

    question: Question
    sample: Sample
    location: Location | None

    @property
    def step(self) -> int | None:
        return self.location.incorrect_step if self.location else None


def _unlocated(mistake: _Mistake, index: int, corrector: PromptedModel) -> Correction:
    """The row of a path that the corrector is not asked about, since nobody knows where it goes wrong."""
    where, sample = mistake.location, mistake.sample
    reason = "no location was asked for" if where is None else f"no location: {where.reason}"
    return Correction(
        f"{sample.id}/c{index}", sample.id, sample.question_id, index, "failed", reason, "",
        None, None, None, None, None, corrector.model.identity, corrector.digest, "", 0, 0,
    )  # fmt: skip


def _correction(
    completed: tuple[tuple[_Mistake, int], str, Completion],
    *,
    located: bool,
    spec: CorrectionsSpec,
    task: Task,
    corrector: PromptedModel,
) -> Correction:
    (mistake, index), name, reply = completed
    sample = mistake.sample
    return Correction(
        id=f"{sample.id}/c{index}",
        sample_id=sample.id,
        question_id=sample.question_id,
        index=index,
        reply=reply.text,
        **_parse_fields(reply, split_steps(sample.text), mistake.step if located else None, spec, task),
        **corrector.origin(name, reply),
    )


def _parse_fields(
    reply: Completion, path: Sequence[str], located: int | None, spec: CorrectionsSpec, task: Task
) -> dict[str, Any]:
    """The fields of a reply, or why it has none."""
    nothing = dict.fromkeys(("incorrect_step", "error_type", "explanation", "solution", "answer"))
    if reply.finish in ("failed", "refused"):
        return {"status": "failed", "reason": reply.error, **nothing}
    if reply.finish == "length":
        return {"status": "truncated", "reason": "the reply was cut at max_tokens", **nothing}
    parse_reply = parse_correction_json if spec.format == "json" else parse_correction
    parsed = parse_reply(reply.text, steps=len(path), without=spec.without)
    if isinstance(parsed, Malformed):
        return {"status": "malformed", "reason": parsed.reason, **nothing}
    # A whole solution names the step in which it leaves the path.
    whole = "incorrect_step" in spec.without and parsed.solution[0] != ELLIPSIS
    found = first_difference(path, parsed.solution) if whole else None
    return {
        "status": "parsed",
        "reason": None,
        "incorrect_step": parsed.incorrect_step or located or found,
        "error_type": parsed.error_type,
        "explanation": parsed.explanation,
        "solution": "\n".join(parsed.solution),
        "answer": task.extract("\n".join(parsed.solution)),
    }
