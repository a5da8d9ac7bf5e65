"""`locations`: where each wrong path goes wrong, for correctors that can mend a mistake but not find it (Tyen et al.,
arXiv 2311.08516). Optional: a recipe without the key has none, and its corrector finds the step itself."""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from lema.models.types import Completion, Model, Request
from lema.recipe.schema import LocationsSpec
from lema.rows import Grade, Location, Question, Sample
from lema.stages.common import GenerateFn, complete, mistake_variables, prompted_model
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
    locator = prompted_model(spec, models, base)

    def wrong(known: bool) -> Iterator[tuple[Question, Sample]]:
        """The paths to locate a mistake in, those in which it is known or the others."""
        by_id, graded = SortedLookup(questions), SortedLookup(grades)
        for sample in samples:
            wanted = spec.samplers is None or sample.sampler in spec.samplers
            located = spec.known and sample.incorrect_step is not None
            if wanted and located == known and graded[sample.id].outcome == "incorrect":
                yield by_id[sample.question_id], sample

    def request(mistake: tuple[Question, Sample]) -> Request:
        return locator.request(mistake_variables(*mistake, spec.hint))

    for _, sample in wrong(known=True):
        origin = {"model": "injected", "prompt": "", "completion": "", "prompt_tokens": 0, "completion_tokens": 0}
        yield _location(sample, "parsed", None, sample.incorrect_step, reply="", **origin)
    for (_, sample), name, reply in complete(partial(wrong, known=False), request, generate):
        found = _read_step(reply, len(split_steps(sample.text)))
        yield _location(sample, *found, reply=reply.text, **locator.origin(name, reply))


def _location(sample: Sample, status: Any, reason: str | None, step: int | None, **more: Any) -> Location:
    return Location(
        sample.id, sample.question_id, sample.sampler, status=status, reason=reason, incorrect_step=step, **more
    )


def _read_step(reply: Completion, steps: int) -> tuple[str, str | None, int | None]:
    """Status, reason and the step that a reply names: after "Incorrect Step:", else the only one that it names, else
    its only number. So a reply that is a whole correction will do, too."""
    if reply.finish in ("failed", "refused"):
        return "failed", reply.error, None
    labelled = _LABELLED.findall(reply.text)
    named = labelled[:1] or list(dict.fromkeys(_STEP_REPLY.findall(reply.text)))
    bare = _BARE.fullmatch(reply.text)
    found = [int(one) for one in named or (bare.groups() if bare else ())]
    if len(found) == 1 and 1 <= found[0] <= steps:
        return "parsed", None, found[0]
    if reply.finish == "length":
        return "truncated", "the reply was cut at max_tokens", None
    if len(found) == 1:
        return "malformed", f"names step {found[0]}, the path has steps 1 to {steps}", None
    return "malformed", "names several steps" if found else "names no step", None
