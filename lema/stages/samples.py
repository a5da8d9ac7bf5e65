"""`samples`: paths, right and wrong, of all samplers for the training questions (LEMA, section 2.1)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from lema.errors import RunError
from lema.models import Completion, Model, Request
from lema.prompt import render
from lema.recipe import ImportSampler, ImportSpec, ModelSampler, SamplesSpec
from lema.rows import Question, Sample
from lema.stages import Generate, provenance, sampling, usage
from lema.steps import number

# Reads the rows of a file that an import sampler names.
ReadFile = Callable[[str], Iterable[Mapping[str, Any]]]


def samples(
    questions: Iterable[Question],
    base: Model,
    *,
    spec: SamplesSpec,
    models: Mapping[str, Model],
    generate: Generate,
    read_file: ReadFile,
) -> Iterator[Sample]:
    """One row a path. All samplers that ask a model are asked in one call, each at its own endpoint's pace."""
    train = [question for question in questions if question.split == "train"]
    known = {**models, "base": base}
    slots: list[tuple[Question, str, ModelSampler, int]] = []
    for name, sampler in spec.samplers.items():
        if isinstance(sampler, ImportSampler):
            yield from _imported(train, name, sampler.import_, read_file)
        else:
            slots += [(question, name, sampler, index) for question in train for index in range(sampler.paths)]
    requests = [_request(question, sampler, index, known) for question, _, sampler, index in slots]
    for (question, name, sampler, index), request, reply in zip(slots, requests, generate(requests), strict=True):
        yield _sample(question, name, index, reply, provenance(request, sampler.prompt))


def _request(question: Question, sampler: ModelSampler, index: int, models: Mapping[str, Model]) -> Request:
    messages = render(sampler.prompt, {"question": question.text})
    return Request(models[sampler.model], messages, sampling(sampler), index)


def _sample(question: Question, sampler: str, index: int, reply: Completion, origin: Mapping[str, Any]) -> Sample:
    return Sample(
        id=f"{question.id}/{sampler}/{index}",
        question_id=question.id,
        sampler=sampler,
        index=index,
        text=reply.text,
        finish=reply.finish,
        error=reply.error,
        **origin,
        **usage(reply),
    )


def _imported(train: Sequence[Question], sampler: str, spec: ImportSpec, read_file: ReadFile) -> Iterator[Sample]:
    """Paths of a file, each with the question of the same text; those of other questions are not ours to take."""
    ids = {" ".join(question.text.split()): question for question in train}
    taken: dict[str, int] = {}
    for place, row in enumerate(read_file(spec.file), start=1):
        for name in (spec.question, spec.path):
            if name not in row:
                raise RunError(f"samples: {spec.file}, row {place}: no field {name!r}; it has: {', '.join(row)}")
        question = ids.get(" ".join(str(row[spec.question]).split()))
        if question is None:
            continue
        path = row[spec.path]
        if not isinstance(path, str | list):
            raise RunError(f"samples: {spec.file}, row {place}: {spec.path!r} is neither a text nor a list of steps")
        text = path if isinstance(path, str) else number([str(step) for step in path])
        index = taken[question.id] = taken.get(question.id, -1) + 1
        reply = Completion(text, "stop")
        yield _sample(question, sampler, index, reply, {"model": "import", "prompt": "", "completion": ""})
    if not taken:
        raise RunError(f"samples: no row of {spec.file} belongs to a training question of this recipe")
