"""`corrections`: the corrector finds, explains and mends the mistake of each wrong path (LEMA, section 2.1)."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from lema.models.types import Completion, Model, Request
from lema.recipe.prompt import digest, render, variables
from lema.recipe.schema import CorrectionsSpec
from lema.rows import Correction, Grade, Location, Question, Sample, Verdict
from lema.stages import Generate, ask, chosen, provenance, sampling, shown, usage
from lema.tasks import Task
from lema.text.correction_format import ELLIPSIS, Malformed, parse, parse_json
from lema.text.render import accepted
from lema.text.steps import departure, split

# What the stage `verdicts` will say of corrections, in the order of their ids.
Judge = Callable[[Sequence[Question], Sequence[Sample], Sequence[Correction]], Iterable[Verdict]]


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
    generate: Generate,
    judge: Judge,
    say: Callable[[str], None],
) -> Iterator[Correction]:
    """`tries` rows for every path graded incorrect. Parsing costs nothing: replies come from the store.

    A prompt that uses `incorrect_step` is told where the path goes wrong; a path without a location is then not
    asked about, and its row says why.

    With `want`, paths are taken in an order drawn by seed, until so many corrections are accepted. The rest are no
    rows. Where there are too few, all are taken, and `say` tells how many were accepted.
    """
    asked = {question.id: question for question in questions}
    wrong = {row.id for row in grades if row.outcome == "incorrect"}
    found = {row.id: row for row in locations}
    located = "incorrect_step" in variables(spec.prompt)
    corrector, origin = {**models, "base": base}[spec.model], digest(spec.prompt)
    candidates = [
        sample
        for sample in samples
        if sample.id in wrong and (spec.samplers is None or sample.sampler in spec.samplers)
    ]

    def step(sample: Sample) -> int | None:
        where = found.get(sample.id)
        return where.incorrect_step if where else None

    def request(slot: tuple[Sample, int]) -> Request:
        sample, index = slot
        told = step(sample)
        seen = shown(asked[sample.question_id], sample, spec.hint) | ({"incorrect_step": told} if told else {})
        return Request(corrector, render(spec.prompt, seen), sampling(spec), index, origin)

    def correct(some: Iterable[Sample]) -> Iterator[Correction]:
        slots = [(sample, index) for sample in some for index in range(spec.tries)]
        for (sample, index), name, reply in ask(slots, request, generate):
            yield Correction(
                id=f"{sample.id}/c{index}",
                sample_id=sample.id,
                question_id=sample.question_id,
                index=index,
                reply=reply.text,
                **_read(reply, split(sample.text), step(sample) if located else None, spec, task),
                **provenance(corrector, origin, name),
                **usage(reply),
            )

    paths = [sample for sample in candidates if not located or step(sample) is not None]
    rows = [
        _unlocated(sample, index, found.get(sample.id), corrector, origin)
        for sample in candidates
        if located and step(sample) is None
        for index in range(spec.tries)
    ]
    if spec.want is None:
        yield from rows
        yield from correct(paths)
        return

    def lacking(want: int) -> int:
        there = sorted(rows, key=lambda row: row.id)
        return want - len(accepted(there, judge(list(asked.values()), candidates, there)))

    order = chosen(paths, spec.seed, lambda sample: sample.id)
    most = min(len(order), (spec.max_candidates or len(order) * spec.tries) // spec.tries)
    taken = 0
    # Of one path at most `tries` corrections are accepted: so no round takes a path that is not needed.
    while (still := lacking(spec.want)) > 0 and taken < most:
        due = order[taken : min(most, taken + math.ceil(still / spec.tries))]
        rows += correct(due)
        taken += len(due)
    yield from rows
    if still > 0:
        why = "there are no more wrong paths" if taken == len(order) else "`max_candidates` allows no more"
        got = f"got {spec.want - still:,} of {len(rows):,} candidates"
        say(f"wanted {spec.want:,} accepted corrections, {got}: {why}")


def _unlocated(sample: Sample, index: int, where: Location | None, model: Model, origin: str) -> Correction:
    reason = "no location was asked for" if where is None else f"no location: {where.reason}"
    return Correction(
        f"{sample.id}/c{index}", sample.id, sample.question_id, index, "failed", reason, "",
        None, None, None, None, None, model.identity, origin, "", 0, 0,
    )  # fmt: skip


def _read(
    reply: Completion, path: Sequence[str], told: int | None, spec: CorrectionsSpec, task: Task
) -> dict[str, Any]:
    """The fields of a reply, or why it has none."""
    nothing = dict.fromkeys(("incorrect_step", "error_type", "explanation", "solution", "answer"))
    if reply.finish in ("failed", "refused"):
        return {"status": "failed", "reason": reply.error, **nothing}
    if reply.finish == "length":
        return {"status": "truncated", "reason": "the reply was cut at max_tokens", **nothing}
    read = parse_json if spec.format == "json" else parse
    parsed = read(reply.text, steps=len(path), without=spec.without)
    if isinstance(parsed, Malformed):
        return {"status": "malformed", "reason": parsed.reason, **nothing}
    # A whole solution names the step in which it leaves the path.
    whole = "incorrect_step" in spec.without and parsed.solution[0] != ELLIPSIS
    found = departure(path, parsed.solution) if whole else None
    return {
        "status": "parsed",
        "reason": None,
        "incorrect_step": parsed.incorrect_step or told or found,
        "error_type": parsed.error_type,
        "explanation": parsed.explanation,
        "solution": "\n".join(parsed.solution),
        "answer": task.extract("\n".join(parsed.solution)),
    }
