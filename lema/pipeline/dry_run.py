"""A dry run: the stages of a recipe, run with a `generate` that only counts (`lema.pipeline.forecast`).

Where all replies of a stage are in the store, its rows are the real ones, and so is what follows from them. Rows made
of replies that are not there yet get the commonest outcome: so many paths are wrong, so many corrections can be read.
Nothing is sent, no model is loaded, no key is needed.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lema.completions import ledger
from lema.compute import parquet
from lema.compute.artifacts import ARTIFACTS, artifact_path
from lema.compute.executor import LocalExecutor
from lema.errors import LemaError, RunError
from lema.models.types import Model
from lema.pipeline.forecast import ENOUGH, MARK, Forecast, Lengths, Requests, Three, placeholder
from lema.pipeline.stage_arguments import PROVIDERS, completion_store, recipe_model
from lema.pipeline.stage_runner import StageRunner
from lema.recipe.load import load_params, load_recipe
from lema.recipe.sampler_schema import BranchSampler, TypedSampler
from lema.recipe.schema import ModelSpec, SourceSpec
from lema.rows import Correction, Grade, Location, Question
from lema.stages.source import read_split

# The stages from whose rows the dataset is made. `answers` asks the student alone, here and for nothing: left out.
DRY_STAGES = ("source", "questions", "samples", "grades", "locations", "corrections", "verdicts", "evolved")
QUESTION = 240  # characters of a question that is not known yet; those of GSM8K have 235 on average
CERTAIN: Three = (1.0, 1.0, 1.0)
# Shares where nothing is known: low, expected, high.
WRONG: Three = (0.05, 0.4, 1.0)
READABLE: Three = (0.5, 0.9, 1.0)
# By how much fewer or more derived requests may be where no share of earlier rows says it.
SPREAD: Mapping[str, Three] = {"samples": CERTAIN, "evolved": (0.5, 1.0, 1.0)}


class NotKnownYet(LemaError):
    """Rows that cannot be had before something else is made."""


@dataclass
class StageForecast:
    """One artifact of a dry run: why it is stale (empty: it is not), what it asks, and what keeps that unknown."""

    artifact: str
    reasons: Sequence[str]
    asked: Sequence[Requests] = ()
    unknown: str | None = None
    same: bool = False  # will run, and make the rows that are there


class DryRun:
    """Runs stages one after another without buying or writing anything; their rows are kept in `rows`."""

    def __init__(self, recipe: str) -> None:
        root = Path.cwd()
        self.loaded = load_recipe(root / "recipes" / f"{recipe}.yaml", root)
        self.recipe = self.loaded.recipe
        self.settings = load_params(root / "params.yaml").run
        self.rows: dict[str, list[Any]] = {}
        self.notes: list[str] = []
        self.forecast = Forecast(completion_store().get, self.settings, Lengths.of(ledger.ledger_folder()))
        self._ready: set[str] = set()  # up to date, and read when somebody asks for them
        self._spread: Three = CERTAIN
        self._providers: Mapping[str, Callable[[StageRunner], Any]] = {
            **PROVIDERS,
            "executor": lambda _: LocalExecutor(),
            "generate": lambda _: self.forecast,
            "models": lambda runner: {name: _model(runner, name, spec) for name, spec in self.recipe.models.items()},
            "read_split": lambda _: _read_local_split,
            "say": lambda _: lambda _text: None,
        }

    def run(self, stage: StageForecast) -> None:
        """Find the rows of an artifact, and what its stage asks."""
        artifact = self.forecast.stage = stage.artifact
        if not stage.reasons:
            self._ready.add(artifact)
            return
        runner = StageRunner(artifact, self.loaded, self.settings, self._input, self._providers)
        try:
            rows = sorted(runner.call(), key=lambda row: row.id)
            rows = OUTCOMES[artifact](self, rows) if artifact in OUTCOMES else rows
        except (NotKnownYet, RunError) as error:
            stage.unknown = str(error)
            if artifact == "questions" and isinstance(error, NotKnownYet):
                self._expect_questions(stage)
            return
        self.rows[artifact] = rows
        stage.asked = self.forecast.of(artifact)
        for one in stage.asked:
            one.spread = SPREAD.get(artifact, self._spread)
        stage.same = rows == self._on_disk(artifact)

    def _input(self, _: StageRunner, artifact: str, __: bool) -> Any:
        return self._student() if artifact == "base" else self._rows(artifact)

    def _rows(self, artifact: str) -> list[Any]:
        if artifact in self._ready and artifact not in self.rows:
            self.rows[artifact] = self._on_disk(artifact) or []
        if artifact not in self.rows:
            raise NotKnownYet(f"unknown until {artifact} {'is' if artifact == 'source' else 'are'} made")
        return self.rows[artifact]

    def _on_disk(self, artifact: str) -> list[Any] | None:
        """The rows of before, None when there are none that can be read."""
        row_type = ARTIFACTS[artifact]
        assert row_type is not None
        try:
            return parquet.read_rows(artifact_path(artifact, self.loaded.name), row_type)
        except RunError:
            return None

    def _student(self) -> Model:
        """The student as its artifact describes it; its weights are not touched."""
        record = artifact_path("base", self.loaded.name) / "base.json"
        if not record.is_file():
            return Model("base", "transformers", "transformers, not made yet", chat=self.recipe.base.chat)
        facts = json.loads(record.read_text(encoding="utf-8"))
        return Model("base", "transformers", f"transformers {facts['identity']}", chat=facts["chat"])

    # What rows become that are made of placeholders.

    def _expect_questions(self, stage: StageForecast) -> None:
        """Placeholders for questions whose number stands in the recipe."""
        spec, source = self.recipe.questions, self.recipe.source
        count = spec.train if spec.train is not None else source.train
        if count is None:
            return
        stage.unknown = None
        texts = [placeholder(number, QUESTION) for number in range(count)]
        self.rows["questions"] = [
            Question(f"unknown-{number:06d}", "train", text, "0", text) for number, text in enumerate(texts)
        ]
        self.notes.append(f"the questions are not there yet: {count:,} of {QUESTION} characters are assumed")

    def _expect_samples(self, rows: list[Any]) -> list[Any]:
        """Paths that are made of others that are not there yet are not counted."""
        counts = Counter(row.sampler for row in rows)
        train = sum(question.split == "train" for question in self._rows("questions"))
        missing = {row.sampler for row in rows if MARK in row.text}
        self._note_limit("samples", self.recipe.samples.want)
        for name, sampler in self.recipe.samples.samplers.items():
            of = sampler.branch.of if isinstance(sampler, BranchSampler) else None
            of = sampler.inject.of if isinstance(sampler, TypedSampler) else of
            if of in missing and isinstance(sampler, BranchSampler | TypedSampler):
                more = train * sampler.paths - counts[name]
                self.notes.append(f"{name} begins with paths of {of} that are not there yet: up to {more:,} more")
        return rows

    def _note_limit(self, artifact: str, want: object) -> None:
        """A stage that stops when it has enough is asked until the end here: no placeholder is wrong or accepted."""
        if want is not None and self.forecast.of(artifact):
            self.notes.append(f"{artifact} stop once there are as many as `want` says: these are the most")

    def _expect_grades(self, rows: list[Grade]) -> list[Grade]:
        """So many paths of a sampler are wrong as of those that are known."""
        unknown = {row.id for row in self._rows("samples") if MARK in row.text}
        if not unknown:
            self._spread = CERTAIN
            return rows
        known = [row for row in rows if row.id not in unknown]
        made: list[Grade] = []
        spreads: list[Three] = []
        guessed = [row for row in rows if row.id in unknown]
        for sampler in dict.fromkeys(row.sampler for row in guessed):
            share = self._share_wrong(sampler, known)
            spreads.append(_relative(share))
            for at, row in enumerate(row for row in guessed if row.sampler == sampler):
                wrong = int((at + 1) * share[1]) > int(at * share[1])
                made.append(replace(row, outcome="incorrect" if wrong else "correct", answer=None))
        self._spread = min(one[0] for one in spreads), 1.0, max(one[2] for one in spreads)
        return sorted([*known, *made], key=lambda row: row.id)

    def _share_wrong(self, sampler: str, known: Sequence[Grade]) -> Three:
        """The share of wrong paths of a sampler: of those graded here, else of those graded before, else a guess."""
        before = self._on_disk("grades") or []
        for rows, where in ((known, "known here"), (before, "graded before")):
            own = [row.outcome == "incorrect" for row in rows if row.sampler == sampler]
            if len(own) >= ENOUGH:
                share = _share(sum(own), len(own))
                self.notes.append(f"{share[1]:.0%} of {sampler}'s paths are wrong, as of {len(own):,} {where}")
                return share
        self.notes.append(f"{WRONG[1]:.0%} of {sampler}'s paths are wrong: a guess, {WRONG[0]:.0%} to {WRONG[2]:.0%}")
        return WRONG

    def _expect_locations(self, rows: list[Location]) -> list[Location]:
        """All are found."""
        return [
            replace(row, status="parsed", reason=None, incorrect_step=1) if MARK in row.reply else row for row in rows
        ]

    def _expect_corrections(self, rows: list[Correction]) -> list[Correction]:
        """So many can be read as of those that are known."""
        self._note_limit("corrections", self.recipe.corrections.want)
        known = [row for row in rows if MARK not in row.reply] or self._on_disk("corrections") or []
        unknown = [row for row in rows if MARK in row.reply]
        readable = sum(row.status == "parsed" for row in known)
        share = _share(readable, len(known)) if len(known) >= ENOUGH else READABLE
        parsed = {row.id for at, row in enumerate(unknown) if int((at + 1) * share[1]) > int(at * share[1])}
        around = _relative(share) if unknown else CERTAIN
        self._spread = self._spread[0] * around[0], 1.0, self._spread[2] * around[2]
        return [
            replace(row, status="parsed", reason=None, incorrect_step=1, explanation=row.reply, solution=row.reply)
            if row.id in parsed
            else row
            for row in rows
        ]

    def _expect_verdicts(self, rows: list[Any]) -> list[Any]:
        """All are accepted, so that there are questions to evolve."""
        unknown = {row.id for row in self._rows("corrections") if MARK in row.reply}
        return [replace(row, accepted=True, dropped_by=None, reason=None) if row.id in unknown else row for row in rows]


OUTCOMES: Mapping[str, Callable[[DryRun, list[Any]], list[Any]]] = {
    "samples": DryRun._expect_samples,
    "grades": DryRun._expect_grades,
    "locations": DryRun._expect_locations,
    "corrections": DryRun._expect_corrections,
    "verdicts": DryRun._expect_verdicts,
}


def _model(runner: StageRunner, name: str, spec: ModelSpec) -> Model:
    try:
        return recipe_model(runner, name, spec)
    except RunError:  # an adapter of another recipe that is not trained yet
        return Model(name, spec.backend, f"{spec.adapter}, not made yet", chat=spec.chat)


def _read_local_split(spec: SourceSpec, split: str) -> Any:
    if spec.hub:
        raise NotKnownYet(f"unknown until it is fetched: {spec.hub} is on the hub")
    return read_split(spec, split)


def _share(part: int, whole: int) -> Three:
    """A share with two standard errors on each side."""
    share = part / whole
    error = 2 * math.sqrt(max(share * (1 - share), 1 / whole) / whole)
    return max(0.0, share - error), share, min(1.0, share + error)


def _relative(share: Three) -> Three:
    return (share[0] / share[1], 1.0, share[2] / share[1]) if share[1] else CERTAIN
