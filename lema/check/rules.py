"""What must hold within one recipe beyond its shape: RULES, each a generator of what it finds in a draft."""

import graphlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from lema.check import external_files
from lema.check.count_rules import count_rules, target_rules, wrong_path_rules
from lema.check.external_files import Found, asked_models
from lema.check.try_parts import positional_parameters
from lema.errors import Problem, allowed
from lema.filters import GIVEN
from lema.recipe.basic_types import Part
from lema.recipe.load import Draft, options_path
from lema.recipe.messages import problem_at, salvage
from lema.recipe.part_loader import PartError, PartKind, load_part, option_problems
from lema.recipe.sampler_schema import BranchSampler, InjectSampler, TypedSampler
from lema.recipe.yaml import KeyPath
from lema.tasks import Task

BASE = "base"
RESERVED_SETS = ("train", "dev", "test", BASE)  # names that scores give to sets of their own
# What our own backends cannot do without.
NEEDS: Mapping[str, tuple[str, ...]] = {"openai": ("name", "endpoint"), "transformers": ("name",), "vllm": ("name",)}


def task_rules(draft: Draft) -> Iterator[Found]:
    """Tasks exist; generators generate, with options that they know, as many records as the recipe says."""
    questions, source, base = (draft.sections[key] for key in ("questions", "source", "base"))
    if questions:
        yield from _task_problems(("questions", "task"), questions.task, None)
        if draft.sections["evolved"] and not _can_write(questions.task):
            yield Found(("evolved",), f"the task {questions.task} cannot write records of new questions", key=True)
    if source:
        yield from _generator(draft, ("source",), source, "train", "test")
    if base and base.pretrain:
        yield from _task_problems(("base", "pretrain", "task"), base.pretrain.task, base.pretrain.options)
    for name, one in (questions.transfer if questions else {}).items():
        path = ("questions", "transfer", name)
        if name in RESERVED_SETS:
            yield Found(path, f"`{name}` has a meaning of its own; give this set another name", key=True)
        yield from _task_problems((*path, "task"), one.task, None) if one.task else ()
        yield from _generator(draft, (*path, "source"), one.source, "test")
        if one.test is not None and one.source.test is not None and one.test > one.source.test:
            yield Found((*path, "test"), f"{one.test} questions, but its `source.test` keeps {one.source.test} records")
        if 0 in (one.test, one.source.test):
            yield Found(path, "needs at least 1 question", key=True)


def _generator(draft: Draft, path: KeyPath, source: Any, *splits: str) -> Iterator[Found]:
    if source.generator:
        yield from _task_problems((*path, "generator"), source.generator, source.options)
        for split in splits:
            if split not in draft.tree.keys(*path):
                yield Found(path, f"a generator never ends; say how many `{split}` records", key=True)


def _task_problems(path: KeyPath, name: str, options: Mapping[str, Any] | None) -> Iterator[Found]:
    """`options` are those of its generator, None where none is needed."""
    try:
        found = load_part("tasks", name)
    except PartError as error:
        yield Found(path, str(error))
        return
    if not isinstance(found, Task):
        yield Found(path, f"{name} is not a lema.tasks.Task")
    elif options is not None and found.generate is None:
        yield Found(path, f"the task {name} has no generator; see `lema ls tasks`")
    elif options is not None and found.generate is not None:
        place = (*path[:-1], "options")
        if wrong := list(_option_problems(place, found.generate, options)):
            yield from wrong
            return
        try:
            found.generate(**options)  # which may refuse them, before it makes anything
        except ValueError as error:
            yield Found(place, str(error))


def _can_write(name: str) -> bool:
    """Whether a task can write records; one that cannot be had is somebody else's problem."""
    try:
        task = load_part("tasks", name)
    except PartError:
        return True
    return not isinstance(task, Task) or task.write is not None


def part_rules(draft: Draft) -> Iterator[Found]:
    """Filters and backends exist, with options that they know; models have what their backend needs."""
    for path, item in draft.tree.items("verdicts", "filters"):
        part = salvage(item, Part)
        if part and part.use == "contamination":
            message = "judges every recipe as it is; `verdicts: {contamination: ...}` sets it, false turns it off"
            yield Found(path, f"{part.use} {message}")
        elif part:
            yield from _part_problems("filters", path, part.use, part.options, options_path(draft.tree, path), GIVEN)
    for name, model in (draft.sections["models"] or {}).items():
        place = ("models", name)
        if name == BASE:
            yield Found(place, "`base` is the student itself; give this model another name", key=True)
        yield from _part_problems("models", (*place, "backend"), model.backend, model.options, (*place, "options"))
        for need in NEEDS.get(model.backend, ()):
            if getattr(model, need) is None and model.adapter is None:
                yield Found(place, f"the backend {model.backend} needs `{need}`", key=True)


def _part_problems(
    kind: PartKind, path: KeyPath, name: str, options: Mapping[str, Any], place: KeyPath, given: Sequence[str] = ()
) -> Iterator[Found]:
    try:
        part = load_part(kind, name)
    except PartError as error:
        yield Found(path, str(error))
        return
    if not callable(part):
        yield Found(path, f"{name} cannot be called")
    # Of a filter with options by position its trial says what is wrong.
    elif kind != "filters" or ":" not in name or len(positional_parameters(part)) < 2:
        yield from _option_problems(place, part, options, given)


def _option_problems(
    path: KeyPath, part: Callable[..., Any], options: Mapping[str, Any], given: Sequence[str] = ()
) -> Iterator[Found]:
    for name, message in option_problems(part, options, given):
        yield Found((*path, name), message, key=message.startswith("unknown"))


