"""`lema check`: every mistake in recipes, prompts and params.yaml at once. Loads no model and asks no network."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from lema.check import external_files
from lema.check.count_rules import stopping_notes
from lema.check.rules import rule_problems
from lema.check.try_parts import part_problems
from lema.check.variables import prompt_problems
from lema.completions.prices import price_of
from lema.errors import Problem, allowed
from lema.models.types import Model
from lema.recipe.load import PARAMS, RECIPES, Draft, read_draft, read_params, shown_path
from lema.recipe.messages import problem_at, salvage
from lema.recipe.params import Params, Run, RunName
from lema.recipe.schema import ModelSpec
from lema.recipe.yaml import Tree


@dataclass(frozen=True, slots=True)
class Report:
    """What is wrong, and what is worth knowing; both in file order."""

    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """params.yaml as far as it can be read."""

    file: str
    tree: Tree
    recipes: Mapping[str, str]
    runs: Mapping[str, RunName]
    run: Run

    def problem_at(self, *path: str, message: str, key: bool = True) -> Problem:
        """A problem at a path of params.yaml."""
        return problem_at(self.tree, path, message, key=key)


def check(recipes: Sequence[Path | str] | None, root: Path, env: Mapping[str, str] | None) -> Report:
    """Check recipes, given as files or names, and params.yaml; without any, all of recipes/ (files that begin with
    `_` serve only to be extended). `env` is the environment; without it, API keys are not looked for."""
    params, tree, unreadable = read_params(root / PARAMS, root)
    kept = params or salvage(tree, Params) or Params(recipes={}, runs={})
    settings = Settings(shown_path(root / PARAMS, root), tree, kept.recipes, kept.runs, kept.run)
    problems, notes = list(unreadable), list[Problem]()
    shipped = sorted(path for path in (root / RECIPES).glob("*.yaml") if not path.name.startswith("_"))
    drafts = []
    for given in recipes if recipes is not None else shipped:
        path = _recipe_path(given, root)
        if path.is_file():
            drafts.append(read_draft(path, root))
        else:
            message = f"there is no such recipe; {allowed(path.stem, (other.stem for other in shipped))}"
            problems.append(Problem(shown_path(path, root), 0, 0, message))
    inherited: list[tuple[Problem, Draft]] = []
    for draft in drafts:
        notes += [*stopping_notes(draft), *_round_notes(draft, settings)]
        found = list(_draft_problems(draft, settings, root))
        problems += [problem for problem in found if problem.file not in draft.extended]
        inherited += [(problem, draft) for problem in found if problem.file in draft.extended]
    known = set(problems)
    for problem, draft in inherited:
        if problem not in known:  # whoever has only read the recipe that extends it is told where it comes from
            origin = f"comes from {problem.file}:{problem.line}, which {draft.file} extends; null removes it"
            problems.append(replace(problem, message=f"{problem.message} ({origin})"))
    for idle, into in ((False, problems), (True, notes)):
        some = [one for one in drafts if (recipes is None and one.name not in settings.recipes) is idle]
        into += _price_problems(some, settings)
        into += _key_problems(some, settings, env) if env is not None else ()
    if recipes is None:
        problems += _name_problems(settings, {path.stem for path in shipped})
    notes += _not_built(settings, drafts)
    return Report(tuple(sorted(set(problems))), tuple(sorted(set(notes) - set(problems))))


def _draft_problems(draft: Draft, settings: Settings, root: Path) -> Iterator[Problem]:
    yield from draft.problems
    yield from rule_problems(draft, root)
    yield from prompt_problems(draft)
    yield from part_problems(draft, root, settings.run)
    yield from _endpoint_problems(draft, settings)
    if draft.name in settings.recipes:
        yield from _params_problems(draft, settings, root)


def _recipe_path(given: Path | str, root: Path) -> Path:
    """A recipe's file; a bare name is looked up in recipes/."""
    path = Path(given)
    if path.suffix not in (".yaml", ".yml") and len(path.parts) == 1:
        return root / RECIPES / f"{path}.yaml"
    return root / path


