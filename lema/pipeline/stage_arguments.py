"""What stages are called with: their inputs from the disk, and a provider for every keyword parameter.

What takes long to import is imported by the provider that needs it: most stages ask no model and train none.
"""

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lema.compute import files, parquet
from lema.compute.artifacts import ARTIFACTS, DATA, artifact_path
from lema.compute.executor import Executor, pmap
from lema.compute.factory import make_executor
from lema.errors import RunError
from lema.filters import GIVEN, distinct_names
from lema.models.tokenize import count_tokens
from lema.models.types import Model
from lema.pipeline.plan import read_plan
from lema.pipeline.providers import (
    adapted,
    adapter_model,
    base_model,
    build_base,
    build_judge,
    losses,
    named_model,
    training,
)
from lema.pipeline.stage_runner import StageRunner
from lema.recipe import part_loader
from lema.recipe.schema import ModelSpec
from lema.rows import Example
from lema.stages.common import memoize
from lema.text.record_files import read_file

if TYPE_CHECKING:
    from lema.completions.generate import Generate
    from lema.completions.store import Store


def read_input(runner: StageRunner, name: str, iterable: bool = False) -> Any:
    """An input of a stage: rows, a model, models by arm, or what the report shows of them. Raises RunError."""
    recipe, arms = runner.name, list(runner.recipe.mix.arms)
    if name == "base":
        if not (artifact_path("base", recipe) / "base.json").is_file():
            raise RunError(f"no base yet: lema make base {recipe} --with-inputs, or lema repro {recipe} for everything")
        return base_model(artifact_path("base", recipe))
    if name == "adapters" and runner.artifact in ("answers", "probe"):
        base = base_model(artifact_path("base", recipe))
        return {arm: {seed: adapted(base, arm, at) for seed, at in _adapters(runner, arm).items()} for arm in arms}
    if name == "adapters":
        return {arm: training(list(_adapters(runner, arm).values()), _curve(runner, arm)) for arm in arms}
    if name == "mix" and runner.arm is None:
        return {arm: parquet.Rows(artifact_path("mix", recipe, arm), Example) for arm in arms}
    path, row_type = artifact_path(name, recipe, runner.arm), ARTIFACTS[name]
    if row_type is None:
        return json.loads(path.read_text(encoding="utf-8")) if path.suffix == ".json" else read_plan(path)
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


def _train(runner: StageRunner) -> Callable[..., None]:
    from lema.train.jobs import train_adapters

    base, workers = artifact_path("base", runner.name), partial(runner.provide, "executor")
    return partial(train_adapters, runner.settings, workers, base, checkpoints(runner))


def recipe_model(runner: StageRunner, name: str, spec: ModelSpec) -> Model:
    """A model of the recipe; of those with an adapter, only the samplers' have it watched by DVC."""
    if spec.adapter is None or runner.artifact != "samples":
        return named_model(name, spec)
    recipe, arm, *seed = spec.adapter.split("/")
    base, adapter = artifact_path("base", recipe), artifact_path("adapter", recipe, arm).joinpath(*seed)
    # The folder of an arm with several seeds has no record of its own, and is no model.
    if not (base / "base.json").is_file() or not (adapter / "training.json").is_file():
        raise RunError(f"no adapter {spec.adapter} yet: lema make adapter {recipe}/{arm} --with-inputs")
    return adapter_model(name, spec, base, adapter)


def _filters(runner: StageRunner) -> dict[str, Any]:
    """Filters by name, with their options and what they ask for."""
    filters: dict[str, Any] = {}
    parts = runner.recipe.verdicts.parts
    for name, part in zip(distinct_names([part.use for part in parts]), parts, strict=True):
        function = part_loader.load_part("filters", part.use)
        given = {one: runner.provide(one) for one in inspect.signature(function).parameters if one in GIVEN}
        # A judge that failed is not asked again by a stage that goes through its corrections several times.
        if "generate" in given and runner.artifact == "corrections":
            given["generate"] = memoize(given["generate"])
        filters[name] = partial(function, **part.options, **given)
    return filters


def _generators(runner: StageRunner) -> dict[str, Any]:
    """The tasks that generate questions, by name."""
    sources = [runner.recipe.source, *(one.source for one in runner.recipe.questions.transfer.values())]
    return {one.generator: part_loader.load_part("tasks", one.generator) for one in sources if one.generator}


def _adapters(runner: StageRunner, arm: str) -> dict[int, Path]:
    """The folders of an arm's adapters by seed: its own, or with `seeds` one a seed below it."""
    folder, spec = artifact_path("adapter", runner.name, arm), runner.recipe.adapter
    return {one.seed: folder / str(one.seed) if spec.seeds else folder for one in spec.trainings}


def _curve(runner: StageRunner, arm: str) -> Path:
    return DATA / runner.name / "curves" / f"{arm}.csv"


def checkpoints(runner: StageRunner) -> Path:
    """Content-addressed: the same plan, mix and base resume, others start afresh. Seeds have folders of their own."""
    settled = {name: value for name, value in runner.plan.items() if name not in ("seed", "seeds")}
    digest = hashlib.sha256(json.dumps(settled, sort_keys=True).encode())
    for path in (artifact_path("mix", runner.name, runner.arm), artifact_path("base", runner.name) / "base.json"):
        digest.update(path.read_bytes())
    return files.home() / "training" / f"{runner.name}-{runner.arm}-{digest.hexdigest()[:16]}"


# What stages and filters can ask for by keyword; `executor` is for other providers.
PROVIDERS: Mapping[str, Callable[[StageRunner], Any]] = {
    "spec": lambda runner: getattr(runner.recipe, runner.artifact),
    "arm": lambda runner: runner.arm,
    "arms": lambda runner: ["base", *runner.recipe.mix.arms],
    "task": lambda runner: part_loader.load_part("tasks", runner.recipe.questions.task),
    "tasks": lambda runner: {
        split: part_loader.load_part("tasks", name) for split, name in runner.recipe.questions.tasks.items()
    },
    "transfer": lambda runner: {name: one.source for name, one in runner.recipe.questions.transfer.items()},
    "contamination": lambda runner: runner.recipe.verdicts.contamination,
    "generators": _generators,
    "questions": lambda runner: runner.read(runner, "questions", True),
    "hint": lambda runner: runner.recipe.corrections.hint,
    "models": lambda runner: {name: recipe_model(runner, name, spec) for name, spec in runner.recipe.models.items()},
    "filters": _filters,
    "judge": lambda runner: build_judge(runner.provide("task"), partial(runner.provide, "filters")),
    "executor": _open_executor,
    "generate": _open_generate,
    "pmap": lambda runner: partial(pmap, runner.provide("executor")),
    "read_file": lambda _: read_file,
    "count_tokens": lambda _: count_tokens,
    "cot": lambda runner: runner.recipe.mix.cot,
    "build": lambda _: build_base,
    "train": _train,
    "curve": lambda runner: _curve(runner, str(runner.arm)),
    "prompt": lambda runner: runner.recipe.answers.prompt,
    "log": lambda runner: runner.log,
    "losses": lambda runner: partial(losses, runner.settings),
}
