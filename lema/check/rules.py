"""What must hold within one recipe beyond its shape: its parts exist, its names meet, its files are there."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lema.check import external_files
from lema.check.external_files import Found, asked_models
from lema.errors import Problem, allowed
from lema.filters import GIVEN
from lema.recipe import part_loader
from lema.recipe.basic_types import Part
from lema.recipe.load import Draft, options_path
from lema.recipe.messages import problem_at, salvage
from lema.recipe.sampler_schema import BranchSampler, InjectSampler, TypedSampler
from lema.recipe.yaml import KeyPath, Tree
from lema.tasks import Task

BASE = "base"
# What our own backends cannot do without.
NEEDS: Mapping[str, tuple[str, ...]] = {"openai": ("name", "endpoint"), "transformers": ("name",), "vllm": ("name",)}


def problems(draft: Draft, root: Path) -> list[Problem]:
    """Everything that is wrong within a recipe, prompts apart."""
    rules: Iterable[Iterator[Found]] = (
        *(tasks(draft), filters(draft), backends(draft), references(draft), adapters(draft), arms(draft)),
        *(
            counts(draft),
            hints(draft),
            explanations(draft),
            external_files.files(draft, root),
            external_files.rounds(draft, root),
        ),
    )
    return [problem_at(draft.tree, found.path, found.message, key=found.key) for rule in rules for found in rule]


def tasks(draft: Draft) -> Iterator[Found]:
    """Tasks exist; generators generate, with options that they know."""
    questions, source, base = (draft.sections[key] for key in ("questions", "source", "base"))
    if questions:
        yield from task(("questions", "task"), questions.task, None)
        if draft.sections["evolved"] and not _writes(questions.task):
            yield Found(("evolved",), f"the task {questions.task} cannot write records of new questions", key=True)
    if source and source.generator:
        yield from task(("source", "generator"), source.generator, source.options)
        for split in ("train", "test"):
            if split not in draft.tree.keys("source"):
                yield Found(("source",), f"a generator never ends; say how many `{split}` records", key=True)
    if base and base.pretrain:
        yield from task(("base", "pretrain", "task"), base.pretrain.task, base.pretrain.options)


def task(path: KeyPath, name: str, options: Mapping[str, Any] | None) -> Iterator[Found]:
    """`options` are those of its generator, None where none is needed."""
    try:
        found = part_loader.load_part("tasks", name)
    except part_loader.PartError as error:
        yield Found(path, str(error))
        return
    if not isinstance(found, Task):
        yield Found(path, f"{name} is not a lema.tasks.Task")
    elif options is not None and found.generate is None:
        yield Found(path, f"the task {name} has no generator; see `lema ls tasks`")
    elif options is not None and found.generate is not None:
        place = (*path[:-1], "options")
        wrong = list(_options(place, found.generate, options))
        yield from wrong or _refused(place, found.generate, options)


def _writes(name: str) -> bool:
    """Whether a task can write records; one that cannot be had is somebody else's problem."""
    try:
        return getattr(part_loader.load_part("tasks", name), "write", None) is not None
    except part_loader.PartError:
        return True


def _refused(path: KeyPath, generate: Callable[..., Any], options: Mapping[str, Any]) -> Iterator[Found]:
    """A generator may refuse options when it is called, before it makes anything."""
    try:
        generate(**options)
    except ValueError as error:
        yield Found(path, str(error))


def _options(
    path: KeyPath, part: Callable[..., Any], options: Mapping[str, Any], given: Sequence[str] = ()
) -> Iterator[Found]:
    for name, message in part_loader.option_problems(part, options, given):
        yield Found((*path, name), message, key=message.startswith("unknown"))


def filters(draft: Draft) -> Iterator[Found]:
    """Filters exist, with options that they know; `contamination` has a key of its own."""
    for path, item in _items(draft, ("verdicts", "filters")):
        part = salvage(item, Part)
        if part and part.use == "contamination":
            message = "judges every recipe as it is; `verdicts: {contamination: ...}` sets it, false turns it off"
            yield Found(path, f"{part.use} {message}")
        elif part:
            yield from _part("filters", path, part.use, part.options, options_path(draft.tree, path), GIVEN)


