"""A rehearsal: the stages of a recipe called with a `generate` that only counts (`lema.pipeline.forecast`).

Where all replies of a stage are in the store, its rows are the real ones, and so is what follows from them. Rows of
replies that are not there yet are given the commonest fate: so many paths are wrong, so many corrections can be read.
Nothing is sent, no model is loaded, no key is needed.
"""

import inspect
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from lema.completions import ledger
from lema.compute import parquet
from lema.compute.artifacts import ARTIFACTS, artifact_path
from lema.compute.executor import Executor, LocalExecutor
from lema.errors import LemaError, RunError
from lema.models.types import Model
from lema.pipeline.forecast import ENOUGH, MARK, Asked, Forecast, Past, Three, understudy
from lema.pipeline.run import Kitchen
from lema.recipe.sampler_schema import BranchSampler, TypedSampler
from lema.recipe.schema import ModelSpec, SourceSpec
from lema.rows import Correction, Grade, Location, Question

# The stages from whose rows the dataset is made. `answers` asks the student alone, here and for nothing: not played.
PLAYED = ("source", "questions", "samples", "grades", "locations", "corrections", "verdicts", "evolved")
QUESTION = 240  # characters of a question that nobody knows yet; those of GSM8K have 235 on average
CERTAIN: Three = (1.0, 1.0, 1.0)
# Shares where nothing is known: low, expected, high.
WRONG: Three = (0.05, 0.4, 1.0)
READABLE: Three = (0.5, 0.9, 1.0)
# By how much fewer or more derived requests may be where no share of earlier rows says it.
SPREAD: Mapping[str, Three] = {"samples": CERTAIN, "evolved": (0.5, 1.0, 1.0)}


class Unknown(LemaError):
    """Rows that cannot be had before something else is made."""


@dataclass
class Stage:
    """One artifact in the plan: why it is stale (empty: it is not), what it asks, and what stands in the way of
    knowing that."""

    artifact: str
    reasons: Sequence[str]
    asked: Sequence[Asked] = ()
    unknown: str | None = None
    same: bool = False  # will run, and make the rows that are there


