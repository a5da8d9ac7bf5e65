"""`lema plan`: what a recipe would make again and why, what that asks of models, and what it costs.

Rows that a dry run makes as they are do not touch what reads them, as in `dvc repro`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from lema.check.check import check
from lema.completions.budget import remaining_budget
from lema.completions.cost import format_table
from lema.completions.prices import format_dollars
from lema.compute.artifacts import ARTIFACTS
from lema.compute.progress import format_duration
from lema.errors import RecipeError
from lema.pipeline.dry_run import DRY_STAGES, DryRun, StageForecast
from lema.pipeline.forecast import Lengths, Requests
from lema.pipeline.plan import make_plan
from lema.pipeline.status import Status
from lema.recipe.params import Run


@dataclass
class Estimate:
    """The plan of a recipe with what it costs; `notes` say what the numbers are estimated from, `left` what the
    budget has left, by the key that sets it."""

    recipe: str
    description: str
    stages: Sequence[StageForecast]
    past: Lengths
    run: Run
    notes: Sequence[str]

    def asked(self) -> list[Requests]:
        return [one for stage in self.stages for one in stage.asked]

    def unpriced(self) -> list[str]:
        """Models that are to be asked and have no price."""
        return sorted({one.model.name or one.model.label for one in self.asked() if one.missing and not one.price})

    def dollars(self) -> tuple[Decimal, Decimal, Decimal]:
        """Low, expected, high, of all that has a price."""
        known = [found for one in self.asked() if (found := one.dollars(self.past, self.run))]
        low, expected, high = (sum((each[at] for each in known), Decimal(0)) for at in range(3))
        return low, expected, high


def estimate(recipe: str) -> Estimate:
    """Raises RecipeError for a recipe with mistakes."""
    root = Path.cwd()
    report = check([root / "recipes" / f"{recipe}.yaml"], root, None)
    if report.problems:
        raise RecipeError(report.problems)
    dry = DryRun(recipe)
    plan = make_plan(dry.loaded, root)
    status = Status(recipe, plan, list(dry.recipe.mix.arms))
    again: dict[str, str] = {}
    stages = []
    for artifact in ARTIFACTS:
        if artifact == "plan":
            continue
        if not plan[artifact]:
            dry.rows[artifact] = []  # the recipe does without
            continue
        stage = StageForecast(artifact, status.why(artifact, again))
        if artifact in DRY_STAGES:
            dry.run(stage)
        if stage.reasons and not stage.same:
            again[artifact] = "will be made again"
        stages.append(stage)
    return Estimate(recipe, dry.recipe.description or "", stages, dry.forecast.past, dry.settings, dry.notes)


HEADS = ("", "requests", "cached", "to buy", "tokens in", "tokens out", "low", "expected", "high", "time")


def text(found: Estimate) -> str:
    """An estimate as people read it."""
    rows = [row for stage in found.stages for row in _rows(stage, found)]
    heads = [HEADS] if any(len(row) > 1 for row in rows) else []
    return "\n".join(
        [f"{found.recipe}: {found.description}".rstrip(": "), *format_table([*heads, *rows]), "", *_summary(found)]
    )


def _rows(stage: StageForecast, found: Estimate) -> Iterator[tuple[str, ...]]:
    if not stage.reasons:
        yield (f"{stage.artifact:<12}up to date",)
        return
    worth = "unknown" if stage.unknown else "free" if all(one.free for one in stage.asked) else "paid"
    what = f"stale, {worth}: {'; '.join(stage.reasons)}"
    if stage.same:
        what += " (will come out as it is)"
    if stage.unknown:
        what += f" ({stage.unknown})"
    yield (f"{stage.artifact:<12}{what}",)
    for one in stage.asked:
        yield _estimate_row(one, found)


def _estimate_row(one: Requests, found: Estimate) -> tuple[str, ...]:
    about = "" if one.spread == (1.0, 1.0, 1.0) or not one.derived.requests else "~"
    prompts, replies = one.tokens(found.past)
    costs = one.dollars(found.past, found.run)
    seconds = one.seconds(found.past, found.run)
    return (
        f"  {one.model.label}",
        f"{about}{one.requests:,}",
        f"{one.cached:,}",
        f"{about}{one.missing:,}",
        f"{prompts[1]:,.0f}",
        f"{replies[1]:,.0f}",
        *(("?", "?", "?") if costs is None else (format_dollars(each) for each in costs)),
        "" if seconds is None else format_duration(seconds),
    )


def _summary(found: Estimate) -> Iterator[str]:
    missing = sum(one.missing for one in found.asked() if one.model.endpoint)
    local = sum(one.missing for one in found.asked() if not one.model.endpoint)
    unknown = [stage.artifact for stage in found.stages if stage.unknown]
    low, expected, high = found.dollars()
    if missing:
        priced = any(one.missing and one.price and one.model.endpoint for one in found.asked())
        worth = (
            f"{format_dollars(expected)} expected ({format_dollars(low)} to {format_dollars(high)})"
            if priced
            else "the price is unknown"
        )
        yield f"To buy: {missing:,} replies, {worth}."
    elif not unknown:
        yield "Nothing to buy."
    if local:
        yield f"Made here, for nothing: {local:,} replies."
    rooms = remaining_budget(found.run, found.recipe)
    if names := found.unpriced():
        yield f"Not counted, the price is unknown: {', '.join(names)}; `run.prices` in params.yaml sets it."
        if rooms:
            yield "There is a budget, so nothing is sent to a model of unknown price."
    if unknown:
        yield f"Not counted, unknown as yet: {', '.join(unknown)}."
    if "source" in unknown:
        first = " && ".join(f"lema make {one} {found.recipe}" for one in ("plan", "source", "questions"))
        yield f"Its questions cost nothing, and say more: {first}"
    for key, room in rooms.items():
        enough = "" if room >= high else ", less than the high estimate" if room >= expected else ", too little"
        yield f"{key} has {format_dollars(max(room, Decimal(0)))} left{enough}."
    if found.notes:
        yield "Estimated: " + "; ".join(found.notes) + "."
