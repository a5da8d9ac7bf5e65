"""Calls a stage by its signature, which declares what it needs (dependency injection).

Its positional parameters are named after the artifacts that it reads: `read_input` finds them on the disk. Its keyword
parameters are named after what it is given: its settings, its task, models, `generate`...; PROVIDERS has a function
for each. The dry run of `lema plan` brings its own of both. What takes long to import is imported by the provider that
needs it: most stages ask no model and train none.
"""

import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_origin

from lema.compute import files, parquet
from lema.compute.artifacts import ARTIFACTS, DATA, artifact_path, read_plan
from lema.compute.executor import Executor, pmap
from lema.compute.factory import make_executor
from lema.errors import RunError
from lema.filters import GIVEN, distinct_names
from lema.models.tokenize import count_tokens
from lema.models.types import Model
from lema.pipeline import providers
from lema.recipe.load import Loaded
from lema.recipe.params import Run
from lema.recipe.part_loader import load_part
from lema.recipe.schema import ModelSpec
from lema.rows import Example
from lema.stages.common import memoize
from lema.text.record_files import read_file

if TYPE_CHECKING:
    from lema.completions.generate import Generate
    from lema.completions.store import Store


@dataclass(frozen=True)
class StageSignature:
    """A stage and what it needs: `inputs` by name, each with whether the stage only iterates over it, and keywords."""

    function: Callable[..., Any]
    inputs: Mapping[str, bool]
    keywords: tuple[str, ...]


@cache
def stage_signature(artifact: str) -> StageSignature:
    """The signature of the stage of an artifact."""
    function = getattr(import_module(f"lema.stages.{artifact}"), artifact)
    parameters = inspect.signature(function).parameters.values()
    inputs = {
        one.name: get_origin(one.annotation) is Iterable for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD
    }
    return StageSignature(function, inputs, tuple(one.name for one in parameters if one.kind is one.KEYWORD_ONLY))


@dataclass
class StageRunner:
    """Calls the stage of one artifact. `read` finds an input by name, the third argument being whether an iterable is
    enough; what providers open is closed with the runner, in reverse order."""

    artifact: str
    loaded: Loaded
    settings: Run
    arm: str | None = None
    offline: bool = False
    plan: Mapping[str, Any] = field(default_factory=dict)
    read: "Callable[[StageRunner, str, bool], Any]" = field(default_factory=lambda: read_input)
    providers: "Mapping[str, Callable[[StageRunner], Any]]" = field(default_factory=lambda: PROVIDERS)

    def __post_init__(self) -> None:
        self.name, self.recipe = self.loaded.name, self.loaded.recipe
        self.opened = ExitStack()
        self._provided: dict[str, Any] = {}

    def call(self, **more: Any) -> Any:
        """What the stage returns; `more` are keyword arguments that no provider has, as those with a default may be."""
        signature = stage_signature(self.artifact)
        inputs = [self.read(self, name, iterable) for name, iterable in signature.inputs.items()]
        given = {name: self.provide(name) for name in signature.keywords if name in self.providers}
        return signature.function(*inputs, **given, **more)

    def provide(self, name: str) -> Any:
        """A keyword argument of stages and filters, made when it is first asked for."""
        if name not in self._provided:
            self._provided[name] = self.providers[name](self)
        return self._provided[name]

    def log(self, text: str) -> None:
        """One line on stderr with what is being made."""
        target = f"{self.name}/{self.arm}" if self.arm else self.name
        print(f"{self.artifact} {target}: {text}", file=sys.stderr)  # noqa: T201

    def checkpoints(self) -> Path:
        """Content-addressed: the same plan, mix and base resume, others start afresh. Seeds have folders of their
        own."""
        settled = {name: value for name, value in self.plan.items() if name not in ("seed", "seeds")}
        digest = hashlib.sha256(json.dumps(settled, sort_keys=True).encode())
        for path in (artifact_path("mix", self.name, self.arm), artifact_path("base", self.name) / "base.json"):
            digest.update(path.read_bytes())
        return files.home() / "training" / f"{self.name}-{self.arm}-{digest.hexdigest()[:16]}"

    def __enter__(self) -> "StageRunner":
        return self

    def __exit__(self, *error: Any) -> None:
        self.opened.__exit__(*error)


def read_input(runner: StageRunner, name: str, iterable: bool = False) -> Any:
    """An input of a stage: rows, a model, models by arm, or what the report shows of them. Raises RunError."""
    recipe, arms = runner.name, list(runner.recipe.mix.arms)
    if name == "plan":
        return read_plan(recipe)
    if name == "base":
        if not (artifact_path("base", recipe) / "base.json").is_file():
            raise RunError(f"no base yet: lema make base {recipe} --with-inputs, or lema repro {recipe} for everything")
        return providers.base_model(artifact_path("base", recipe))
    if name == "adapters" and runner.artifact in ("answers", "probe"):
        base = providers.base_model(artifact_path("base", recipe))
        return {
            arm: {seed: providers.adapted(base, arm, at) for seed, at in _adapters(runner, arm).items()} for arm in arms
        }
    if name == "adapters":
        return {arm: providers.training(list(_adapters(runner, arm).values()), _curve(runner, arm)) for arm in arms}
    if name == "mix" and runner.arm is None:
        return {arm: parquet.Rows(artifact_path("mix", recipe, arm), Example) for arm in arms}
    path, row_type = artifact_path(name, recipe, runner.arm), ARTIFACTS[name]
    if row_type is None:
        return json.loads(path.read_text(encoding="utf-8"))
    return parquet.Rows(path, row_type) if iterable else parquet.read_rows(path, row_type)


