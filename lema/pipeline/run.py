"""The pipeline: what a stage reads, what it is given and what becomes of the result.

A stage's positional parameters name the artifacts that it reads; its keyword parameters what it is given: its part of
the recipe, its task, models and effects. `make` looks both up, calls the stage and writes the result.
"""

import hashlib
import inspect
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import Any, get_origin

import yaml

from lema.check.check import check
from lema.completions.budget import BudgetTracker
from lema.completions.generate import Generate
from lema.completions.store import Store, packs_folder
from lema.compute import files, parquet
from lema.compute.artifacts import ARTIFACTS, BY_ARM, DATA, artifact_path
from lema.compute.executor import Executor, executor, pmap
from lema.errors import RecipeError, RunError, allowed
from lema.filters import GIVEN, names
from lema.models.local import count_tokens
from lema.models.types import Model
from lema.pipeline.plan import make_plan, plan_key, plan_text
from lema.pipeline.providers import adapted, adapter_model, base_model, build_base, judge, losses, named_model, training
from lema.recipe import part_loader
from lema.recipe.load import load_params, load_recipe
from lema.recipe.schema import ModelSpec
from lema.rows import Answer, Example, Probe
from lema.stages import _records, once
from lema.train.trainings import train_adapters

SORTED = ("answers", "probe")  # read in the order of the recipe's arms


def store() -> Store:
    """The completion store of this project, or of $LEMA_HOME."""
    return Store(files.home() / "journal", packs_folder())


def make(artifact: str, recipe: str, arm: str | None = None, *, offline: bool = False) -> None:
    """Make one artifact and write it in its place, whole or not at all.

    Raises RecipeError for a recipe with mistakes, RunError when the plan is stale, an input is missing or the stage
    fails; what was bought until then is kept.
    """
    files.die_with_parent()
    if artifact not in ARTIFACTS:
        raise RunError(f"unknown artifact {artifact!r}; {allowed(artifact, ARTIFACTS)}")
    if (arm is not None) != (artifact in BY_ARM):
        owner = "an arm: RECIPE/ARM" if artifact in BY_ARM else "a recipe, not an arm"
        raise RunError(f"{artifact} is made for {owner}")
    with files.lock(artifact_path(artifact, recipe, arm)):
        if artifact == "plan":
            _write_plan(recipe)
            return
        kitchen = Kitchen(artifact, recipe, arm, offline)
        try:
            kitchen.cook()
        finally:
            kitchen.close()


def _write_plan(recipe: str) -> None:
    """The plan is made of a recipe that has been checked, so that every mistake shows before anything is paid for."""
    root = Path.cwd()
    path = root / "recipes" / f"{recipe}.yaml"
    # A missing API key is no mistake here: who has pulled all completions needs none. Generating checks again.
    report = check([path], root, None)
    if report.problems:
        raise RecipeError(report.problems)
    plan = make_plan(load_recipe(path, root), root)
    with files.atomic(artifact_path("plan", recipe)) as out:
        out.write_text(plan_text(plan), encoding="utf-8")


