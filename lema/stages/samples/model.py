"""Paths that a model is asked for: the sampler `model`, and what samplers that build on other paths send."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from lema.correctors.inject import ERRORS
from lema.models.types import Completion, Model, Request
from lema.recipe.sampler_schema import ErrorType, ModelSampler
from lema.rows import Question, Sample, row_class
from lema.stages.common import GenerateFn, PromptedModel, complete, prompted_model
from lema.stages.stopping import PathKey
from lema.text.steps import first_difference, number_steps, split_steps


@row_class
class SourcePath:
    """A path that another is made of: the id of its sample, or of its question for a gold rationale."""

    origin: str
    steps: tuple[str, ...]


@row_class
class Slot:
    """A path that a model is asked for. One that is made of another path begins with its first steps, `kept`, or has
    the model spoil it by an error of a kind."""

    question: Question
    sampler: str
    spec: ModelSampler
    index: int
    source: SourcePath | None = None
    kept: tuple[str, ...] = ()
    error_type: ErrorType | None = None

    @property
    def key(self) -> PathKey:
        """What names the path, without the question's text."""
        return PathKey(self.question.id, self.sampler, self.index)


def model_slots(train: Iterable[Question], samplers: Mapping[str, ModelSampler]) -> Iterator[Slot]:
    """All paths of samplers that ask a model, in the order of their ids."""
    paths = [(name, spec, index) for name, spec in samplers.items() for index in range(spec.paths)]
    paths.sort(key=lambda path: f"{path[0]}/{path[2]}")
    return (Slot(question, *path) for question in train for path in paths)


def complete_slots(
    slots: Callable[[], Iterable[Slot]], models: Mapping[str, Model], base: Model, generate: GenerateFn
) -> Iterator[tuple[str, Sample]]:
    """The paths that models reply with, each after the gold answer of its question."""
    latest: tuple[Slot, Request] | None = None
    asked: dict[str, PromptedModel] = {}  # by sampler

    def request(slot: Slot) -> Request:
        nonlocal latest
        # The paths of a question, which come in a row, differ in the index alone.
        if latest and slot.source is None and latest[0].spec is slot.spec and latest[0].question is slot.question:
            made = latest[1]
            return Request(made.model, made.messages, made.sampling, slot.index, made.prompt)
        if slot.sampler not in asked:
            asked[slot.sampler] = prompted_model(slot.spec, models, base)
        latest = slot, asked[slot.sampler].request(_variables(slot), slot.index)
        return latest[1]

    for slot, name, reply in complete(slots, request, generate):
        yield slot.question.gold, _sample(slot, reply, asked[slot.sampler].origin(name, reply))


def _variables(slot: Slot) -> dict[str, Any]:
    variables: dict[str, Any] = {"question": slot.question.text}
    if slot.source is not None:
        steps = slot.source.steps if slot.error_type else slot.kept
        variables |= {"steps": list(steps), "path": number_steps(steps)}
    if slot.error_type is not None:
        variables |= {"error_type": slot.error_type, "error": ERRORS[slot.error_type]}
    return variables


def _sample(slot: Slot, reply: Completion, origin: Mapping[str, Any]) -> Sample:
    text, incorrect = reply.text, None
    if slot.source is not None and reply.finish in ("stop", "length"):
        steps = split_steps(reply.text)
        # A model that begins again has repeated the kept steps itself.
        if slot.kept and steps[: len(slot.kept)] != slot.kept:
            steps = (*slot.kept, *steps)
        text = number_steps(steps)
        incorrect = first_difference(steps, slot.source.steps) if slot.error_type else None
    return Sample(
        f"{slot.question.id}/{slot.sampler}/{slot.index}", slot.question.id, slot.sampler, slot.index, text,
        reply.finish, reply.error, **origin, origin=slot.source.origin if slot.source else None,
        error_type=slot.error_type, incorrect_step=incorrect,
    )  # fmt: skip
