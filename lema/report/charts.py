"""Charts that fit into the cell of a table: inline SVG for the page, a line of characters for Markdown.

Positions in SVG are in per cent of the cell, so that a chart is as wide as its column and text keeps its size.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from lema.report.counts import Measurements

HISTOGRAM_BINS = 24
WIDTH = 25  # characters of an interval in Markdown
BLOCKS = "▁▂▃▄▅▆▇█"


class Chart(NamedTuple):
    """One chart twice."""

    svg: str
    text: str


def axis(low: float, high: float, ticks: int = 5) -> list[float]:
    """Round tick values that hold [low, high], about as many as asked for.

    >>> axis(0.08, 0.62)
    [0.0, 0.2, 0.4, 0.6, 0.8]
    """
    span = max(high - low, 1e-9)
    power = 10.0 ** math.floor(math.log10(span / ticks))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= ticks)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(at * step, 10) for at in range(first, last + 1)]


def position(value: float, ticks: Sequence[float]) -> float:
    """Where a value stands on an axis, in per cent of its length."""
    return round(100 * (value - ticks[0]) / ((ticks[-1] - ticks[0]) or 1), 2)


def accuracy_axis(arms: Sequence[Mapping[str, Any]]) -> list[float]:
    """Ticks that hold the intervals of all models and the accuracies of all trainings, within 0 and 1."""
    seeds = [accuracy for row in arms for accuracy in row["by_seed"].values()]
    low, high = min([*seeds, *(row["low"] for row in arms)]), max([*seeds, *(row["high"] for row in arms)])
    return [tick for tick in axis(low, high) if -1e-9 <= tick <= 1 + 1e-9]


def difference_axis(pairs: Sequence[Mapping[str, Any]]) -> list[float]:
    """Ticks that hold the intervals of all pairs, and zero."""
    low, high = min([0.0, *(row["low"] for row in pairs)]), max([0.0, *(row["high"] for row in pairs)])
    return axis(low, high if high > low else low + 0.1)


def interval(row: Mapping[str, Any], value: str, ticks: Sequence[float], seeds: Sequence[float] = ()) -> Chart:
    """`row[value]` with its interval on an axis, and the values of single trainings as rings."""
    low, high, middle = (position(row[name], ticks) for name in ("low", "high", value))
    lines = [
        _vertical_line("zero" if tick == 0 != ticks[0] else "grid", position(tick, ticks), -4, 28) for tick in ticks
    ]
    reach = f'<line class="reach" x1="{low}%" x2="{high}%" y1="12" y2="12"/>'
    lines += [reach, *(_vertical_line("reach", end, 8, 16) for end in (low, high))]
    rings = "".join(f'<circle class="seed" cx="{position(one, ticks)}%" cy="12" r="3"/>' for one in seeds)
    dot = f'<circle class="dot" cx="{middle}%" cy="12" r="4.5"/>'
    label = f"{row[value]:.1%}, interval {row['low']:.1%} to {row['high']:.1%}"
    svg = f'<svg class="interval" height="24" role="img" aria-label="{label}">{"".join(lines)}{rings}{dot}</svg>'

    first, at, last = (round(one / 100 * (WIDTH - 1)) for one in (low, middle, high))
    cells = ["─" if first <= place <= last else "·" for place in range(WIDTH)]
    cells[first], cells[last] = "├", "┤"
    if ticks[0] < 0 < ticks[-1]:
        cells[round(position(0, ticks) / 100 * (WIDTH - 1))] = "│"
    cells[at] = "●"
    return Chart(svg, f"`{''.join(cells)}`")


def _vertical_line(kind: str, x: float, top: float, bottom: float) -> str:
    return f'<line class="{kind}" x1="{x}%" x2="{x}%" y1="{top}" y2="{bottom}"/>'


def scale(ticks: Sequence[float], sign: bool = False) -> Chart:
    """The axis under intervals, in per cent."""
    labels = [f"{100 * tick:{'+' if sign and tick else ''}.4g}".replace("-", "−") for tick in ticks]
    texts = "".join(
        f'<text x="{position(tick, ticks)}%" y="12" text-anchor="middle">{label}</text>'
        for tick, label in zip(ticks, labels, strict=True)
    )
    return Chart(f'<svg class="interval" height="16" aria-hidden="true">{texts}</svg>', f"{labels[0]} … {labels[-1]}")


def bar(count: int, top: int, part: int | None = None) -> Chart:
    """A count as a share of the largest one; of it a darker part."""
    whole, inner = (100 * one / (top or 1) for one in (count, count if part is None else part))
    light = f'<rect class="bar faint" width="{whole:.2f}%" height="14"/>' if part is not None else ""
    dark = f'<rect class="bar" width="{inner:.2f}%" height="14"/>'
    filled, all_of_it = (math.ceil(one / 5) for one in (inner, whole))
    return Chart(f'<svg height="14" aria-hidden="true">{light}{dark}</svg>', "█" * filled + "░" * (all_of_it - filled))


def histogram(name: str, values: Measurements) -> Chart:
    """What a filter measured, from the least to the most; what it drops is red, and darker in Markdown's line."""
    low, high = (end([*values.kept, *values.dropped]) for end in (min, max))
    if low == high:
        return Chart("", "")
    whole = high - low < HISTOGRAM_BINS and all(
        value == int(value) for own in (values.kept, values.dropped) for value in own
    )
    # Whole numbers that are few have a bar each, centred as the others are.
    count = int(high - low) + 1 if whole else HISTOGRAM_BINS
    bins = [[0, 0] for _ in range(count)]
    for dropped, own in enumerate((values.kept, values.dropped)):
        for value in own:
            place = int(value - low) if whole else min(count - 1, int((value - low) / (high - low) * count))
            bins[place][dropped] += 1
    top = max(map(sum, bins))
    bars = ""
    for place, (kept, dropped) in enumerate(bins):
        # One of thousands is seen, too.
        red, blue = (max(100 * part / top, 4.0 * bool(part)) for part in (dropped, kept))
        for kind, height, bottom in (("bar", blue, red), ("bar dropped", red, 0)):
            if height:
                bars += (
                    f'<rect class="{kind}" x="{100 * place / count:.2f}" width="{94 / count:.2f}" '
                    f'y="{100 - height - bottom:.2f}" height="{height:.2f}"/>'
                )
    label = escape(f"{name}: {short_figure(low)} to {short_figure(high)}")
    svg = (
        '<svg class="histogram" viewBox="0 0 100 100" preserveAspectRatio="none" role="img" '
        f'aria-label="{label}">{bars}</svg>'
    )
    return Chart(svg, "".join(_block_character(sum(one), top) for one in bins))


