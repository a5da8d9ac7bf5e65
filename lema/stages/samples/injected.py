"""The sampler `inject` without a model: right paths spoilt by program (`lema.correctors.inject`)."""

from collections.abc import Iterable, Iterator

from lema.correctors.inject import inject
from lema.recipe.sampler_schema import PROGRAM_ERRORS, InjectSampler
from lema.rows import Question, Sample
from lema.stages.grades import grade_text
from lema.stages.samples.source_paths import SourcePaths, path_random
from lema.tasks import Task
from lema.text.steps import number_steps


def injected_paths(
    train: Iterable[Question], name: str, sampler: InjectSampler, sources: SourcePaths, task: Task
) -> Iterator[tuple[str, Sample]]:
    """Spoilt paths, each after the gold answer; where no kind of error can be made, a row with the reason."""
    kinds = sampler.inject.errors or PROGRAM_ERRORS
    for question, index, path in sources.each(train, sampler.inject.of, sampler.paths):
        draw = path_random(sampler.seed, question, index)

        def is_wrong(text: str, gold: str = question.gold) -> bool:
            return grade_text(text, "stop", gold, task)[0] == "incorrect"

        found = inject(question.text, path.steps, draw.sample(kinds, len(kinds)), draw, is_wrong)
        sample = Sample(
            id=f"{question.id}/{name}/{index}",
            question_id=question.id,
            sampler=name,
            index=index,
            text=number_steps(found.steps) if found else "",
            finish="stop" if found else "failed",
            error=None if found else "no error of these kinds can be made in this path",
            model="injected",
            prompt="",
            completion="",
            prompt_tokens=0,
            completion_tokens=0,
            origin=path.origin,
            error_type=found.kind if found else None,
            incorrect_step=found.incorrect_step if found else None,
        )
        yield question.gold, sample
