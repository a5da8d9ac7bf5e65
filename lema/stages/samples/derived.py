"""Samplers that make paths of others: `branch` has a model go on from the first steps of another sampler's path,
`inject` has a right path spoilt, by program (`lema.correctors.inject`) or by a model that is told the kind of error."""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator

from lema.correctors.inject import inject
from lema.recipe.sampler_schema import (
    ALL_ERRORS,
    PROGRAM_ERRORS,
    BranchSampler,
    InjectSampler,
    SamplesSpec,
    TypedSampler,
)
from lema.rows import Question, Sample
from lema.stages.grades import grade_text
from lema.stages.samples.model import Slot, SourcePath
from lema.tasks import Task
from lema.text.final_answer import answer_sentence, drop_answer_step
from lema.text.steps import number_steps, split_steps


class SourcePaths:
    """Keeps the paths of samplers that others build on; of a recipe without such samplers none."""

    def __init__(self, spec: SamplesSpec, task: Task) -> None:
        self._task = task
        samplers = spec.samplers.values()
        self._used: set[str | None] = {one.branch.of for one in samplers if isinstance(one, BranchSampler)}
        self._used |= {one.inject.of for one in samplers if isinstance(one, InjectSampler | TypedSampler)}
        # By sampler and question: index, path, and whether it is right.
        self._paths = defaultdict[tuple[str, str], list[tuple[int, SourcePath, bool]]](list)

    def add(self, row: Sample, gold: str) -> None:
        """Keep a path if others are made of it."""
        if row.sampler in self._used and row.finish == "stop" and row.text.strip():
            right = grade_text(row.text, row.finish, gold, self._task)[0] == "correct"
            path = SourcePath(row.id, split_steps(row.text))
            self._paths[row.sampler, row.question_id].append((row.index, path, right))

    def each(
        self,
        train: Iterable[Question],
        sampler: str | None,
        spec: BranchSampler | InjectSampler | TypedSampler,
        outcome: str = "correct",
    ) -> Iterator[tuple[Question, int, SourcePath, random.Random]]:
        """Question, index and source of every path that is to be made of another, with random numbers that depend on
        no other path; the sources are taken in turn.

        They are the right paths of a sampler, or with the outcome "any" all of them; gold rationales for None.
        """
        for question in train:
            if sampler is None:
                steps = (*split_steps(question.rationale or ""), answer_sentence(question.gold))
                found = [SourcePath(question.id, steps)] if question.rationale else []
            else:
                known = sorted(self._paths.get((sampler, question.id), ()), key=lambda entry: entry[0])
                found = [path for _, path, right in known if right or outcome == "any"]
            for index in range(spec.paths if found else 0):
                draw = random.Random(f"{spec.seed}:{question.id}:{index}")
                yield question, index, found[index % len(found)], draw


def derived_slots(
    train: Iterable[Question], name: str, sampler: BranchSampler | TypedSampler, sources: SourcePaths
) -> Iterator[Slot]:
    """The paths that a model is asked for; of those that are branched off, the last step before the answer is never
    kept, so that something is left to go wrong."""
    if isinstance(sampler, BranchSampler):
        for question, index, path, draw in sources.each(train, sampler.branch.of, sampler, sampler.branch.outcome):
            steps = drop_answer_step(path.steps)
            yield Slot(question, name, sampler, index, path, kept=steps[: draw.randrange(max(1, len(steps)))])
    else:
        for question, index, path, draw in sources.each(train, sampler.inject.of, sampler):
            kind = draw.choice(sampler.inject.errors or ALL_ERRORS)
            yield Slot(question, name, sampler, index, path, error_type=kind)


def injected_paths(
    train: Iterable[Question], name: str, sampler: InjectSampler, sources: SourcePaths, task: Task
) -> Iterator[tuple[str, Sample]]:
    """Spoilt paths, each after the gold answer; where no kind of error can be made, a row with the reason."""
    kinds = sampler.inject.errors or PROGRAM_ERRORS
    for question, index, path, draw in sources.each(train, sampler.inject.of, sampler):

        def is_wrong(text: str, gold: str = question.gold) -> bool:
            return grade_text(text, "stop", gold, task)[0] == "incorrect"

        found = inject(question.text, path.steps, draw.sample(kinds, len(kinds)), draw, is_wrong)
        sample = Sample(
            f"{question.id}/{name}/{index}", question.id, name, index,
            text=number_steps(found.steps) if found else "",
            finish="stop" if found else "failed",
            error=None if found else "no error of these kinds can be made in this path",
            model="injected", prompt="", completion="", prompt_tokens=0, completion_tokens=0,
            origin=path.origin,
            error_type=found.kind if found else None,
            incorrect_step=found.incorrect_step if found else None,
        )  # fmt: skip
        yield question.gold, sample