def reference_rules(draft: Draft) -> Iterator[Found]:
    """Models and samplers that are named exist, and can do what is asked of them."""
    models, own = draft.tree.keys("models"), draft.sections["models"] or {}
    samplers = draft.tree.keys("samples", "samplers")
    for path, name in asked_models(draft):
        known = models if path[0] == "verdicts" else (*models, BASE)  # the student judges nothing
        if name not in known:
            yield Found(path, f"unknown model {name!r}; {allowed(name, known)}")
        elif path[0] != "samples" and name in own and own[name].adapter:  # DVC watches it for no other stage
            yield Found(path, "models with an adapter serve samplers only")
    for path, name in _begun_with(draft):
        derived = ("branch", "inject")
        others = [
            one
            for one in samplers
            if one not in ("", path[2]) and not {*derived} & {*draft.tree.keys("samples", "samplers", one)}
        ]
        if name not in others:
            said = "is no sampler whose paths others can be made of" if name in samplers else "is no sampler"
            yield Found(path, f"{name!r} {said}; {allowed(name, others)}")
    lists = [("corrections", "samplers"), ("locations", "samplers"), ("samples", "want", "samplers")]
    lists += [
        ("mix", "arms", arm, part, "samplers")
        for arm in draft.tree.keys("mix", "arms")
        for part in ("cot", "corrections")
    ]
    named = (item.value for _, item in draft.tree.items("corrections", "samplers"))
    corrected = {name for name in named if isinstance(name, str)} or set(samplers)
    for path, item in (found for where in lists for found in draft.tree.items(*where)):
        if isinstance(item.value, str) and item.value not in samplers:
            yield Found(path, f"unknown sampler {item.value!r}; {allowed(item.value, samplers)}")
        elif isinstance(item.value, str) and path[3:4] == ("corrections",) and item.value not in corrected:
            yield Found(path, f"nobody corrects paths of {item.value!r}; {allowed(item.value, corrected)}")


def _begun_with(draft: Draft) -> Iterator[tuple[KeyPath, str]]:
    """The samplers whose paths others are made of, each with the place where the recipe says so."""
    samples = draft.sections["samples"]
    for name, sampler in samples.samplers.items() if samples else ():
        if isinstance(sampler, BranchSampler):
            yield ("samples", "samplers", name, "branch", "of"), sampler.branch.of
        elif isinstance(sampler, InjectSampler | TypedSampler) and sampler.inject.of is not None:
            yield ("samples", "samplers", name, "inject", "of"), sampler.inject.of


def arm_rules(draft: Draft) -> Iterator[Found]:
    """Arms have names of their own, take something, and are sized by arms that exist, never in a circle."""
    mix, names = draft.sections["mix"], draft.tree.keys("mix", "arms")
    if BASE in names:
        message = "`base` is the model before fine-tuning; give this arm another name"
        yield Found(("mix", "arms", BASE), message, key=True)
    matches: dict[str, list[str]] = {}
    for name, arm in mix.arms.items() if mix else ():
        path = ("mix", "arms", name)
        for kind, rows in (("cot", arm.cot), ("corrections", arm.corrections)):
            if rows and rows.match is not None:
                matches.setdefault(name, []).append(rows.match)
                if rows.match not in names:
                    message = f"unknown arm {rows.match!r}; {allowed(rows.match, {*names} - {name})}"
                    yield Found((*path, kind, "rows" if rows.tokens is None else "tokens", "match"), message)
        if arm.cot and not (arm.cot.rationales or arm.cot.samplers or arm.cot.corrected):
            message = "takes nothing: `rationales` and `corrected` are false and `samplers` is empty"
            yield Found((*path, "cot"), message, key=True)
        if len(matches.get(name, ())) == 2:
            yield Found(path, "only one of cot and corrections can be sized by `match`", key=True)
    try:
        graphlib.TopologicalSorter(matches).prepare()
    except graphlib.CycleError as error:
        circle = error.args[1][:0:-1]  # each is sized by the next
        first = circle.index(min(circle))
        circle = [*circle[first:], *circle[: first + 1]]
        yield Found(("mix", "arms", circle[0]), f"is sized by itself: {' -> '.join(circle)}", key=True)


def corrector_rules(draft: Draft) -> Iterator[Found]:
    """Corrections without explanation are not dropped for that; the programmatic corrector has a gold rationale."""
    corrections, verdicts = draft.sections["corrections"], draft.sections["verdicts"]
    if corrections and verdicts and "explanation" in corrections.without:
        for part in verdicts.filters:
            if part.use == "has_fields" and "explanation" not in part.options.get("without", ()):
                message = "has_fields drops corrections without explanation: write "
                yield Found(("corrections", "without"), f"{message}`has_fields: {{without: [explanation]}}`")
    for section in ("locations", "corrections"):
        asked, models = draft.sections[section], draft.sections["models"] or {}
        if asked and asked.model in models and models[asked.model].backend == "reference" and asked.hint != "rationale":
            message = "the reference corrector compares a path with the gold rationale: say `hint: rationale`"
            yield Found((section, "hint"), message)


RULES: tuple[Callable[[Draft], Iterator[Found]], ...] = (
    *(task_rules, part_rules, reference_rules, arm_rules, corrector_rules),
    *(count_rules, wrong_path_rules, target_rules),
)


def rule_problems(draft: Draft, root: Path) -> Iterator[Problem]:
    """Everything that is wrong within a recipe, prompts apart."""
    found = (rule(draft) for rule in RULES)
    for one in chain(*found, external_files.file_rules(draft, root), external_files.round_rules(draft, root)):
        yield problem_at(draft.tree, one.path, one.message, key=one.key)
