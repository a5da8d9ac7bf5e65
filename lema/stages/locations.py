"""`locations`: where each wrong path goes wrong, for correctors that can mend a mistake but not find it (Tyen et al.,
arXiv 2311.08516). Optional: a recipe without the key has none, and its corrector finds the step itself."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lema.models.types import Completion, Model, Request
from lema.recipe.prompt import digest, render
from lema.recipe.schema import LocationsSpec
from lema.rows import Grade, Location, Question, Sample
from lema.stages import Generate, ask, provenance, sampling, shown, usage
from lema.text.steps import split

_LABELLED = re.compile(r"\bincorrect step\**\s*:\s*\**\s*(?:step\s*)?(\d{1,4})\b", re.IGNORECASE)
_STEP = re.compile(r"\bstep\s*(\d{1,4})\b", re.IGNORECASE)
_BARE = re.compile(r"\W*(\d{1,4})\W*")


def locations(
    questions: Iterable[Question],
    base: Model,
    samples: Iterable[Sample],
    grades: Iterable[Grade],
    *,
    spec: LocationsSpec | None,
    models: Mapping[str, Model],
    generate: Generate,
) -> Iterator[Location]:
    """One row a path graded incorrect; none without a `spec`. An injected mistake is where it was put."""
    if spec is None:
        return
    asked = {question.id: question for question in questions}
    wrong = {row.id for row in grades if row.outcome == "incorrect"}
    locator, origin = {**models, "base": base}[spec.model], digest(spec.prompt)
    slots = []
    for sample in samples:
        if sample.id not in wrong or (spec.samplers is not None and sample.sampler not in spec.samplers):
            continue
        if spec.known and sample.incorrect_step is not None:
            known = {"status": "parsed", "reason": None, "reply": "", "incorrect_step": sample.incorrect_step}
            nobody = {"model": "injected", "prompt": "", "completion": "", "prompt_tokens": 0, "completion_tokens": 0}
            yield _location(sample, known | nobody)
        else:
            slots.append(sample)

    def request(sample: Sample) -> Request:
        messages = render(spec.prompt, shown(asked[sample.question_id], sample, spec.hint))
        return Request(locator, messages, sampling(spec), prompt=origin)

    for sample, name, reply in ask(slots, request, generate):
        found = _read(reply, len(split(sample.text)))
        yield _location(sample, found | provenance(locator, origin, name) | usage(reply))


def _location(sample: Sample, fields: Mapping[str, Any]) -> Location:
    return Location(sample.id, sample.question_id, sample.sampler, **fields)


def _read(reply: Completion, steps: int) -> dict[str, Any]:
    """The step that a reply names: after "Incorrect Step:", else the only one that it names, else its only number. So
    a reply that is a whole correction will do, too."""
    nothing: dict[str, Any] = {"reply": reply.text, "incorrect_step": None}
    if reply.finish in ("failed", "refused"):
        return {"status": "failed", "reason": reply.error, **nothing}
    labelled = _LABELLED.findall(reply.text)
    named = labelled[:1] or list(dict.fromkeys(_STEP.findall(reply.text)))
    bare = _BARE.fullmatch(reply.text)
    found = [int(one) for one in named or (bare.groups() if bare else ())]
    if len(found) == 1 and 1 <= found[0] <= steps:
        return {"status": "parsed", "reason": None, "reply": reply.text, "incorrect_step": found[0]}
    if reply.finish == "length":
        return {"status": "truncated", "reason": "the reply was cut at max_tokens", **nothing}
    if len(found) == 1:
        return {"status": "malformed", "reason": f"names step {found[0]}, the path has steps 1 to {steps}", **nothing}
    return {"status": "malformed", "reason": "names no step" if not found else "names several steps", **nothing}
