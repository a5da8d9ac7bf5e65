"""`probe`: how likely every model holds a right and a wrong path of the same question to be (LEMA, figure 11).

The paper's figure shows that PPL(wrong path) - PPL(right path) is larger after learning from corrections.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from lema.errors import RunError
from lema.models.types import Model
from lema.recipe.basic_types import Prompt
from lema.recipe.prompt import render
from lema.recipe.training_schema import ProbeSpec
from lema.rows import Answer, Message, Probe, Question
from lema.stages.common import stable_shuffle, trained_models
from lema.text.render import render_solution
from lema.text.steps import split_steps

# (prompt, completion) pairs to (mean loss of a token in nats, tokens) each, None for what does not fit the model.
Losses = Callable[[Model, Sequence[tuple[Sequence[Message], str]]], list[tuple[float, int] | None]]


def probe(
    questions: Iterable[Question],
    base: Model,
    adapters: Mapping[str, Mapping[int, Model]],
    answers: Iterable[Answer],
    *,
    spec: ProbeSpec,
    prompt: Prompt,
    cot: Prompt,
    losses: Losses,
) -> Iterator[Probe]:
    """One row a question and model: test questions with a gold rationale that the base answers wrongly.

    The right path is the rationale in `cot`, the format of the CoT rows; the wrong one is the base's answer, the same
    for all models, so that models can be compared with one another. A base finds its own words likely, so its own
    figures say less than the differences between the arms. `prompt` is that of the answers.
    """
    if not spec.questions:
        return

    def base_mistakes() -> Iterator[tuple[str, str]]:
        for row in answers:
            if row.arm == "base" and row.kind == "single" and row.outcome == "incorrect" and row.text.strip():
                yield row.question_id, row.text.strip()

    missed = {name for name, _ in base_mistakes()}
    known = [one.id for one in questions if one.split == "test" and one.rationale]
    if not known:
        raise RunError("probe: no test question has a gold rationale, the right path that wrong ones are set against")
    drawn = stable_shuffle((name for name in known if name in missed), spec.seed, str)
    place = {name: at for at, name in enumerate(drawn[: spec.questions])}
    picked = sorted((one for one in questions if one.id in place), key=lambda question: place[question.id])
    wrong = {name: text for name, text in base_mistakes() if name in place}
    texts = [
        (render(prompt, {"question": question.text}), text)
        for question in picked
        for text in (
            render_solution(cot, question, split_steps(question.rationale or ""), question.gold),
            wrong[question.id],
        )
    ]
    for name, arm, seed, model in trained_models(base, adapters) if texts else ():
        found = losses(model, texts)
        for question, right, other in zip(picked, found[::2], found[1::2], strict=True):
            if right is not None and other is not None:
                yield Probe(f"{question.id}/{name}", question.id, arm, seed, right[0], other[0], right[1], other[1])