def _items(draft: Draft, path: KeyPath) -> Iterator[tuple[KeyPath, Tree]]:
    """The entries of a list as they stand in the file, each with its path."""
    found = draft.tree.find(path)
    items = found.value if found and isinstance(found.value, list) else []
    yield from (((*path, at), item) for at, item in enumerate(items))


def backends(draft: Draft) -> Iterator[Found]:
    """Backends exist, with options that they know; models have what their backend needs."""
    for name, model in (draft.sections["models"] or {}).items():
        path = ("models", name)
        if name == BASE:
            yield Found(path, "`base` is the student itself; give this model another name", key=True)
        yield from _part("models", (*path, "backend"), model.backend, model.options, (*path, "options"))
        for need in NEEDS.get(model.backend, ()):
            if getattr(model, need) is None and model.adapter is None:
                yield Found(path, f"the backend {model.backend} needs `{need}`", key=True)


def _part(
    kind: part_loader.Kind,
    path: KeyPath,
    name: str,
    options: Mapping[str, Any],
    place: KeyPath,
    given: Sequence[str] = (),
) -> Iterator[Found]:
    try:
        part = part_loader.load_part(kind, name)
    except part_loader.PartError as error:
        yield Found(path, str(error))
        return
    if not callable(part):
        yield Found(path, f"{name} cannot be called")
    else:
        yield from _options(place, part, options, given)


def references(draft: Draft) -> Iterator[Found]:
    """Models and samplers that are named exist."""
    models = {*draft.tree.keys("models"), BASE}
    for path, name in judges(draft):
        if name not in draft.tree.keys("models"):
            yield Found(path, f"unknown model {name!r}; {allowed(name, draft.tree.keys('models'))}")
    samplers = draft.tree.keys("samples", "samplers")
    for path, name in asked_models(draft):
        if name not in models:
            yield Found(path, f"unknown model {name!r}; {allowed(name, models)}")
    for path, name in _begun_with(draft):
        others = [one for one in samplers if one not in ("", path[2]) and not _is_derived(draft, one)]
        if name not in others:
            said = "is no sampler whose paths others can be made of" if name in samplers else "is no sampler"
            yield Found(path, f"{name!r} {said}; {allowed(name, others)}")
    lists = [("corrections", "samplers"), ("locations", "samplers"), ("samples", "want", "samplers")] + [
        ("mix", "arms", arm, part, "samplers")
        for arm in draft.tree.keys("mix", "arms")
        for part in ("cot", "corrections")
    ]
    named = (item.value for _, item in _items(draft, ("corrections", "samplers")))
    corrected = {name for name in named if isinstance(name, str)} or set(samplers)
    for path, item in (found for where in lists for found in _items(draft, where)):
        if isinstance(item.value, str) and item.value not in samplers:
            yield Found(path, f"unknown sampler {item.value!r}; {allowed(item.value, samplers)}")
        elif (
            isinstance(item.value, str)
            and path[0] == "mix"
            and path[3] == "corrections"
            and item.value not in corrected
        ):
            message = f"nobody corrects paths of {item.value!r}; {allowed(item.value, corrected)}"
            yield Found(path, message)


def adapters(draft: Draft) -> Iterator[Found]:
    """A model with an adapter is asked by samplers only: DVC watches it for no other stage."""
    models = draft.sections["models"] or {}
    for path, name in (*asked_models(draft), *judges(draft)):
        if path[0] != "samples" and name in models and models[name].adapter:
            yield Found(path, "models with an adapter serve samplers only")


def _begun_with(draft: Draft) -> Iterator[tuple[KeyPath, str]]:
    """The samplers whose paths others are made of, each with the place where the recipe says so."""
    samples = draft.sections["samples"]
    for name, sampler in samples.samplers.items() if samples else ():
        if isinstance(sampler, BranchSampler):
            yield ("samples", "samplers", name, "branch", "of"), sampler.branch.of
        elif isinstance(sampler, InjectSampler | TypedSampler) and sampler.inject.of is not None:
            yield ("samples", "samplers", name, "inject", "of"), sampler.inject.of


def _is_derived(draft: Draft, name: str) -> bool:
    return bool({"branch", "inject"} & set(draft.tree.keys("samples", "samplers", name)))


