"""Charts that fit into the cell of a table, as inline SVG.

Positions are in per cent of the cell, so that a chart is as wide as its column and text keeps its size.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from markupsafe import Markup

HISTOGRAM_BINS = 24


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


def interval(row: Mapping[str, Any], value: str, ticks: Sequence[float], seeds: Sequence[float] = ()) -> Markup:
    """`row[value]` with its interval on an axis, and the values of single trainings as rings."""
    low, high, middle = (position(row[name], ticks) for name in ("low", "high", value))
    grid = (
        _vertical_line("zero" if tick == 0 != ticks[0] else "grid", position(tick, ticks), -4, 28) for tick in ticks
    )
    reach = f'<line class="reach" x1="{low}%" x2="{high}%" y1="12" y2="12"/>'
    ends = (_vertical_line("reach", end, 8, 16) for end in (low, high))
    rings = (f'<circle class="seed" cx="{position(one, ticks)}%" cy="12" r="3"/>' for one in seeds)
    dot = f'<circle class="dot" cx="{middle}%" cy="12" r="4.5"/>'
    label = f"{row[value]:.1%}, interval {row['low']:.1%} to {row['high']:.1%}"
    return Markup(
        f'<svg class="interval" height="24" role="img" aria-label="{label}">'
        f"{''.join([*grid, reach, *ends, *rings, dot])}</svg>"
    )


def _vertical_line(kind: str, x: float, top: float, bottom: float) -> str:
    return f'<line class="{kind}" x1="{x}%" x2="{x}%" y1="{top}" y2="{bottom}"/>'


def scale(ticks: Sequence[float], sign: bool = False) -> Markup:
    """The axis under intervals, in per cent."""
    labels = (f"{100 * tick:{'+' if sign and tick else ''}.4g}".replace("-", "−") for tick in ticks)
    texts = "".join(
        f'<text x="{position(tick, ticks)}%" y="12" text-anchor="middle">{label}</text>'
        for tick, label in zip(ticks, labels, strict=True)
    )
    return Markup(f'<svg class="interval" height="16" aria-hidden="true">{texts}</svg>')


def bar(count: int, top: int, part: int | None = None) -> Markup:
    """A count as a share of the largest one; of it a darker part."""
    whole, inner = (100 * one / (top or 1) for one in (count, count if part is None else part))
    light = f'<rect class="bar faint" width="{whole:.2f}%" height="14"/>' if part is not None else ""
    dark = f'<rect class="bar" width="{inner:.2f}%" height="14"/>'
    return Markup(f'<svg height="14" aria-hidden="true">{light}{dark}</svg>')


def histogram(name: str, kept: Sequence[float], dropped: Sequence[float]) -> Markup:
    """What a filter measured, from the least to the most; what it drops is red; empty where all is the same."""
    import numpy as np

    values = np.array([*kept, *dropped])
    low, high = float(values.min()), float(values.max())
    if low == high:
        return Markup('<svg height="0"></svg>')
    # Whole numbers that are few have a bar each.
    whole = high - low < HISTOGRAM_BINS and bool((values == values.round()).all())
    count, ends = (int(high - low) + 1, (low - 0.5, high + 0.5)) if whole else (HISTOGRAM_BINS, (low, high))
    blues, reds = (np.histogram(own, count, ends)[0].tolist() for own in (kept, dropped))
    top, bars = max(map(sum, zip(blues, reds, strict=True))), ""
    for place, parts in enumerate(zip(blues, reds, strict=True)):
        blue, red = (max(100 * part / top, 4.0 * bool(part)) for part in parts)  # one of thousands is seen, too
        for kind, height, bottom in (("bar", blue, red), ("bar dropped", red, 0)):
            if height:
                bars += (
                    f'<rect class="{kind}" x="{100 * place / count:.2f}" width="{94 / count:.2f}" '
                    f'y="{100 - height - bottom:.2f}" height="{height:.2f}"/>'
                )
    return Markup(
        '<svg class="histogram" viewBox="0 0 100 100" preserveAspectRatio="none" role="img" '
        f'aria-label="{_attribute(f"{name}: {short_figure(low)} to {short_figure(high)}")}">'
        f"{bars}</svg>"
    )


def loss_curves(adapters: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For every arm that logged its loss: how often, the first, the last, and its curve on axes common to all arms."""
    logged = {}
    for arm, record in adapters.items():
        known = [line for line in record.get("curve", ()) if math.isfinite(line.get("loss", math.nan))]
        if known:
            logged[arm] = [(line["step"], line["loss"]) for line in known]
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
) -> Markup:
    line = " ".join(f"{position(x, steps)},{100 - position(y, losses):.2f}" for x, y in points)
    heights = {tick: position(tick, losses) for tick in losses}
    grid = "".join(
        f'<line class="grid" x1="0" x2="100" y1="{100 - y:.2f}" y2="{100 - y:.2f}"/>' for y in heights.values()
    )
    marks = "".join(
        f'<text x="11%" y="{108 - 0.96 * y:.2f}" text-anchor="end">{tick:g}</text>' for tick, y in heights.items()
    ) + "".join(
        f'<text x="{13 + 0.83 * position(tick, steps):.2f}%" y="124" text-anchor="middle">{tick:g}</text>'
        for tick in steps
    )
    return Markup(
        f'<svg class="curve" height="130" role="img" aria-label="{_attribute(f"Training loss of {arm}")}, '
        f'{points[-1][1]:.3f} at the end">'
        f'<svg x="13%" y="8" width="83%" height="96" viewBox="0 0 100 100" preserveAspectRatio="none">{grid}'
        f'<polyline points="{line}"/></svg>{marks}</svg>'
    )


def _attribute(text: str) -> str:
    """A text in an attribute, in the cell of a Markdown table."""
    return escape(text).replace("|", "&#124;")


def short_figure(value: float) -> str:
    """A figure to three digits, whole numbers in full."""
    return f"{value:,.0f}" if value == int(value) else f"{value:.3g}"
