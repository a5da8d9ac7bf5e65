"""Which variables each prompt of a recipe may use, and whether it keeps to them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lema.errors import Problem, allowed
from lema.recipe import prompt as prompts
from lema.recipe.basic_types import Part, Prompt
from lema.recipe.load import Draft, options_path
from lema.recipe.messages import dotted, problem_at, salvage
from lema.recipe.prompt import PromptError, Turn
from lema.recipe.sampler_schema import BranchSampler, ModelSampler, TypedSampler
from lema.recipe.yaml import KeyPath, Tree

COT = frozenset({"question", "steps", "answer"})
PATH = frozenset({"question", "path", "steps"})
SPOILT = PATH | {"error_type", "error"}
JUDGED = PATH | {"incorrect_step", "explanation", "solution", "answer", "gold", "rationale"}
CORRECTION = PATH | {"incorrect_step", "explanation", "solution", "full", "before", "wrong", "after", "answer"}
WRONG_STEP = "wrong"
HINTS = {"none": frozenset[str](), "answer": frozenset({"gold"}), "rationale": frozenset({"gold", "rationale"})}


@dataclass(frozen=True, slots=True)
class Use:
    """A prompt and what it is given: `asked` in the system's and user's turns, `answered` in the assistant's, None
    when the assistant's turn only serves demonstrations."""

    path: KeyPath
    prompt: Prompt
    asked: frozenset[str]
    answered: frozenset[str] | None = None


def uses(sections: dict[str, Any], hints: frozenset[str] | None = None) -> Iterator[Use]:
    """Every prompt of a recipe. The input of a training example never sees its answer. `hints` are what the
    corrector is shown when the recipe's own word on that cannot be read."""
    samples, corrections, mix, answers, base = (
        sections[key] for key in ("samples", "corrections", "mix", "answers", "base")
    )
    locations, evolved = sections["locations"], sections["evolved"]
    question = frozenset({"question"})
    for name, sampler in samples.samplers.items() if samples else ():
        if isinstance(sampler, ModelSampler):
            given = {TypedSampler: SPOILT, BranchSampler: PATH}.get(type(sampler), question)
            yield Use(("samples", "samplers", name, "prompt"), sampler.prompt, given)
    if locations:
        yield Use(("locations", "prompt"), locations.prompt, PATH | HINTS[locations.hint])
    if corrections:
        shown = HINTS[corrections.hint] if hints is None else hints
        located = frozenset({"incorrect_step"}) if locations else frozenset[str]()
        yield Use(("corrections", "prompt"), corrections.prompt, PATH | shown | located)
    if evolved:
        yield Use(("evolved", "write", "prompt"), evolved.write.prompt, question)
        yield Use(("evolved", "solve", "prompt"), evolved.solve.prompt, question)
    if mix:
        yield Use(("mix", "cot"), mix.cot, question, COT)
        written = (CORRECTION | {"rationale"}) - ({"explanation"} & set(corrections.without) if corrections else set())
        yield Use(("mix", "correction"), mix.correction, PATH, written)
        for name, arm in mix.arms.items():
            if arm.cot and arm.cot.format:
                yield Use(("mix", "arms", name, "cot", "format"), arm.cot.format, question, COT)
            if arm.corrections and arm.corrections.format:
                path = ("mix", "arms", name, "corrections", "format")
                yield Use(path, arm.corrections.format, PATH, written)
    if answers:
        yield Use(("answers", "prompt"), answers.prompt, question)
    if base and base.pretrain:
        yield Use(("base", "pretrain", "format"), base.pretrain.format, question, COT)
        if base.pretrain.corrections:
            place = ("base", "pretrain", "corrections", "format")
            yield Use(place, base.pretrain.corrections.format, PATH, CORRECTION)


def prompt_problems(draft: Draft) -> list[Problem]:
    """Everything that is wrong with the prompts of a recipe."""
    hint = draft.tree.find(("corrections", "hint"))
    unreadable = hint is not None and hint.value not in tuple(HINTS)
    found = (*uses(draft.sections, HINTS["rationale"] if unreadable else None), *_judges(draft))
    return [*(problem for use in found for problem in _use_problems(use, draft.tree)), *masks(draft)]


def masks(draft: Draft) -> Iterator[Problem]:
    """What is masked is written out by the format."""
    mix = draft.sections["mix"]
    for name, arm in mix.arms.items() if mix else ():
        rows = arm.corrections
        if rows and rows.masked and WRONG_STEP not in _written(rows.format or mix.correction):
            message = f"nothing to mask: the format of these rows does not write out `{WRONG_STEP}`, the incorrect step"
            yield problem_at(draft.tree, ("mix", "arms", name, "corrections", "masked"), message)


def _written(prompt: Prompt) -> frozenset[str]:
    try:
        return prompts.variables(prompt, "assistant")
    except PromptError:  # reported by its own place
        return frozenset({WRONG_STEP})


def _judges(draft: Draft) -> Iterator[Use]:
    """The prompts of filters."""
    filters = draft.tree.find(("verdicts", "filters"))
    for at, item in enumerate(filters.value if filters and isinstance(filters.value, list) else ()):
        part = salvage(item, Part)
        if part and "prompt" in part.options:
            path = (*options_path(draft.tree, ("verdicts", "filters", at)), "prompt")
            yield Use(path, part.options["prompt"], JUDGED)


def _use_problems(use: Use, tree: Tree) -> Iterator[Problem]:
    # A prompt that could not be read has been reported, and stands empty in the tree.
    if not use.prompt.user and tree.find((*use.path, "user")):
        return
    for turn in prompts.TURNS:
        if getattr(use.prompt, turn) is None:
            if turn == "assistant" and use.answered is not None:
                yield _turn_problem(use, tree, turn, "needs an `assistant` template: what the model learns to write")
            continue
        try:
            names = prompts.variables(use.prompt, turn)
        except PromptError as error:
            yield _turn_problem(use, tree, turn, error.message, error.line)
            continue
        may = use.answered if turn == "assistant" else use.asked
        for name in sorted(names - may) if may is not None else ():
            message = f"unknown variable {name!r}; {allowed(name, may or ())}"
            if use.path[0] in ("corrections", "locations") and name in HINTS["rationale"]:
                message += f" (`{name}` is given with `hint: {'answer' if name == 'gold' else 'rationale'}`)"
            elif use.path[0] == "corrections" and name == "incorrect_step":
                message += " (`incorrect_step` is given when the recipe has `locations`)"
            yield _turn_problem(use, tree, turn, message, prompts.line_of(getattr(use.prompt, turn), name))
    yield from _demonstrations(use, tree)


def _demonstrations(use: Use, tree: Tree) -> Iterator[Problem]:
    try:
        needed = prompts.variables(use.prompt, "user", "assistant")
    except PromptError:
        return
    for at, demonstration in enumerate(use.prompt.demonstrations):
        for name in sorted(needed - demonstration.keys()):
            path = (*use.path, "demonstrations", at)
            found = tree.find(path)
            if found:
                message = f"lacks the variable {name!r}; {allowed(name, demonstration)}"
                yield found.mark.problem(f"{dotted(path)}: {message}")


def _turn_problem(use: Use, tree: Tree, turn: Turn, message: str, line: int = 0) -> Problem:
    """A problem in a template, at its line in the file where the text is a block."""
    path = (*use.path, turn)
    found = tree.find(path)
    if found is None:
        whole = tree.find(use.path)
        return (whole.mark if whole else tree.mark).problem(f"{dotted(use.path)}: {message}")
    return found.mark.problem(f"{dotted(path)}: {message}", line)
