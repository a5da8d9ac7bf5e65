"""`samples`: paths, right and wrong, of all samplers for the training questions (LEMA, section 2.1)."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

from lema.models.types import Model
from lema.recipe.sampler_schema import (
    BranchSampler,
    ImportSampler,
    InjectSampler,
    ModelSampler,
    SamplesSpec,
    TypedSampler,
)
from lema.rows import Question, Sample
from lema.stages.common import GenerateFn
from lema.stages.grades import grade_text
from lema.stages.samples.derived import SourcePaths, derived_slots, injected_paths
from lema.stages.samples.imported import imported_paths
from lema.stages.samples.model import Slot, complete_slots, model_slots
from lema.stages.stopping import PathKey, rounds
from lema.tasks import Task
from lema.text.record_files import ReadFile
from lema.text.record_files import read_file as read_record_file


def samples(
    questions: Iterable[Question],
    base: Model,
    *,
    spec: SamplesSpec,
    task: Task,
    models: Mapping[str, Model],
    generate: GenerateFn,
    log: Callable[[str], None],
    read_file: ReadFile = read_record_file,
) -> Iterator[Sample]:
    """One row a path. All samplers that ask a model are asked in one call, each at its own endpoint's pace; those
    that begin with the path of another sampler in a second one. With `want`, a call becomes rounds, until there are
    enough wrong paths (`lema.stages.stopping`); where there are not, `log` gets their number."""
    wrong: Counter[str] = Counter()
    sources = SourcePaths(spec, task)

    def train() -> Iterator[Question]:
        return (question for question in questions if question.split == "train")

    def recorded(rows: Iterable[tuple[str, Sample]]) -> Iterator[Sample]:
        """Paths, of each of which the gold answer is given; wrong ones are counted, sources of others are kept."""
        for gold, row in rows:
            if spec.want and spec.want.counts(row.sampler):
                wrong[row.question_id] += grade_text(row.text, row.finish, gold, task)[0] == "incorrect"
            sources.add(row, gold)
            yield row

    def completed(slots: Callable[[], Iterable[Slot]]) -> Iterator[Sample]:
        if spec.want is None:
            yield from recorded(complete_slots(slots, models, base, generate))
            return
        for due in map(frozenset, rounds([slot.key for slot in slots()], spec.want, wrong)):
            yield from recorded(complete_slots(partial(_chosen, slots, due), models, base, generate))

    def derived() -> Iterator[Slot]:
        for name, sampler in spec.samplers.items():
            if isinstance(sampler, TypedSampler | BranchSampler):
                yield from derived_slots(train(), name, sampler, sources)

    for name, sampler in spec.samplers.items():
        if isinstance(sampler, ImportSampler):
            yield from recorded(imported_paths(train(), name, sampler.import_, read_file))
    asked = {name: sampler for name, sampler in spec.samplers.items() if type(sampler) is ModelSampler}
    if asked:
        yield from completed(lambda: model_slots(train(), asked))
    for name, sampler in spec.samplers.items():
        if isinstance(sampler, InjectSampler):
            yield from recorded(injected_paths(train(), name, sampler, sources, task))
    if any(isinstance(sampler, TypedSampler | BranchSampler) for sampler in spec.samplers.values()):
        yield from completed(derived)
    if spec.want and spec.want.in_all and wrong.total() < spec.want.in_all:
        log(f"wanted {spec.want.in_all:,} wrong paths, got {wrong.total():,}: there are no more paths to ask for")


def _chosen(slots: Callable[[], Iterable[Slot]], keys: frozenset[PathKey]) -> Iterator[Slot]:
    return (slot for slot in slots() if slot.key in keys)
