"""`locations`: where each wrong path goes wrong, for correctors that can mend a mistake but not find it (Tyen et al.,
arXiv 2311.08516). Optional: a recipe without the key has none, and its corrector finds the step itself."""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from lema.models.types import Completion, Model, Request
from lema.recipe.prompt import digest, render
from lema.recipe.schema import LocationsSpec
from lema.rows import Grade, Location, Question, Sample
from lema.stages.common import GenerateFn, complete, mistake_variables, provenance, sampling_parameters, token_counts
from lema.text.joins import SortedLookup
from lema.text.steps import split_steps

_LABELLED = re.compile(r"\bincorrect step\**\s*:\s*\**\s*(?:step\s*)?(\d{1,4})\b", re.IGNORECASE)
_STEP_REPLY = re.compile(r"\bstep\s*(\d{1,4})\b", re.IGNORECASE)
_BARE = re.compile(r"\W*(\d{1,4})\W*")


def locations(
    questions: Iterable[Question],
    base: Model,
    samples: Iterable[Sample],
    grades: Iterable[Grade],
    *,
    spec: LocationsSpec | None,
    models: Mapping[str, Model],
    generate: GenerateFn,
) -> Iterator[Location]:
    """One row a path graded incorrect; none without a `spec`. An injected mistake is where it was put."""
    if spec is None:
        return
    locator, origin = {**models, "base": base}[spec.model], digest(spec.prompt)

    def wrong(known: bool) -> Iterator[tuple[Question, Sample]]:
        """The paths to locate a mistake in, those in which it is known or the others."""
        by_id, graded = SortedLookup(questions), SortedLookup(grades)
        for sample in samples:
            wanted = spec.samplers is None or sample.sampler in spec.samplers
            located = spec.known and sample.incorrect_step is not None
            if wanted and located == known and graded[sample.id].outcome == "incorrect":
                yield by_id[sample.question_id], sample

    def request(mistake: tuple[Question, Sample]) -> Request:
        messages = render(spec.prompt, mistake_variables(*mistake, spec.hint))
        return Request(locator, messages, sampling_parameters(spec), prompt=origin)

    for _, sample in wrong(known=True):
        found = {"status": "parsed", "reason": None, "reply": "", "incorrect_step": sample.incorrect_step}
        nobody = {"model": "injected", "prompt": "", "completion": "", "prompt_tokens": 0, "completion_tokens": 0}
        yield _location(sample, found | nobody)
    for (_, sample), name, reply in complete(partial(wrong, known=False), request, generate):
        found = _read_step(reply, len(split_steps(sample.text)))
        yield _location(sample, found | provenance(locator, origin, name) | token_counts(reply))


def _location(sample: Sample, fields: Mapping[str, Any]) -> Location:
    return Location(sample.id, sample.question_id, sample.sampler, **fields)


def _read_step(reply: Completion, steps: int) -> dict[str, Any]:
    """The step that a reply names: after "Incorrect Step:", else the only one that it names, else its only number. So
    a reply that is a whole correction will do, too."""
    nothing: dict[str, Any] = {"reply": reply.text, "incorrect_step": None}
    if reply.finish in ("failed", "refused"):
        return {"status": "failed", "reason": reply.error, **nothing}
    labelled = _LABELLED.findall(reply.text)
    named = labelled[:1] or list(dict.fromkeys(_STEP_REPLY.findall(reply.text)))
    bare = _BARE.fullmatch(reply.text)
    found = [int(one) for one in named or (bare.groups() if bare else ())]
    if len(found) == 1 and 1 <= found[0] <= steps:
        return {"status": "parsed", "reason": None, "reply": reply.text, "incorrect_step": found[0]}
    if reply.finish == "length":
        return {"status": "truncated", "reason": "the reply was cut at max_tokens", **nothing}
    if len(found) == 1:
        return {"status": "malformed", "reason": f"names step {found[0]}, the path has steps 1 to {steps}", **nothing}
    return {"status": "malformed", "reason": "names no step" if not found else "names several steps", **nothing}