def _endpoint_problems(draft: Draft, settings: Settings) -> Iterator[Problem]:
    """Endpoints are in params.yaml, and take what the backend sends."""
    known = settings.tree.keys("run", "endpoints")
    for name, model in (draft.sections["models"] or {}).items():
        if model.endpoint is not None and model.endpoint not in known:
            message = f"{settings.file} has no endpoint {model.endpoint!r} in `run.endpoints`"
            yield problem_at(draft.tree, ("models", name, "endpoint"), f"{message}; {allowed(model.endpoint, known)}")
        endpoint = settings.run.endpoints.get(model.endpoint or "")
        if endpoint is not None and endpoint.mode == "batch" and model.backend != "openai":
            message = f"{settings.file} has {model.endpoint} asked in batches, which this backend does not make"
            yield problem_at(draft.tree, ("models", name, "backend"), f"{message}; allowed: openai")


def _needed_by(needs: Mapping[str, list[str]]) -> Iterator[tuple[str, str]]:
    """What recipes need, each with who needs it, in words."""
    for need, names in needs.items():
        yield need, f"the recipe {names[0]} needs" if len(names) == 1 else f"the recipes {', '.join(names)} need"


def _models_asked(drafts: Sequence[Draft]) -> Iterator[tuple[str, str, ModelSpec]]:
    """The models of its own that each recipe asks: the recipe, the model's label, the model."""
    for draft in drafts:
        models = draft.sections["models"] or {}
        names = dict.fromkeys(name for _, name in external_files.asked_models(draft))
        yield from ((draft.name, name, models[name]) for name in names if name in models)


def _key_problems(drafts: Sequence[Draft], settings: Settings, env: Mapping[str, str]) -> Iterator[Problem]:
    """Environment variables that hold the keys of the endpoints that recipes ask are set."""
    needs: dict[str, list[str]] = defaultdict(list)
    for recipe, _, model in _models_asked(drafts):
        endpoint = settings.run.endpoints.get(model.endpoint or "")
        if endpoint and endpoint.key and not env.get(endpoint.key) and recipe not in needs[str(model.endpoint)]:
            needs[str(model.endpoint)].append(recipe)
    for where, who in _needed_by(needs):
        message = f"the environment variable {settings.run.endpoints[where].key} is not set; {who} it"
        yield settings.problem_at("run", "endpoints", where, "key", message=message, key=False)


def _price_problems(drafts: Sequence[Draft], settings: Settings) -> Iterator[Problem]:
    """Where there is a budget, what recipes ask has a price."""
    budget, needs = settings.run.budget, dict[str, list[str]]()
    for recipe, name, spec in _models_asked(drafts):
        model = Model(name, spec.backend, "", name=spec.name, endpoint=spec.endpoint)
        limited = budget.total is not None or recipe in budget.recipes
        if limited and spec.adapter is None and price_of(model, settings.run) is None:
            needs.setdefault(spec.name or name, []).append(recipe)
    for name, who in _needed_by(needs):
        message = f"the price of {name} is unknown, and {who} it: without it no budget can be held; "
        message += f"add `prices: {{{name}: {{input: ..., output: ...}}}}` under run, in dollars a million tokens"
        yield settings.problem_at("run", "budget", message=message)


def _round_notes(draft: Draft, settings: Settings) -> Iterator[Problem]:
    """A search for enough corrections asks in rounds; each round of batches takes up to a day."""
    corrections, models = draft.sections["corrections"], draft.sections["models"] or {}
    if not corrections or corrections.want is None:
        return
    asked = dict.fromkeys(
        name for path, name in external_files.asked_models(draft) if path[0] in ("corrections", "verdicts")
    )
    where = dict.fromkeys(models[name].endpoint or "" for name in asked if name in models)
    for name in where:
        if name in settings.run.endpoints and settings.run.endpoints[name].mode == "batch":
            message = f"is searched for in a dozen rounds or so, and {settings.file} has {name} asked in batches, each "
            message += "answered within a day: this may take weeks; `mode: online` does not"
            yield problem_at(draft.tree, ("corrections", "want"), message)


