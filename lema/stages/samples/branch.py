"""The sampler `branch`: a model goes on from the first steps of another sampler's path."""

from collections.abc import Iterable, Iterator

from lema.recipe.sampler_schema import BranchSampler
from lema.rows import Question
from lema.stages.samples.model import Slot
from lema.stages.samples.source_paths import SourcePaths, path_random
from lema.text.final_answer import drop_answer_step


def branch_slots(train: Iterable[Question], name: str, sampler: BranchSampler, sources: SourcePaths) -> Iterator[Slot]:
    """The paths to ask for; the last step before the answer is never kept, so that something is left to go wrong."""
    of, outcome = sampler.branch.of, sampler.branch.outcome
    for question, index, path in sources.each(train, of, sampler.paths, outcome):
        steps = drop_answer_step(path.steps)
        kept = steps[: path_random(sampler.seed, question, index).randrange(max(1, len(steps)))]
        yield Slot(question, name, sampler, index, path, kept=kept)
