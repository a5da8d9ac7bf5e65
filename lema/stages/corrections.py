"""`corrections`: the corrector finds, explains and mends the mistake of each wrong path (LEMA, section 2.1)."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lema.models import Completion, Model, Request
from lema.prompt import render
from lema.recipe import CorrectionsSpec
from lema.reply import Malformed, parse
from lema.rows import Correction, Grade, Question, Sample
from lema.stages import Generate, provenance, sampling, usage
from lema.steps import number, split
from lema.tasks import Task


def corrections(
    questions: Iterable[Question],
    base: Model,
    samples: Iterable[Sample],
    grades: Iterable[Grade],
    *,
    spec: CorrectionsSpec,
    task: Task,
    models: Mapping[str, Model],
    generate: Generate,
) -> Iterator[Correction]:
    """`tries` rows for every path graded incorrect. Parsing costs nothing: replies come from the store."""
    asked = {question.id: question for question in questions}
    wrong = {row.id for row in grades if row.outcome == "incorrect"}
    corrector = {**models, "base": base}[spec.model]
    slots = [
        (asked[sample.question_id], sample, index)
        for sample in samples
        if sample.id in wrong and (spec.samplers is None or sample.sampler in spec.samplers)
        for index in range(spec.tries)
    ]
    requests = [_request(question, sample, index, spec, corrector) for question, sample, index in slots]
    for (_, sample, index), request, reply in zip(slots, requests, generate(requests), strict=True):
        yield Correction(
            id=f"{sample.id}/c{index}",
            sample_id=sample.id,
            question_id=sample.question_id,
            index=index,
            reply=reply.text,
            **_read(reply, len(split(sample.text)), task),
            **provenance(request, spec.prompt),
            **usage(reply),
        )


def _request(question: Question, sample: Sample, index: int, spec: CorrectionsSpec, model: Model) -> Request:
    steps = split(sample.text)
    variables: dict[str, Any] = {"question": question.text, "path": number(steps), "steps": list(steps)}
    if spec.hint != "none":
        variables["gold"] = question.gold
    if spec.hint == "rationale":
        variables["rationale"] = question.rationale or ""
    return Request(model, render(spec.prompt, variables), sampling(spec), index)


def _read(reply: Completion, steps: int, task: Task) -> dict[str, Any]:
    """The fields of a reply, or why it has none."""
    nothing = dict.fromkeys(("incorrect_step", "error_type", "explanation", "solution", "answer"))
    if reply.finish in ("failed", "refused"):
        return {"status": "failed", "reason": reply.error, **nothing}
    if reply.finish == "length":
        return {"status": "truncated", "reason": "the reply was cut at max_tokens", **nothing}
    parsed = parse(reply.text, steps=steps)
    if isinstance(parsed, Malformed):
        return {"status": "malformed", "reason": parsed.reason, **nothing}
    return {
        "status": "parsed",
        "reason": None,
        "incorrect_step": parsed.incorrect_step,
        "error_type": parsed.error_type,
        "explanation": parsed.explanation,
        "solution": "\n".join(parsed.solution),
        "answer": task.extract("\n".join(parsed.solution)),
    }