class Kitchen:
    """What the stages of one recipe need: inputs by the name of the artifact, and everything else by keyword."""

    def __init__(self, artifact: str, recipe: str, arm: str | None, offline: bool) -> None:
        root = Path.cwd()
        self.artifact, self.name, self.arm, self.offline = artifact, recipe, arm, offline
        self.loaded = load_recipe(root / "recipes" / f"{recipe}.yaml", root)
        self.recipe = self.loaded.recipe
        self.run = load_params(root / "params.yaml").run
        self.key = plan_key(artifact, self.loaded, root)
        self._refuse_stale_plan()
        self._generate: Generate | None = None
        self._executor: Executor | None = None

    def cook(self) -> None:
        """Call the stage and write what it makes."""
        stage = getattr(import_module(f"lema.stages.{self.artifact}"), self.artifact)
        parameters = inspect.signature(stage).parameters.values()
        reads = [self._input(one) for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
        keywords = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
        out = artifact_path(self.artifact, self.name, self.arm)
        row_type = ARTIFACTS[self.artifact]
        if row_type is not None:
            count = parquet.write_rows(out, row_type, stage(*reads, **self.given(keywords)))
            self._say(f"{count} rows")
        elif "folder" in keywords:
            with files.atomic(out) as folder:
                folder.mkdir()
                stage(*reads, **self.given(keywords), folder=folder)
            if self.artifact == "adapter":
                shutil.rmtree(self._scratch(), ignore_errors=True)
        elif self.artifact == "scores":
            with files.atomic(out) as file:
                file.write_text(json.dumps(stage(*reads, **self.given(keywords)), indent=2) + "\n", encoding="utf-8")
        else:
            page = stage(*reads, **self.given(keywords))
            for path, text in ((out, page.html), (out.with_suffix(".md"), page.markdown)):
                with files.atomic(path) as file:
                    file.write_text(text, encoding="utf-8")

    def _input(self, parameter: inspect.Parameter) -> Any:
        """What a stage reads. One that only walks over rows is not given them all at once."""
        row_type = ARTIFACTS.get(parameter.name)
        if row_type is not None and get_origin(parameter.annotation) is Iterable and parameter.name not in SORTED:
            return parquet.Rows(artifact_path(parameter.name, self.name, self.arm), row_type)
        return self.read(parameter.name)

    def close(self) -> None:
        """Seal what was bought, say what it was, and end the workers, the latter also when the disk is full."""
        with ExitStack() as end:
            if self._executor is not None:
                end.callback(self._executor.close)
            if self._generate is not None:
                end.callback(self.budget.close)
                self._say(self._generate.summary().partition(": ")[2])
                self.store.seal()

    def given(self, keywords: Sequence[str]) -> dict[str, Any]:
        """The keyword arguments of a stage, made only when it asks for them."""
        makers: dict[str, Callable[[], Any]] = {
            "spec": lambda: getattr(self.recipe, self.artifact),
            "arm": lambda: self.arm,
            "task": lambda: part_loader.load("tasks", self.recipe.questions.task),
            "tasks": self._tasks,
            "transfer": lambda: {name: one.source for name, one in self.recipe.questions.transfer.items()},
            "contamination": lambda: self.recipe.verdicts.contamination,
            "generators": self._generators,
            "questions": lambda: self.read("questions"),
            "hint": lambda: self.recipe.corrections.hint,
            "models": lambda: {name: self._model(name, spec) for name, spec in self.recipe.models.items()},
            "filters": self._filters,
            "judge": lambda: judge(part_loader.load("tasks", self.recipe.questions.task), self._filters),
            "generate": self._new_generate,
            "pmap": lambda: partial(pmap, self._workers()),
            "read_file": lambda: _records.read_file,
            "read_split": lambda: _records.read_split,
            "count_tokens": lambda: count_tokens,
            "cot": lambda: self.recipe.mix.cot,
            "build": lambda: build_base,
            "train": self._training,
            "curve": lambda: self._curve(str(self.arm)),
            "prompt": lambda: self.recipe.answers.prompt,
            "say": lambda: self._say,
            "losses": lambda: partial(losses, self.run),
        }
        return {name: makers[name]() for name in keywords if name != "folder"}

    def read(self, artifact: str) -> Any:
        """An input of the stage: rows, a model, models by arm, or what the report shows of them."""
        arms = list(self.recipe.mix.arms)
        if artifact in SORTED:
            # Rows lie sorted by id; scores and report take the base first, then the arms as the recipe orders them.
            order = {arm: rank for rank, arm in enumerate(["base", *arms])}
            rows: list[Any] = parquet.read_rows(
                artifact_path(artifact, self.name), Probe if artifact == "probe" else Answer
            )
            return sorted(rows, key=lambda row: order[row.arm])
        if artifact == "base" and not (artifact_path("base", self.name) / "base.json").is_file():
            raise RunError(f"no base yet: lema make base {self.name}, or dvc repro for everything")
        if artifact == "base":
            return base_model(artifact_path("base", self.name))
        if artifact == "adapters" and self.artifact in ("answers", "probe"):
            base = base_model(artifact_path("base", self.name))
            return {
                arm: {seed: adapted(base, arm, folder) for seed, folder in self._trained(arm).items()} for arm in arms
            }
        if artifact == "adapters":
            return {arm: training(list(self._trained(arm).values()), self._curve(arm)) for arm in arms}
        if artifact == "mix" and self.arm is None:
            return {arm: parquet.read_rows(artifact_path("mix", self.name, arm), Example) for arm in arms}
        path = artifact_path(artifact, self.name, self.arm)
        row_type = ARTIFACTS[artifact]
        if row_type is not None:
            return parquet.read_rows(path, row_type)
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)

    @cached_property
    def store(self) -> Store:
        return store()

    @cached_property
    def budget(self) -> BudgetTracker:
        return BudgetTracker(self.run, self.name, self.artifact)

    def _workers(self) -> Executor:
        self._executor = self._executor or executor(self.run)
        return self._executor

    def _new_generate(self) -> Generate:
        """One for all that ask, such as two judges: the log counts their requests together."""
        self._generate = self._generate or Generate(
            self.store, self._workers(), self.run, name=self.artifact, offline=self.offline, budget=self.budget
        )
        return self._generate

    def _training(self) -> Callable[..., None]:
        return partial(train_adapters, self.run, self._workers, artifact_path("base", self.name), self._scratch())

    def _tasks(self) -> dict[str, Any]:
        """The task of every split."""
        return {split: part_loader.load("tasks", name) for split, name in self.recipe.questions.tasks.items()}

    def _generators(self) -> dict[str, Any]:
        """The tasks that make questions of their own, by name."""
        sources = [self.recipe.source, *(one.source for one in self.recipe.questions.transfer.values())]
        return {one.generator: part_loader.load("tasks", one.generator) for one in sources if one.generator}

    def _model(self, name: str, spec: ModelSpec) -> Model:
        """A model of the recipe; of those with an adapter, only the samplers' have it watched by DVC."""
        if spec.adapter is None or self.artifact != "samples":
            return named_model(name, spec)
        recipe, arm, *seed = spec.adapter.split("/")
        base, adapter = artifact_path("base", recipe), artifact_path("adapter", recipe, arm).joinpath(*seed)
        # The folder of an arm with several seeds has no record of its own, and is no model.
        if not (base / "base.json").is_file() or not (adapter / "training.json").is_file():
            raise RunError(f"no adapter {spec.adapter} yet: dvc repro makes it")
        return adapter_model(name, spec, base, adapter)

    def _filters(self) -> dict[str, Any]:
        """Filters by name, with their options and what they ask for."""
        filters: dict[str, Any] = {}
        parts = self.recipe.verdicts.parts
        for name, part in zip(names([part.use for part in parts]), parts, strict=True):
            own = part_loader.load("filters", part.use)
            asked = [one for one in inspect.signature(own).parameters if one in GIVEN]
            given = self.given(asked)
            # A judge that failed is not asked again by a stage that goes through its corrections several times.
            given |= {"generate": once(given["generate"])} if "generate" in given else {}
            filters[name] = partial(own, **part.options, **given)
        return filters

    def _trained(self, arm: str) -> dict[int, Path]:
        """Where the adapters of an arm lie, by seed: in its folder, or with `seeds` in one a seed below."""
        folder, spec = artifact_path("adapter", self.name, arm), self.recipe.adapter
        return {one.seed: folder / str(one.seed) if spec.seeds else folder for one in spec.trainings}

    def _curve(self, arm: str) -> Path:
        return DATA / self.name / "curves" / f"{arm}.csv"

    def _scratch(self) -> Path:
        """Where checkpoints of this very training lie: the same plan, mix and base resume, others start afresh. Seeds
        have folders of their own there."""
        settled = {name: value for name, value in self.key.items() if name not in ("seed", "seeds")}
        digest = hashlib.sha256(json.dumps(settled, sort_keys=True).encode())
        for path in (artifact_path("mix", self.name, self.arm), artifact_path("base", self.name) / "base.json"):
            digest.update(path.read_bytes())
        return files.home() / "training" / f"{self.name}-{self.arm}-{digest.hexdigest()[:16]}"

    def _refuse_stale_plan(self) -> None:
        path = artifact_path("plan", self.name)
        try:
            made = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunError(f"no plan yet: lema make plan {self.name}, or dvc repro for everything") from None
        if made.get(self.artifact) != self.key:
            raise RunError(
                f"the recipe or the code of {self.artifact} has changed since the plan was made: "
                f"lema make plan {self.name}, or dvc repro for everything"
            )

    def _say(self, text: str) -> None:
        target = f"{self.name}/{self.arm}" if self.arm else self.name
        print(f"{self.artifact} {target}: {text}", file=sys.stderr)  # noqa: T201
