"""A dry run: the stages of a recipe, called with a `generate` that only counts. Nothing is sent, no model is loaded,
nothing is written, no key is needed.

Replies that the store has are the real ones, so what follows from them is exact. For one that is missing a placeholder
stands in, a text of the expected length that begins with `MARK`; rows made of placeholders get the commonest outcome:
so many paths are wrong, so many corrections can be read. A request whose prompt holds the mark is derived: its number
is an estimate. Rows that come out as they are do not touch what reads them, as in `dvc repro`.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lema.check.check import check
from lema.completions import ledger
from lema.completions.prices import max_reply_tokens, price_of
from lema.compute import parquet
from lema.compute.artifacts import ARTIFACTS, artifact_path
from lema.compute.executor import LocalExecutor
from lema.errors import LemaError, RecipeError, RunError
from lema.models.types import Completion, Model, Request
from lema.pipeline.forecast import CERTAIN, ENOUGH, LENGTHS, Lengths, Requests, Three
from lema.pipeline.plan import make_plan
from lema.pipeline.stage_runner import PROVIDERS, StageRunner, completion_store, recipe_model
from lema.pipeline.status import Status
from lema.recipe.load import load_params, load_recipe
from lema.recipe.sampler_schema import BranchSampler, TypedSampler
from lema.recipe.schema import ModelSpec, SourceSpec
from lema.rows import Question
from lema.stages.source import read_split

# The stages from whose rows the dataset is made. `answers` asks the student alone, here and for nothing: left out.
DRY_STAGES = ("source", "questions", "samples", "grades", "locations", "corrections", "verdicts", "evolved")
MARK = "\ue000"  # of Unicode's private use: in no prompt and no reply
QUESTION = 240  # characters of a question that is not known yet; those of GSM8K have 235 on average
# Shares where nothing is known: low, expected, high.
WRONG: Three = (0.05, 0.4, 1.0)
READABLE: Three = (0.5, 0.9, 1.0)
EVOLVED: Three = (0.5, 1.0, 1.0)  # of the requests for new questions


class NotKnownYet(LemaError):
    """Rows that cannot be had before something else is made."""


@dataclass
class StageForecast:
    """One artifact of a dry run: why it is stale (empty: it is not), what it asks, and what keeps that unknown."""

    artifact: str
    reasons: Sequence[str]
    asked: dict[str, Requests] = field(default_factory=dict)  # by label
    unknown: str | None = None
    same: bool = False  # will run, and make the rows that are there


class DryRun:
    """What a recipe would make again and why, and what that asks of models; `notes` say what the numbers are estimated
    from. Raises RecipeError for a recipe with mistakes."""

    def __init__(self, recipe: str) -> None:
        root = Path.cwd()
        path = root / "recipes" / f"{recipe}.yaml"
        if problems := check([path], root, None).problems:
            raise RecipeError(problems)
        self.loaded = load_recipe(path, root)
        self.name, self.recipe = recipe, self.loaded.recipe
        self.settings = load_params(root / "params.yaml").run
        self.past = Lengths(ledger.read_ledger(ledger.ledger_folder()))
        self.stages: list[StageForecast] = []
        self.notes: list[str] = []
        self._known = completion_store().get
        self._placeholders: dict[str, str] = {}  # by key, empty where the reply is there
        self._rows: dict[str, list[Any]] = {}
        self._spread: Three = CERTAIN
        self._run_all(root)

    def asked(self) -> list[Requests]:
        return [one for stage in self.stages for one in stage.asked.values()]

    def _run_all(self, root: Path) -> None:
        plan, again = make_plan(self.loaded, root), dict[str, str]()
        status = Status(self.name, plan, list(self.recipe.mix.arms))
        for artifact in ARTIFACTS:
            if not plan.get(artifact):
                self._rows[artifact] = []  # the recipe does without
                continue
            stage = StageForecast(artifact, status.why(artifact, again))
            self.stages.append(stage)
            if artifact in DRY_STAGES and stage.reasons:
                self._run(stage)
            if stage.reasons and not stage.same:
                again[artifact] = "will be made again"

    def _run(self, stage: StageForecast) -> None:
        """Find the rows of an artifact, and what its stage asks."""
        artifact = stage.artifact
        providers: dict[str, Callable[[StageRunner], Any]] = {
            **PROVIDERS,
            "executor": lambda _: LocalExecutor(),
            "generate": lambda _: self._generate,
            "models": lambda runner: {name: _model(runner, name, spec) for name, spec in self.recipe.models.items()},
            "read_split": lambda _: _read_local_split,
            "log": lambda _: lambda _text: None,
        }
        try:
            rows = StageRunner(artifact, self.loaded, self.settings, read=self._input, providers=providers).call()
            self._rows[artifact] = self._expect(artifact, sorted(rows, key=lambda row: row.id))
        except (NotKnownYet, RunError) as error:
            stage.unknown = str(error)
            if artifact == "questions" and isinstance(error, NotKnownYet):
                self._expect_questions(stage)
            return
        stage.same = self._rows[artifact] == self._on_disk(artifact)

    def _input(self, _: StageRunner, artifact: str, __: bool) -> Any:
        return self._student() if artifact == "base" else self._rows_of(artifact)

    def _rows_of(self, artifact: str) -> list[Any]:
        if artifact not in self._rows:
            if any(stage.artifact == artifact and stage.reasons for stage in self.stages):
                raise NotKnownYet(f"unknown until {artifact} {'is' if artifact == 'source' else 'are'} made")
            self._rows[artifact] = self._on_disk(artifact) or []
        return self._rows[artifact]

    def _on_disk(self, artifact: str) -> list[Any] | None:
        """The rows of before, None when there are none that can be read."""
        row_type = ARTIFACTS[artifact]
        assert row_type is not None
        try:
            return parquet.read_rows(artifact_path(artifact, self.name), row_type)
        except RunError:
            return None

    def _student(self) -> Model:
        """The student as its artifact describes it; its weights are not touched."""
        record = artifact_path("base", self.name) / "base.json"
        if not record.is_file():
            return Model("base", "transformers", "transformers, not made yet", chat=self.recipe.base.chat)
        facts = json.loads(record.read_text(encoding="utf-8"))
        return Model("base", "transformers", f"transformers {facts['identity']}", chat=facts["chat"])

    # The `generate` of stages.

    def _generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        for request in requests:
            known = self._known(request.key)
            if request.key not in self._placeholders:
                self._placeholders[request.key] = self._count(request, known)
            yield known or Completion(self._placeholders[request.key], "stop")

    def _count(self, request: Request, reply: Completion | None) -> str:
        """Count a request; the text of its placeholder where it has no reply."""
        model, stage = request.model, self.stages[-1]
        if model.label not in stage.asked:
            endpoint = self.settings.endpoints.get(model.endpoint or "")
            spread = {"samples": CERTAIN, "evolved": EVOLVED}.get(stage.artifact, self._spread)
            price = price_of(model, self.settings)
            stage.asked[model.label] = Requests(stage.artifact, model, price, endpoint, self.past, spread)
        asked = stage.asked[model.label]
        asked.requests += 1
        length, most = request.characters, request.sampling.max_tokens
        if reply is not None:
            asked.cached += 1
            self.past.add(asked.name, stage.artifact, length, reply.prompt_tokens, reply.completion_tokens)
            return ""
        totals = asked.derived if any(MARK in message.content for message in request.messages) else asked.sure
        totals += (1, length, max_reply_tokens(model, most) or most)
        tokens = self.past.reply(asked.name, stage.artifact) or LENGTHS[1] * most
        return placeholder(len(self._placeholders), int(tokens * self.past.ratio(asked.name)[1]))

    # What rows become that are made of placeholders.

    def _expect_questions(self, stage: StageForecast) -> None:
        """Placeholders for questions whose number stands in the recipe."""
        spec, source = self.recipe.questions, self.recipe.source
        if (count := spec.train if spec.train is not None else source.train) is not None:
            stage.unknown = None
            texts = [placeholder(number, QUESTION) for number in range(count)]
            self._rows["questions"] = [
                Question(f"unknown-{number:06d}", "train", text, "0", text) for number, text in enumerate(texts)
            ]
            self.notes.append(f"the questions are not there yet: {count:,} of {QUESTION} characters are assumed")

    def _expect(self, artifact: str, rows: list[Any]) -> list[Any]:
        """The rows of a stage, with the outcomes that are expected of those made of placeholders."""
        changes: dict[str, Any] = {"status": "parsed", "reason": None, "incorrect_step": 1}
        match artifact:
            case "samples":
                self._note_derived(rows)
            case "grades":
                rows = self._expect_grades(rows)
            case "locations":  # all are found
                rows = [replace(row, **changes) if MARK in row.reply else row for row in rows]
            case "corrections":
                found = self._readable(rows)
                rows = [
                    replace(row, explanation=row.reply, solution=row.reply, **changes) if row.id in found else row
                    for row in rows
                ]
            case "verdicts":  # all are accepted, so that there are questions to evolve
                unknown = {row.id for row in self._rows_of("corrections") if MARK in row.reply}
                changes = {"accepted": True, "dropped_by": None, "reason": None}
                rows = [replace(row, **changes) if row.id in unknown else row for row in rows]
        stops = artifact in ("samples", "corrections") and getattr(self.recipe, artifact).want is not None
        if stops and self.stages[-1].asked:
            # No placeholder is wrong or accepted, so it is asked until the end here.
            self.notes.append(f"{artifact} stop once there are as many as `want` says: these are the most")
        return rows

    def _note_derived(self, rows: Sequence[Any]) -> None:
        """Paths that are made of others that are not there yet are not counted."""
        counts = Counter(row.sampler for row in rows)
        train = sum(question.split == "train" for question in self._rows_of("questions"))
        missing = {row.sampler for row in rows if MARK in row.text}
        for name, sampler in self.recipe.samples.samplers.items():
            if isinstance(sampler, BranchSampler | TypedSampler):
                of = sampler.branch.of if isinstance(sampler, BranchSampler) else sampler.inject.of
                if of in missing:
                    more = train * sampler.paths - counts[name]
                    self.notes.append(f"{name} begins with paths of {of} that are not there yet: up to {more:,} more")

    def _expect_grades(self, rows: Sequence[Any]) -> list[Any]:
        """So many paths of a sampler are wrong as of those that are known."""
        unknown = {row.id for row in self._rows_of("samples") if MARK in row.text}
        before = self._on_disk("grades") or []
        wrong, spreads = set[str](), [CERTAIN]
        for sampler in dict.fromkeys(row.sampler for row in rows if row.id in unknown):
            own = [row for row in rows if row.sampler == sampler]
            here = [row.outcome == "incorrect" for row in own if row.id not in unknown]
            there = [row.outcome == "incorrect" for row in before if row.sampler == sampler]
            share = self._share(f"{sampler}'s paths are wrong", here, there, WRONG)
            wrong |= _evenly([row.id for row in own if row.id in unknown], share[1])
            spreads.append(_relative(share))
        self._spread = min(one[0] for one in spreads), 1.0, max(one[2] for one in spreads)
        outcomes = {name: "incorrect" if name in wrong else "correct" for name in unknown}
        return [replace(row, outcome=outcomes[row.id], answer=None) if row.id in unknown else row for row in rows]

    def _readable(self, rows: Sequence[Any]) -> set[str]:
        """So many corrections can be read as of those that are known."""
        unknown = [row.id for row in rows if MARK in row.reply]
        if not unknown:
            return set()
        here, before = (
            [one.status == "parsed" for one in them if MARK not in one.reply]
            for them in (rows, self._on_disk("corrections") or [])
        )
        share = self._share("corrections can be read", here, before, READABLE)
        self._spread = [one * more for one, more in zip(self._spread, _relative(share), strict=True)]
        return _evenly(unknown, share[1])

    def _share(self, what: str, known: Sequence[bool], before: Sequence[bool], guess: Three) -> Three:
        """A share with two standard errors on each side: of rows that are known here, else of those of before, else a
        guess."""
        for rows, where in ((known, "known here"), (before, "made before")):
            if (count := len(rows)) >= ENOUGH:
                share = sum(rows) / count
                error = 2 * math.sqrt(max(share * (1 - share), 1 / count) / count)
                self.notes.append(f"{share:.0%} of {what}, as of {count:,} {where}")
                return max(0.0, share - error), share, min(1.0, share + error)
        self.notes.append(f"{guess[1]:.0%} of {what}: a guess, {guess[0]:.0%} to {guess[2]:.0%}")
        return guess


def placeholder(number: int, length: int) -> str:
    """A text that stands for one that is not there yet, in lines like steps; no two are equal."""
    # Letters: filters look for equations in every run of signs.
    line = f"{MARK} {number} ".ljust(60, "x") + "\n"
    return (line * (length // len(line) + 1))[: max(length, len(line) - 1)].strip()


def _evenly(names: Sequence[str], share: float) -> set[str]:
    """A share of some names, evenly spread over them."""
    return {name for at, name in enumerate(names) if int((at + 1) * share) > int(at * share)}


def _relative(share: Three) -> Three:
    return (share[0] / share[1], 1.0, share[2] / share[1]) if share[1] else CERTAIN


def _model(runner: StageRunner, name: str, spec: ModelSpec) -> Model:
    try:
        return recipe_model(runner, name, spec)
    except RunError:  # an adapter of another recipe that is not trained yet
        return Model(name, spec.backend, f"{spec.adapter}, not made yet", chat=spec.chat)


def _read_local_split(spec: SourceSpec, split: str) -> Any:
    if spec.hub:
        raise NotKnownYet(f"unknown until it is fetched: {spec.hub} is on the hub")
    return read_split(spec, split)