def judges(draft: Draft) -> Iterator[tuple[KeyPath, str]]:
    """The models that filters ask, which the student is none of."""
    for path, item in _items(draft, ("verdicts", "filters")):
        part = salvage(item, Part)
        if part and isinstance(part.options.get("model"), str):
            yield (*options_path(draft.tree, path), "model"), part.options["model"]


def arms(draft: Draft) -> Iterator[Found]:
    """Arms have names of their own, take something, and are sized by arms that exist, never in a circle."""
    mix = draft.sections["mix"]
    names = draft.tree.keys("mix", "arms")
    if BASE in names:
        yield Found(
            ("mix", "arms", BASE), "`base` is the model before fine-tuning; give this arm another name", key=True
        )
    matches: dict[str, list[str]] = {}
    for name, arm in mix.arms.items() if mix else ():
        path = ("mix", "arms", name)
        for kind, rows in (("cot", arm.cot), ("corrections", arm.corrections)):
            if rows and rows.match is not None:
                matches.setdefault(name, []).append(rows.match)
                if rows.match not in names:
                    others = [other for other in names if other != name]
                    message = f"unknown arm {rows.match!r}; {allowed(rows.match, others)}"
                    yield Found((*path, kind, "rows" if rows.tokens is None else "tokens", "match"), message)
        if arm.cot and not (arm.cot.rationales or arm.cot.samplers or arm.cot.corrected):
            message = "takes nothing: `rationales` and `corrected` are false and `samplers` is empty"
            yield Found((*path, "cot"), message, key=True)
        if len(matches.get(name, ())) == 2:
            yield Found(path, "only one of cot and corrections can be sized by `match`", key=True)
    for circle in _circles(matches):
        yield Found(("mix", "arms", circle[0]), f"is sized by itself: {' -> '.join(circle)}", key=True)


def _circles(matches: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, ...]]:
    """Each circle once, from its first name in the alphabet."""

    def walk(trail: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        for other in matches.get(trail[-1], ()):
            if other == trail[0]:
                yield (*trail, other)
            elif other not in trail and other > trail[0]:
                yield from walk((*trail, other))

    for name in sorted(matches):
        yield from dict.fromkeys(walk((name,)))


def counts(draft: Draft) -> Iterator[Found]:
    """There are questions, and no more than the source has records."""
    source, questions = draft.sections["source"], draft.sections["questions"]
    for split in ("train", "test"):
        there = getattr(source, split, None)
        asked = getattr(questions, split, None)
        if there is not None and asked is not None and asked > there:
            yield Found(("questions", split), f"{asked} questions, but `source.{split}` keeps {there} records")
        for section, value in (("source", there), ("questions", asked)):
            if value == 0:
                purpose = "to learn from" if split == "train" else "to compare the arms on"
                yield Found((section, split), f"needs at least 1: there would be nothing {purpose}")
    if source and source.test_from == "train" and source.test is None:
        yield Found(("source",), "with `test_from: train`, say how many `test` records to take", key=True)
    if source and source.file and source.test_from != "train" and "{split}" not in source.file:
        message = "one file has no test split: write {split} for train and test in its name, or say `test_from: train`"
        yield Found(("source", "file"), message)


def explanations(draft: Draft) -> Iterator[Found]:
    """Corrections without explanation are not dropped for having none."""
    corrections, verdicts = draft.sections["corrections"], draft.sections["verdicts"]
    if not corrections or not verdicts or "explanation" not in corrections.without:
        return
    for part in verdicts.filters:
        if part.use == "has_fields" and "explanation" not in part.options.get("without", ()):
            message = "has_fields drops corrections without explanation: write `has_fields: {without: [explanation]}`"
            yield Found(("corrections", "without"), message)


def hints(draft: Draft) -> Iterator[Found]:
    """The programmatic corrector works from the gold rationale."""
    for section in ("locations", "corrections"):
        asked, models = draft.sections[section], draft.sections["models"] or {}
        model = models.get(asked.model) if asked else None
        if asked and model and model.backend == "reference" and asked.hint != "rationale":
            message = "the reference corrector compares a path with the gold rationale: say `hint: rationale`"
            yield Found((section, "hint"), message)
