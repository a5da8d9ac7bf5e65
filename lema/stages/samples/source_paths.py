"""Paths that others are made of: gold rationales, and the paths of other samplers."""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator

from lema.recipe.sampler_schema import BranchSampler, InjectSampler, SamplesSpec, TypedSampler
from lema.rows import Question, Sample, row_class
from lema.stages.grades import grade_text
from lema.tasks import Task
from lema.text.final_answer import answer_sentence
from lema.text.steps import split_steps


@row_class
class SourcePath:
    """A path that another is made of: the id of its sample, or of its question for a gold rationale."""

    origin: str
    steps: tuple[str, ...]


class SourcePaths:
    """Keeps the paths of samplers that others build on; of a recipe without such samplers none."""

    def __init__(self, spec: SamplesSpec, task: Task) -> None:
        self._task = task
        self._used = {_built_on(sampler) for sampler in spec.samplers.values()} - {None}
        # By sampler and question: index, path, and whether it is right.
        self._paths = defaultdict[tuple[str, str], list[tuple[int, SourcePath, bool]]](list)

    def add(self, row: Sample, gold: str) -> None:
        """Keep a path if others are made of it."""
        if row.sampler in self._used and row.finish == "stop" and row.text.strip():
            right = grade_text(row.text, row.finish, gold, self._task)[0] == "correct"
            self._paths[row.sampler, row.question_id].append(
                (row.index, SourcePath(row.id, split_steps(row.text)), right)
            )

    def each(
        self, train: Iterable[Question], sampler: str | None, paths: int, outcome: str = "correct"
    ) -> Iterator[tuple[Question, int, SourcePath]]:
        """Question, index and source of every path that is to be made of another; the sources are taken in turn.

        They are the right paths of a sampler, or with the outcome "any" all of them; gold rationales for None.
        """
        for question in train:
            found = self._of(question, sampler, outcome)
            yield from ((question, index, found[index % len(found)]) for index in range(paths if found else 0))

    def _of(self, question: Question, sampler: str | None, outcome: str) -> list[SourcePath]:
        if sampler is None:
            steps = (*split_steps(question.rationale or ""), answer_sentence(question.gold))
            return [SourcePath(question.id, steps)] if question.rationale else []
        known = sorted(self._paths.get((sampler, question.id), ()), key=lambda entry: entry[0])
        return [path for _, path, right in known if right or outcome == "any"]


def _built_on(sampler: object) -> str | None:
    """The sampler that another builds on."""
    if isinstance(sampler, BranchSampler):
        return sampler.branch.of
    return sampler.inject.of if isinstance(sampler, InjectSampler | TypedSampler) else None


def path_random(seed: int, question: Question, index: int) -> random.Random:
    """Random numbers of one path, which depend on no other path."""
    return random.Random(f"{seed}:{question.id}:{index}")
