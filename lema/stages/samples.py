"""`samples`: paths, right and wrong, of all samplers for the training questions (LEMA, section 2.1)."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from lema.correctors.inject import ERRORS, inject
from lema.errors import RunError
from lema.models.types import Completion, Model, Request
from lema.recipe.prompt import digest, render
from lema.recipe.sampler_schema import (
    ALL_ERRORS,
    PROGRAM_ERRORS,
    BranchSampler,
    ImportSampler,
    ImportSpec,
    InjectSampler,
    ModelSampler,
    SamplesSpec,
    TypedSampler,
)
from lema.rows import Question, Sample, row_class
from lema.stages.common import Generate, complete, sampling_parameters
from lema.stages.grades import grade_text
from lema.stages.stopping import rounds
from lema.tasks import Task
from lema.text.final_answer import answer_sentence, drop_answer_step
from lema.text.records import text_field
from lema.text.steps import first_difference, number_steps, split_steps

# Reads the rows of a file that an import sampler names.
ReadFile = Callable[[str], Iterable[Mapping[str, Any]]]


@row_class
class _Path:
    """A path that another is made of: the id of its sample, or of its question for a gold rationale."""

    origin: str
    steps: tuple[str, ...]


@row_class
class _Slot:
    """A path that a model is asked for. Those made of another path keep its first steps, as `kept`, or are told to
    spoil all of it by an error of a kind."""

    question: Question
    sampler: str
    spec: ModelSampler
    index: int
    path: _Path | None = None
    kept: tuple[str, ...] = ()
    error_type: str | None = None


def samples(
    questions: Iterable[Question],
    base: Model,
    *,
    spec: SamplesSpec,
    task: Task,
    models: Mapping[str, Model],
    generate: Generate,
    read_file: ReadFile,
    say: Callable[[str], None],
) -> Iterator[Sample]:
    """One row a path. All samplers that ask a model are asked in one call, each at its own endpoint's pace; those
    that begin with the path of another sampler in a second one. With `want`, a call becomes rounds, until there are
    enough wrong paths (`_enough`); where there are not, `say` tells how many there are."""
    train = [question for question in questions if question.split == "train"]
    gold = {question.id: question.gold for question in train}
    known = {**models, "base": base}
    wrong: Counter[str] = Counter()

    def counted(rows: Iterable[Sample]) -> Iterator[Sample]:
        for row in rows:
            if spec.want and spec.want.counts(row.sampler):
                wrong[row.question_id] += (
                    grade_text(row.text, row.finish, gold[row.question_id], task)[0] == "incorrect"
                )
            yield row

    def asked(slots: Sequence[_Slot]) -> Iterator[Sample]:
        for due in rounds(slots, spec.want, wrong):
            yield from counted(_asked(due, known, generate))

    made: list[Sample] = []
    paths: list[tuple[str, ModelSampler, int]] = []
    for name, sampler in spec.samplers.items():
        if isinstance(sampler, ImportSampler):
            made += counted(_imported(train, name, sampler.import_, read_file))
        elif type(sampler) is ModelSampler:
            paths += [(name, sampler, index) for index in range(sampler.paths)]
    yield from made
    # In the order of the ids: rows that come in it are written as they come.
    paths.sort(key=lambda path: f"{path[0]}/{path[2]}")
    derived = spec.derived
    for row in asked([_Slot(question, *path) for question in train for path in paths]):
        if derived:
            made.append(row)
        yield row
    slots: list[_Slot] = []
    for name, sampler in spec.samplers.items():
        if isinstance(sampler, InjectSampler):
            yield from counted(_injected(train, name, sampler, made, task))
        elif isinstance(sampler, TypedSampler):
            slots += _typed(train, name, sampler, made, task)
        elif isinstance(sampler, BranchSampler):
            slots += _branches(train, name, sampler, made, task)
    yield from asked(slots)
    if spec.want and spec.want.in_all and wrong.total() < spec.want.in_all:
        say(f"wanted {spec.want.in_all:,} wrong paths, got {wrong.total():,}: there are no more paths to ask for")


def _asked(slots: Sequence[_Slot], models: Mapping[str, Model], generate: Generate) -> Iterator[Sample]:
    specs = {slot.sampler: slot.spec for slot in slots}
    origins = {name: digest(spec.prompt) for name, spec in specs.items()}
    last: tuple[_Slot, Request] | None = None

    def request(slot: _Slot) -> Request:
        nonlocal last
        # The paths of a question, which come in a row, differ in the index alone.
        if last and slot.path is None and last[0].spec is slot.spec and last[0].question is slot.question:
            asked = last[1]
            return Request(asked.model, asked.messages, asked.sampling, slot.index, asked.prompt)
        last = slot, _request(slot, models, origins[slot.sampler])
        return last[1]

    for slot, name, reply in complete(lambda: slots, request, generate):
        yield _sample(slot, reply, models[slot.spec.model].identity, origins[slot.sampler], name)


def _request(slot: _Slot, models: Mapping[str, Model], origin: str) -> Request:
    variables: dict[str, Any] = {"question": slot.question.text}
    if slot.path is not None:
        steps = slot.path.steps if slot.error_type else slot.kept
        variables |= {"steps": list(steps), "path": number_steps(steps)}
    if slot.error_type is not None:
        variables |= {"error_type": slot.error_type, "error": ERRORS[slot.error_type]}  # type: ignore[index]
    messages = render(slot.spec.prompt, variables)
    return Request(models[slot.spec.model], messages, sampling_parameters(slot.spec), slot.index, origin)


def _sample(slot: _Slot, reply: Completion, model: str, prompt: str, name: str) -> Sample:
    text, incorrect = reply.text, None
    if slot.path is not None and reply.finish in ("stop", "length"):
        steps = split_steps(reply.text)
        # A model that begins again has said the kept steps itself.
        if slot.kept and steps[: len(slot.kept)] != slot.kept:
            steps = (*slot.kept, *steps)
        text = number_steps(steps)
        incorrect = first_difference(steps, slot.path.steps) if slot.error_type else None
    return Sample(
        id=f"{slot.question.id}/{slot.sampler}/{slot.index}",
        question_id=slot.question.id,
        sampler=slot.sampler,
        index=slot.index,
        text=text,
        finish=reply.finish,
        error=reply.error,
        model=model,
        prompt=prompt,
        completion=name,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        origin=slot.path.origin if slot.path else None,
        error_type=slot.error_type,
        incorrect_step=incorrect,
    )


def _right(question: Question, sampler: str | None, made: Sequence[Sample], task: Task, outcome: str) -> list[_Path]:
    """The paths of a question that others are made of: the gold rationale, or a sampler's, right ones or any."""
    if sampler is None:
        steps = (*split_steps(question.rationale or ""), answer_sentence(question.gold))
        return [_Path(question.id, steps)] if question.rationale else []
    return [
        _Path(row.id, split_steps(row.text))
        for row in made
        if row.sampler == sampler and row.question_id == question.id and row.finish == "stop" and row.text.strip()
        if outcome == "any" or grade_text(row.text, row.finish, question.gold, task)[0] == "correct"
    ]


