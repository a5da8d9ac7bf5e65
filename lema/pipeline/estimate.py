"""`lema plan` as people read it: what a recipe would make again and why, what that asks of models, what it costs."""

from collections.abc import Iterator
from decimal import Decimal

from lema.completions.cost import format_table
from lema.completions.ledger import remaining_budget
from lema.completions.prices import format_dollars
from lema.compute.progress import format_duration
from lema.pipeline.dry_run import DryRun, StageForecast
from lema.pipeline.forecast import CERTAIN, Requests

HEADS = ("", "requests", "cached", "to buy", "tokens in", "tokens out", "low", "expected", "high", "time")


def plan_table(dry: DryRun) -> str:
    """The artifacts of a dry run, each with what it asks of models, and sums."""
    rows = [row for stage in dry.stages for row in _stage_rows(stage)]
    heads = [HEADS] if any(len(row) > 1 for row in rows) else []
    title = f"{dry.name}: {dry.recipe.description or ''}".rstrip(": ")
    return "\n".join([title, *format_table([*heads, *rows]), "", *_summary(dry)])


def _stage_rows(stage: StageForecast) -> Iterator[tuple[str, ...]]:
    if not stage.reasons:
        yield (f"{stage.artifact:<12}up to date",)
        return
    worth = "unknown" if stage.unknown else "free" if all(one.free for one in stage.asked.values()) else "paid"
    same = " (will come out as it is)" if stage.same else ""
    why = f" ({stage.unknown})" if stage.unknown else ""
    yield (f"{stage.artifact:<12}stale, {worth}: {'; '.join(stage.reasons)}{same}{why}",)
    yield from map(_asked_row, stage.asked.values())


def _asked_row(one: Requests) -> tuple[str, ...]:
    about = "~" if one.spread != CERTAIN and one.derived[0] else ""
    (_, prompts, _), (_, replies, _) = one.tokens()
    costs, seconds = one.dollars(), one.seconds()
    return (
        f"  {one.model.label}",
        f"{about}{one.requests:,}",
        f"{one.cached:,}",
        f"{about}{one.missing:,}",
        f"{prompts:,.0f}",
        f"{replies:,.0f}",
        *(("?", "?", "?") if costs is None else map(format_dollars, costs)),
        "" if seconds is None else format_duration(seconds),
    )


def _summary(dry: DryRun) -> Iterator[str]:
    here = [one for one in dry.asked() if one.missing and one.free and not one.endpoint]
    bought = [one for one in dry.asked() if one.missing and one not in here]
    unknown = [stage.artifact for stage in dry.stages if stage.unknown]
    known = [costs for one in bought if (costs := one.dollars())]
    low, expected, high = (sum((costs[at] for costs in known), Decimal(0)) for at in range(3))
    if bought:
        worth = f"{format_dollars(expected)} expected ({format_dollars(low)} to {format_dollars(high)})"
        priced = worth if known else "the price is unknown"
        yield f"To buy: {sum(one.missing for one in bought):,} replies, {priced}."
    elif not unknown:
        yield "Nothing to buy."
    if here:
        yield f"Made here, for nothing: {sum(one.missing for one in here):,} replies."
    if names := sorted({one.name for one in bought if one.price is None}):
        yield f"Not counted, the price is unknown: {', '.join(names)}; `run.prices` in params.yaml sets it."
    if unknown:
        yield f"Not counted, unknown as yet: {', '.join(unknown)}."
    if "source" in unknown:
        first = " && ".join(f"lema make {one} {dry.name}" for one in ("plan", "source", "questions"))
        yield f"Its questions cost nothing, and say more: {first}"
    for key, room in remaining_budget(dry.settings, dry.name).items():
        enough = "" if room >= high else ", less than the high estimate" if room >= expected else ", too little"
        yield f"{key} has {format_dollars(max(room, Decimal(0)))} left{enough}."
    if dry.notes:
        yield "Estimated: " + "; ".join(dry.notes) + "."