class Rehearsal(Kitchen):
    """A kitchen that buys nothing and writes nothing."""

    def __init__(self, recipe: str) -> None:
        super().__init__("samples", recipe, None, offline=True)
        self.rows: dict[str, list[Any]] = {}
        self.notes: list[str] = []
        self.forecast = Forecast(self.store.get, self.run, Past.of(ledger.ledger_folder()))
        self._ready: set[str] = set()  # up to date, and read when somebody asks for them
        self._spread: Three = CERTAIN

    def perform(self, stage: Stage) -> None:
        """Find the rows of an artifact, and what its stage asks."""
        artifact = stage.artifact
        if not stage.reasons:
            self._ready.add(artifact)
            return
        self.artifact = self.forecast.stage = artifact
        try:
            rows = FATES.get(artifact, _as_they_are)(self, self._play(artifact))
        except (Unknown, RunError) as error:
            stage.unknown = str(error)
            if artifact == "questions" and isinstance(error, Unknown):
                self._questions(stage)
            return
        self.rows[artifact] = rows
        stage.asked = self.forecast.of(artifact)
        for one in stage.asked:
            one.spread = SPREAD.get(artifact, self._spread)
        stage.same = rows == _old(self.name, artifact)

    def read(self, artifact: str) -> Any:
        if artifact == "base":
            return self._base()
        if artifact in self._ready and artifact not in self.rows:
            self.rows[artifact] = _old(self.name, artifact) or []
        if artifact not in self.rows:
            raise Unknown(f"unknown until {artifact} {'is' if artifact == 'source' else 'are'} made")
        return self.rows[artifact]

    def given(self, keywords: Sequence[str]) -> dict[str, Any]:
        found = super().given(keywords)
        if "read_split" in found:
            found["read_split"] = _offline(found["read_split"])
        return found

    def _play(self, artifact: str) -> list[Any]:
        stage = getattr(import_module(f"lema.stages.{artifact}"), artifact)
        parameters = inspect.signature(stage).parameters.values()
        reads = [self.read(one.name) for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
        keywords = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
        return sorted(stage(*reads, **self.given(keywords)), key=lambda row: row.id)

    def _questions(self, stage: Stage) -> None:
        """Stand-ins for questions whose number the recipe tells."""
        spec, source = self.recipe.questions, self.recipe.source
        count = spec.train if spec.train is not None else source.train
        if count is None:
            return
        stage.unknown = None
        text = [understudy(number, QUESTION) for number in range(count)]
        self.rows["questions"] = [
            Question(f"unknown-{number:06d}", "train", one, "0", one) for number, one in enumerate(text)
        ]
        self.notes.append(f"the questions are not there yet: {count:,} of {QUESTION} characters are assumed")

    def _base(self) -> Model:
        """The student, by what its artifact says; its weights are not touched."""
        facts = artifact_path("base", self.name) / "base.json"
        if not facts.is_file():
            return Model("base", "transformers", "transformers, not made yet", chat=self.recipe.base.chat)
        told = json.loads(facts.read_text(encoding="utf-8"))
        return Model("base", "transformers", f"transformers {told['identity']}", chat=told["chat"])

    def _model(self, name: str, spec: ModelSpec) -> Model:
        try:
            return super()._model(name, spec)
        except RunError:  # an adapter of another round that is not trained yet
            return Model(name, spec.backend, f"{spec.adapter}, not made yet", chat=spec.chat)

    def _new_generate(self) -> Any:
        return self.forecast

    def _workers(self) -> Executor:
        return LocalExecutor()

    def _refuse_stale_plan(self) -> None:
        """A stale plan is what is looked for."""

    def _say(self, text: str) -> None:
        """What stages tell is told when they run."""

    # What becomes of rows whose replies are not there yet.

    def _sampled(self, rows: list[Any]) -> list[Any]:
        """Paths that are made of others that are not there yet are not counted."""
        counts = Counter(row.sampler for row in rows)
        train = sum(question.split == "train" for question in self.read("questions"))
        missing = {row.sampler for row in rows if MARK in row.text}
        self._targets("samples", self.recipe.samples.want)
        for name, sampler in self.recipe.samples.samplers.items():
            of = sampler.branch.of if isinstance(sampler, BranchSampler) else None
            of = sampler.inject.of if isinstance(sampler, TypedSampler) else of
            if of in missing and isinstance(sampler, BranchSampler | TypedSampler):
                more = train * sampler.paths - counts[name]
                self.notes.append(f"{name} begins with paths of {of} that are not there yet: up to {more:,} more")
        return rows

    def _targets(self, artifact: str, want: object) -> None:
        """A stage that stops when it has enough is asked until the end here: no understudy is wrong, none accepted."""
        if want is not None and self.forecast.of(artifact):
            self.notes.append(f"{artifact} stop once there are as many as `want` says: these are the most")

    def _graded(self, rows: list[Grade]) -> list[Grade]:
        """So many paths of a sampler are wrong as of those that are known."""
        unknown = {row.id for row in self.read("samples") if MARK in row.text}
        if not unknown:
            self._spread = CERTAIN
            return rows
        known = [row for row in rows if row.id not in unknown]
        made: list[Grade] = []
        spreads: list[Three] = []
        guessed = [row for row in rows if row.id in unknown]
        for sampler in dict.fromkeys(row.sampler for row in guessed):
            share = self._wrong(sampler, known)
            spreads.append(_around(share))
            for at, row in enumerate(row for row in guessed if row.sampler == sampler):
                wrong = int((at + 1) * share[1]) > int(at * share[1])
                made.append(replace(row, outcome="incorrect" if wrong else "correct", answer=None))
        self._spread = min(one[0] for one in spreads), 1.0, max(one[2] for one in spreads)
        return sorted([*known, *made], key=lambda row: row.id)

    def _wrong(self, sampler: str, known: Sequence[Grade]) -> Three:
        """The share of wrong paths of a sampler: of those graded here, else of those graded before, else a guess."""
        before = _old(self.name, "grades") or []
        for rows, where in ((known, "known here"), (before, "graded before")):
            own = [row.outcome == "incorrect" for row in rows if row.sampler == sampler]
            if len(own) >= ENOUGH:
                share = _share(sum(own), len(own))
                self.notes.append(f"{share[1]:.0%} of {sampler}'s paths are wrong, as of {len(own):,} {where}")
                return share
        self.notes.append(f"{WRONG[1]:.0%} of {sampler}'s paths are wrong: a guess, {WRONG[0]:.0%} to {WRONG[2]:.0%}")
        return WRONG

    def _located(self, rows: list[Location]) -> list[Location]:
        """All are found."""
        return [
            replace(row, status="parsed", reason=None, incorrect_step=1) if MARK in row.reply else row for row in rows
        ]

    def _corrected(self, rows: list[Correction]) -> list[Correction]:
        """So many can be read as of those that are known."""
        self._targets("corrections", self.recipe.corrections.want)
        known = [row for row in rows if MARK not in row.reply] or _old(self.name, "corrections") or []
        unknown = [row for row in rows if MARK in row.reply]
        readable = sum(row.status == "parsed" for row in known)
        share = _share(readable, len(known)) if len(known) >= ENOUGH else READABLE
        parsed = {row.id for at, row in enumerate(unknown) if int((at + 1) * share[1]) > int(at * share[1])}
        around = _around(share) if unknown else CERTAIN
        self._spread = self._spread[0] * around[0], 1.0, self._spread[2] * around[2]
        return [
            replace(row, status="parsed", reason=None, incorrect_step=1, explanation=row.reply, solution=row.reply)
            if row.id in parsed
            else row
            for row in rows
        ]

    def _judged(self, rows: list[Any]) -> list[Any]:
        """All are accepted, so that there are questions to evolve."""
        unknown = {row.id for row in self.read("corrections") if MARK in row.reply}
        return [replace(row, accepted=True, dropped_by=None, reason=None) if row.id in unknown else row for row in rows]


def _as_they_are(_: Rehearsal, rows: list[Any]) -> list[Any]:
    return rows


FATES: Mapping[str, Callable[[Rehearsal, list[Any]], list[Any]]] = {
    "samples": Rehearsal._sampled,
    "grades": Rehearsal._graded,
    "locations": Rehearsal._located,
    "corrections": Rehearsal._corrected,
    "verdicts": Rehearsal._judged,
}


def _old(recipe: str, artifact: str) -> list[Any] | None:
    """The rows on the disk, None when there are none that can be read."""
    row_type = ARTIFACTS[artifact]
    assert row_type is not None
    try:
        return parquet.read_rows(artifact_path(artifact, recipe), row_type)
    except RunError:
        return None


def _offline(read: Callable[..., Any]) -> Callable[..., Any]:
    def read_split(spec: SourceSpec, split: str) -> Any:
        if spec.hub:
            raise Unknown(f"unknown until it is fetched: {spec.hub} is on the hub")
        return read(spec, split)

    return read_split


def _share(part: int, whole: int) -> Three:
    """A share with two standard errors on each side."""
    share = part / whole
    error = 2 * math.sqrt(max(share * (1 - share), 1 / whole) / whole)
    return max(0.0, share - error), share, min(1.0, share + error)


def _around(share: Three) -> Three:
    return (share[0] / share[1], 1.0, share[2] / share[1]) if share[1] else CERTAIN