def _params_problems(draft: Draft, settings: Settings, root: Path) -> Iterator[Problem]:
    """A recipe that params.yaml builds has its arms and its outside file there, and batches that trainers can share."""
    there = {run.arm for run in settings.runs.values() if run.recipe == draft.name}
    arms = draft.tree.keys("mix", "arms")
    for key, run in settings.runs.items():
        if run.recipe == draft.name and arms and run.arm not in arms:
            message = f"the recipe {draft.name} has no arm {run.arm!r}; {allowed(run.arm, arms)}"
            yield settings.problem_at("runs", key, "arm", message=message, key=False)
    for arm in arms:
        if arm not in there:
            line = f"{draft.name}-{arm}: {{recipe: {draft.name}, arm: {arm}}}"
            message = f"arm {arm!r} of the recipe {draft.name} is missing; add the line `{line}`"
            yield settings.problem_at("runs", message=message)
    for other in external_files.recipes_read(draft, root):
        if other not in settings.recipes:
            message = f"the recipe {draft.name} reads what {other} makes; add the recipe {other} and its arms"
            yield settings.problem_at("recipes", draft.name, message=message)
    said, needed = settings.recipes[draft.name], external_files.whole(draft)
    names = [name for _, name, _ in external_files.outside_files(draft)]
    if not needed:
        message = f"the recipe {draft.name} reads {', '.join(names)}; put them into one folder, and write it here"
        yield settings.problem_at("recipes", draft.name, message=message, key=False)
    elif said != needed and not (
        # A folder above it does, but for the project's own and that of all artifacts.
        names and said not in ("", ".", "data") and all(PurePosixPath(name).is_relative_to(said) for name in names)
    ):
        what = f"the recipe {draft.name} reads {', '.join(names) if names else 'no file outside it'}"
        message = f"{what}; write `{draft.name}: {needed}`"
        yield settings.problem_at("recipes", draft.name, message=message, key=False)
    spec, trainers = draft.sections["adapter"], settings.run.trainers
    if spec and (step := spec.batch * spec.accumulate) % trainers:
        message = f"the recipe {draft.name} learns from {step} examples an optimizer step (batch times accumulate), "
        message += f"which {trainers} trainers cannot share equally"
        yield settings.problem_at("run", "trainers", message=message, key=False)


def _name_problems(settings: Settings, files: set[str]) -> Iterator[Problem]:
    """Recipes and runs of params.yaml name each other and files that are there."""
    for *path, names in (("recipes", settings.recipes), ("run", "budget", "recipes", settings.run.budget.recipes)):
        for name in names:
            if name not in files:
                message = f"there is no {RECIPES}/{name}.yaml; {allowed(name, files)}"
                yield settings.problem_at(*path, name, message=message)
    for name, run in settings.runs.items():
        if run.recipe not in settings.tree.keys("recipes"):
            message = f"the recipe {run.recipe!r} is not in `recipes`; {allowed(run.recipe, settings.recipes)}"
            yield settings.problem_at("runs", name, "recipe", message=message, key=False)
        if name != f"{run.recipe}-{run.arm}":
            message = f"a run is named after its recipe and arm: write `{run.recipe}-{run.arm}`"
            yield settings.problem_at("runs", name, message=message)


def _not_built(settings: Settings, drafts: Sequence[Draft]) -> Iterator[Problem]:
    """Recipes that `dvc repro` leaves alone, with the lines that would build it where it is a single one."""
    idle = [draft for draft in drafts if draft.name not in settings.recipes and not draft.problems]
    if len(idle) > 1:
        names = ", ".join(draft.name for draft in idle)
        message = f"not built by `dvc repro`: {names}; `lema check NAME` says what to add to have one built"
        yield settings.problem_at("recipes", message=message)
    for draft in idle if len(idle) == 1 else ():
        runs = [f"`{draft.name}-{arm}: {{recipe: {draft.name}, arm: {arm}}}`" for arm in draft.tree.keys("mix", "arms")]
        recipe = f"`{draft.name}: {external_files.whole(draft) or 'the folder that holds its files'}`"
        message = f"add to {settings.file}: under recipes {recipe}, under runs {', '.join(runs)}"
        yield Problem(draft.file, 0, 0, f"not built by `dvc repro`; to build it, {message}")