def _block_character(count: float, top: float) -> str:
    """A character as high as a share of the largest count; a blank for nothing."""
    return BLOCKS[max(0, math.ceil(8 * count / top) - 1)] if count else "\u2007"


def loss_curves(adapters: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For every arm that logged its loss: how often, the first, the last, and its curve on axes common to all arms."""
    logged = {arm: _finite_losses(record.get("curve", ())) for arm, record in adapters.items()}
    logged = {arm: points for arm, points in logged.items() if points}
    if not logged:
        return []
    steps = axis(0, max(step for points in logged.values() for step, _ in points), 4)
    losses = axis(0, max(loss for points in logged.values() for _, loss in points), 4)
    return [
        {"arm": arm, "logged": len(points), "first": points[0][1], "last": points[-1][1],
         "curve": _loss_chart(arm, points, steps, losses)}
        for arm, points in logged.items()
    ]  # fmt: skip


def _loss_chart(
    arm: str, points: Sequence[tuple[float, float]], steps: Sequence[float], losses: Sequence[float]
) -> Chart:
    line = " ".join(f"{position(x, steps)},{100 - position(y, losses):.2f}" for x, y in points)
    grid = "".join(
        f'<line class="grid" x1="0" x2="100" y1="{y:.2f}" y2="{y:.2f}"/>'
        for y in (100 - position(tick, losses) for tick in losses)
    )
    marks = "".join(
        f'<text x="11%" y="{12 + 96 - 0.96 * position(tick, losses):.2f}" text-anchor="end">{tick:g}</text>'
        for tick in losses
    ) + "".join(
        f'<text x="{13 + 0.83 * position(tick, steps):.2f}%" y="124" text-anchor="middle">{tick:g}</text>'
        for tick in steps
    )
    svg = (
        f'<svg class="curve" height="130" role="img" aria-label="{escape(f"Training loss of {arm}")}, '
        f'{points[-1][1]:.3f} at the end">'
        f'<svg x="13%" y="8" width="83%" height="96" viewBox="0 0 100 100" preserveAspectRatio="none">{grid}'
        f'<polyline points="{line}"/></svg>{marks}</svg>'
    )
    shown = (
        [points[round(at * (len(points) - 1) / (HISTOGRAM_BINS - 1))][1] for at in range(HISTOGRAM_BINS)]
        if len(points) > 1
        else []
    )
    return Chart(svg, "".join(_block_character(max(loss, 0), losses[-1]) for loss in shown))


def _finite_losses(curve: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """(step, loss) of the lines that have a loss that is a number."""
    points = []
    for line in curve:
        try:
            loss = float(line["loss"])
        except (KeyError, TypeError, ValueError):
            continue
        if math.isfinite(loss):
            points.append((float(line["step"]), loss))
    return points


def quantiles(values: Measurements, shares: Sequence[int]) -> list[str]:
    """Quantiles in per cent, each one of the values (nearest rank); 0 and 100 are the least and the most."""
    known = sorted([*values.kept, *values.dropped])
    return [short_figure(known[max(0, math.ceil(share / 100 * len(known)) - 1)]) for share in shares]


def short_figure(value: float) -> str:
    """A figure to three digits, whole numbers in full."""
    return f"{value:,.0f}" if value == int(value) else f"{value:.3g}"
