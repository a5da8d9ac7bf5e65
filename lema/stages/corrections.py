"""`corrections`: the corrector finds, explains and mends the mistake of each wrong path (LEMA, section 2.1)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lema.models import Completion, Model, Request
from lema.prompt import digest, render, variables
from lema.recipe import CorrectionsSpec
from lema.reply import ELLIPSIS, Malformed, parse, parse_json
from lema.rows import Correction, Grade, Location, Question, Sample
from lema.stages import Generate, provenance, sampling, shown, usage
from lema.steps import departure, split
from lema.tasks import Task


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
) -> Iterator[Correction]:
    """`tries` rows for every path graded incorrect. Parsing costs nothing: replies come from the store.

    A prompt that uses `incorrect_step` is told where the path goes wrong; a path without a location is then not
    asked about, and its row says why.
    """
    asked = {question.id: question for question in questions}
    wrong = {row.id for row in grades if row.outcome == "incorrect"}
    found = {row.id: row for row in locations}
    located = "incorrect_step" in variables(spec.prompt)
    corrector = {**models, "base": base}[spec.model]
    slots = [
        (sample, index, found.get(sample.id))
        for sample in samples
        if sample.id in wrong and (spec.samplers is None or sample.sampler in spec.samplers)
        for index in range(spec.tries)
    ]
    if located:
        for sample, index, where in slots:
            if where is None or where.incorrect_step is None:
                yield _unlocated(sample, index, where, corrector, spec)
        slots = [slot for slot in slots if slot[2] is not None and slot[2].incorrect_step is not None]
    requests = []
    for sample, index, where in slots:
        seen = shown(asked[sample.question_id], sample, spec.hint)
        if where is not None and where.incorrect_step is not None:
            seen["incorrect_step"] = where.incorrect_step
        requests.append(Request(corrector, render(spec.prompt, seen), sampling(spec), index, digest(spec.prompt)))
    for (sample, index, where), request, reply in zip(slots, requests, generate(requests), strict=True):
        told = where.incorrect_step if located and where is not None else None
        yield Correction(
            id=f"{sample.id}/c{index}",
            sample_id=sample.id,
            question_id=sample.question_id,
            index=index,
            reply=reply.text,
            **_read(reply, split(sample.text), told, spec, task),
            **provenance(request, spec.prompt),
            **usage(reply),
        )


def _unlocated(sample: Sample, index: int, where: Location | None, model: Model, spec: CorrectionsSpec) -> Correction:
    reason = "no location was asked for" if where is None else f"no location: {where.reason}"
    return Correction(
        f"{sample.id}/c{index}", sample.id, sample.question_id, index, "failed", reason, "",
        None, None, None, None, None, model.identity, digest(spec.prompt), "", 0, 0,
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
