"""The sampler `inject` with a model: right paths that a model spoils, each by an error of a kind drawn by seed."""

from collections.abc import Iterable, Iterator

from lema.recipe.sampler_schema import ALL_ERRORS, TypedSampler
from lema.rows import Question
from lema.stages.samples.model import Slot
from lema.stages.samples.source_paths import SourcePaths, path_random


def typed_slots(train: Iterable[Question], name: str, sampler: TypedSampler, sources: SourcePaths) -> Iterator[Slot]:
    """The paths to ask for."""
    kinds = sampler.inject.errors or ALL_ERRORS
    for question, index, path in sources.each(train, sampler.inject.of, sampler.paths):
        kind = path_random(sampler.seed, question, index).choice(kinds)
        yield Slot(question, name, sampler, index, path, error_type=kind)
