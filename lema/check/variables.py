"""Which variables each prompt of a recipe may use, and whether it keeps to them."""

from collections.abc import Iterator
from dataclasses import dataclass

from lema.errors import Problem, allowed
from lema.recipe import prompt as prompts
from lema.recipe.basic_types import Prompt
from lema.recipe.load import Draft, prompt_places
from lema.recipe.messages import dotted, problem_at, salvage
from lema.recipe.prompt import PromptError, Turn
from lema.recipe.yaml import KeyPath, Tree

COT = frozenset({"question", "steps", "answer"})
PATH = frozenset({"question", "path", "steps"})
SPOILT = PATH | {"error_type", "error"}
JUDGED = PATH | {"incorrect_step", "explanation", "solution", "answer", "gold", "rationale"}
CORRECTION = PATH | {"incorrect_step", "explanation", "solution", "full", "before", "wrong", "after", "answer"}
WRONG_STEP = "wrong"
PLAIN = frozenset({"question"})
HINTS = {"none": frozenset[str](), "answer": frozenset({"gold"}), "rationale": frozenset({"gold", "rationale"})}
Names = frozenset[str]


@dataclass(frozen=True, slots=True)
class Use:
    """A prompt and what it is given: `asked` in the system's and user's turns, `answered` in the assistant's, None
    when the assistant's turn only serves demonstrations."""

    path: KeyPath
    prompt: Prompt
    asked: Names
    answered: Names | None = None


def prompt_problems(draft: Draft) -> Iterator[Problem]:
    """Everything that is wrong with the prompts of a recipe."""
    for path in prompt_places(draft.tree):
        found = draft.tree.find(path)
        if found and (prompt := salvage(found, Prompt)):
            yield from _use_problems(Use(path, prompt, *given_variables(path, draft.tree)), draft.tree)
    yield from masks(draft)


def given_variables(path: KeyPath, tree: Tree) -> tuple[Names, Names | None]:
    """What the prompt at a path is given, see `Use`. The input of a training example never sees its answer."""
    match path:
        case ("samples", "samplers", name, _):
            kind = tree.keys("samples", "samplers", name)
            return SPOILT if "inject" in kind else PATH if "branch" in kind else PLAIN, None
        case ("locations" | "corrections" as section, _):
            hint = tree.find((section, "hint"))
            # One that cannot be read is reported by its own place.
            shown = HINTS.get(str(hint.value) if hint else "none", HINTS["rationale"])
            located = section == "corrections" and tree.find(("locations",))
            return PATH | shown | ({"incorrect_step"} if located else frozenset()), None
        case ("mix", "cot") | ("mix", "arms", _, "cot", _) | ("base", "pretrain", "format"):
            return PLAIN, COT
        case ("mix", *_):
            left_out = [item.value for _, item in tree.items("corrections", "without")]
            return PATH, (CORRECTION | {"rationale"}) - ({"explanation"} if "explanation" in left_out else frozenset())
        case ("base", *_):
            return PATH, CORRECTION
        case ("verdicts", *_):
            return JUDGED, None
    return PLAIN, None  # of answers, and of questions that evolve


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
