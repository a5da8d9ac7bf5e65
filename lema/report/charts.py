"""Positions for the report's figures: axes, whiskers and curves. The drawing itself is in the template."""

import math
from collections.abc import Mapping, Sequence
from typing import Any


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


def place(value: float, ticks: Sequence[float]) -> str:
    """Where a value stands on an axis, in per cent of its length."""
    return f"{100 * (value - ticks[0]) / ((ticks[-1] - ticks[0]) or 1):.2f}"


def accuracy_axis(arms: Sequence[Mapping[str, Any]]) -> list[float]:
    """Ticks that hold the intervals of all models and the accuracies of all trainings, within 0 and 1."""
    seeds = [accuracy for row in arms for accuracy in row["by_seed"].values()]
    low, high = min([*seeds, *(row["low"] for row in arms)]), max([*seeds, *(row["high"] for row in arms)])
    return [tick for tick in axis(low, high) if -1e-9 <= tick <= 1 + 1e-9]


def difference_axis(pairs: Sequence[Mapping[str, Any]]) -> list[float]:
    """Ticks that hold the intervals of all pairs, and zero."""
    low, high = min([0.0, *(row["low"] for row in pairs)]), max([0.0, *(row["high"] for row in pairs)])
    return axis(low, high if high > low else low + 0.1)


def curves(training: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Loss of every arm on common axes, as points of a polyline in a square of 100; None when nothing was logged."""
    logged = _logged(training)
    if not logged:
        return None
    losses = [loss for points in logged.values() for _, loss in points]
    steps = axis(0, max(max(step for step, _ in points) for points in logged.values()), 4)
    heights = axis(0, max(losses), 4)
    return {
        "x": steps,
        "y": heights,
        "arms": [
            {
                "arm": arm,
                "points": " ".join(f"{place(x, steps)},{100 - float(place(y, heights)):.2f}" for x, y in points),
                "last": points[-1][1],
            }
            for arm, points in logged.items()
        ],
    }


def losses(training: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """First and last loss of every arm, for those who cannot see the curves."""
    return [
        {"arm": arm, "logged": len(points), "first": points[0][1], "last": points[-1][1]}
        for arm, points in _logged(training).items()
    ]


def _logged(training: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Arm -> (step, loss), where there are any."""
    logged = {
        row["arm"]: [(float(at["step"]), float(at["loss"])) for at in row["curve"] if _known(at.get("loss"))]
        for row in training
    }
    return {arm: points for arm, points in logged.items() if points}


def _known(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False