def completion_store() -> "Store":
    """The completion store of this project, or of $LEMA_HOME."""
    from lema.completions.store import Store, packs_folder

    return Store(files.home() / "journal", packs_folder())


def _open_executor(runner: StageRunner) -> Executor:
    made = make_executor(runner.settings)
    runner.opened.callback(made.close)
    return made


def _open_generate(runner: StageRunner) -> "Generate":
    """One for all that ask, such as two judges: the log counts their requests together."""
    from lema.completions.budget import BudgetTracker
    from lema.completions.generate import Generate

    where, store = runner.provide("executor"), completion_store()
    budget = BudgetTracker(runner.settings, runner.name, runner.artifact)
    made = Generate(store, where, runner.settings, name=runner.artifact, offline=runner.offline, budget=budget)
    runner.opened.callback(budget.close)
    runner.opened.callback(store.seal)
    runner.opened.callback(lambda: runner.log(made.summary().partition(": ")[2]))
    return made


def _trainer(runner: StageRunner) -> Callable[..., None]:
    from lema.train.jobs import train_adapters

    base, workers = artifact_path("base", runner.name), partial(runner.provide, "executor")
    return partial(train_adapters, runner.settings, workers, base, runner.checkpoints())


def recipe_model(runner: StageRunner, name: str, spec: ModelSpec) -> Model:
    """A model of the recipe; of those with an adapter, only the samplers' have it watched by DVC."""
    if spec.adapter is None or runner.artifact != "samples":
        return providers.named_model(name, spec)
    recipe, arm, *seed = spec.adapter.split("/")
    base, adapter = artifact_path("base", recipe), artifact_path("adapter", recipe, arm).joinpath(*seed)
    # The folder of an arm with several seeds has no record of its own, and is no model.
    if not (base / "base.json").is_file() or not (adapter / "training.json").is_file():
        raise RunError(f"no adapter {spec.adapter} yet: lema make adapter {recipe}/{arm} --with-inputs")
    return providers.adapter_model(name, spec, base, adapter)


def _filters(runner: StageRunner) -> dict[str, Any]:
    """Filters by name, with their options and what they ask for."""
    filters: dict[str, Any] = {}
    parts = runner.recipe.verdicts.parts
    for name, part in zip(distinct_names([part.use for part in parts]), parts, strict=True):
        function = load_part("filters", part.use)
        given = {one: runner.provide(one) for one in inspect.signature(function).parameters if one in GIVEN}
        # A judge that failed is not asked again by a stage that goes through its corrections several times.
        if "generate" in given and runner.artifact == "corrections":
            given["generate"] = memoize(given["generate"])
        filters[name] = partial(function, **part.options, **given)
    return filters


def _generators(runner: StageRunner) -> dict[str, Any]:
    """The tasks that generate questions, by name."""
    sources = [runner.recipe.source, *(one.source for one in runner.recipe.questions.transfer.values())]
    return {one.generator: load_part("tasks", one.generator) for one in sources if one.generator}


def _adapters(runner: StageRunner, arm: str) -> dict[int, Path]:
    """The folders of an arm's adapters by seed: its own, or with `seeds` one a seed below it."""
    folder, spec = artifact_path("adapter", runner.name, arm), runner.recipe.adapter
    return {one.seed: folder / str(one.seed) if spec.seeds else folder for one in spec.trainings}


def _curve(runner: StageRunner, arm: str | None) -> Path:
    return DATA / runner.name / "curves" / f"{arm}.csv"


# What stages and filters can ask for by keyword; `executor` is for other providers.
PROVIDERS: Mapping[str, Callable[[StageRunner], Any]] = {
    "spec": lambda runner: getattr(runner.recipe, runner.artifact),
    "arm": lambda runner: runner.arm,
    "arms": lambda runner: ["base", *runner.recipe.mix.arms],
    "task": lambda runner: load_part("tasks", runner.recipe.questions.task),
    "tasks": lambda runner: {split: load_part("tasks", name) for split, name in runner.recipe.questions.tasks.items()},
    "transfer": lambda runner: {name: one.source for name, one in runner.recipe.questions.transfer.items()},
    "contamination": lambda runner: runner.recipe.verdicts.contamination,
    "generators": _generators,
    "questions": lambda runner: runner.read(runner, "questions", True),
    "hint": lambda runner: runner.recipe.corrections.hint,
    "models": lambda runner: {name: recipe_model(runner, name, spec) for name, spec in runner.recipe.models.items()},
    "filters": _filters,
    "judge": lambda runner: providers.build_judge(runner.provide("task"), partial(runner.provide, "filters")),
    "executor": _open_executor,
    "generate": _open_generate,
    "pmap": lambda runner: partial(pmap, runner.provide("executor")),
    "read_file": lambda _: read_file,
    "count_tokens": lambda _: count_tokens,
    "cot": lambda runner: runner.recipe.mix.cot,
    "build": lambda _: providers.build_base,
    "train": _trainer,
    "curve": lambda runner: _curve(runner, runner.arm),
    "prompt": lambda runner: runner.recipe.answers.prompt,
    "log": lambda runner: runner.log,
    "losses": lambda runner: partial(providers.losses, runner.settings),
}