def _sources(
    train: Sequence[Question], of: str | None, made: Sequence[Sample], task: Task, outcome: str, paths: int
) -> Iterator[tuple[Question, int, _Path]]:
    """Question, index and source of every path that is to be made of another; the sources are taken in turn."""
    by_question: dict[str, list[Sample]] = {}
    for row in sorted(made, key=lambda row: row.index):
        by_question.setdefault(row.question_id, []).append(row)
    for question in train:
        found = _right(question, of, by_question.get(question.id, ()), task, outcome)
        yield from ((question, index, found[index % len(found)]) for index in range(paths if found else 0))


def _draw(seed: int, question: Question, index: int) -> random.Random:
    return random.Random(f"{seed}:{question.id}:{index}")


def _injected(
    train: Sequence[Question], name: str, sampler: InjectSampler, made: Sequence[Sample], task: Task
) -> Iterator[Sample]:
    """Paths spoilt by program; where no kind of error can be made, a row that says so."""
    kinds = sampler.inject.errors or PROGRAM_ERRORS
    for question, index, path in _sources(train, sampler.inject.of, made, task, "correct", sampler.paths):
        draw = _draw(sampler.seed, question, index)

        def wrong(text: str, gold: str = question.gold) -> bool:
            return grade_text(text, "stop", gold, task)[0] == "incorrect"

        found = inject(question.text, path.steps, draw.sample(kinds, len(kinds)), draw, wrong)
        error = None if found else "no error of these kinds can be made in this path"
        yield Sample(
            id=f"{question.id}/{name}/{index}",
            question_id=question.id,
            sampler=name,
            index=index,
            text=number_steps(found.steps) if found else "",
            finish="stop" if found else "failed",
            error=error,
            model="injected",
            prompt="",
            completion="",
            prompt_tokens=0,
            completion_tokens=0,
            origin=path.origin,
            error_type=found.kind if found else None,
            incorrect_step=found.incorrect_step if found else None,
        )


def _typed(
    train: Sequence[Question], name: str, sampler: TypedSampler, made: Sequence[Sample], task: Task
) -> Iterator[_Slot]:
    """Right paths that a model spoils, each by an error of a kind drawn by seed."""
    kinds = sampler.inject.errors or ALL_ERRORS
    for question, index, path in _sources(train, sampler.inject.of, made, task, "correct", sampler.paths):
        kind = _draw(sampler.seed, question, index).choice(kinds)
        yield _Slot(question, name, sampler, index, path, error_type=kind)


def _branches(
    train: Sequence[Question], name: str, sampler: BranchSampler, made: Sequence[Sample], task: Task
) -> Iterator[_Slot]:
    """Beginnings of paths; the last step before the answer is never kept, so that something is left to go wrong."""
    of, outcome = sampler.branch.of, sampler.branch.outcome
    for question, index, path in _sources(train, of, made, task, outcome, sampler.paths):
        steps = drop_answer_step(path.steps)
        kept = steps[: _draw(sampler.seed, question, index).randrange(max(1, len(steps)))]
        yield _Slot(question, name, sampler, index, path, kept=kept)


def _imported(train: Sequence[Question], sampler: str, spec: ImportSpec, read_file: ReadFile) -> Iterator[Sample]:
    """Paths of a file, each with the question of the same text; those of other questions are not ours to take."""
    ids = {" ".join(question.text.split()): question for question in train}
    taken: dict[str, int] = {}
    for place, row in enumerate(read_file(spec.file), start=1):
        where = f"samples: {spec.file}, row {place}"
        question = ids.get(" ".join(text_field(row, spec.question, where=where).split()))
        if question is None:
            continue
        path = row.get(spec.path)
        steps = [str(step) for step in path] if isinstance(path, list) else None
        text = number_steps(steps) if steps else text_field(row, spec.path, where=where)
        index = taken[question.id] = taken.get(question.id, -1) + 1
        yield Sample(
            f"{question.id}/{sampler}/{index}", question.id, sampler, index, text, "stop", None, "import", "", "", 0, 0
        )
    if not taken:
        raise RunError(f"samples: no row of {spec.file} belongs to a training question of this recipe")
