"""What every filter measured, spread out so that a person can choose its threshold."""

import math
from collections.abc import Sequence
from typing import Any

from lema.rows import Finding, Verdict

# In per cent; the ends are the least and the most.
QUANTILES = (0, 5, 25, 50, 75, 95, 100)
BINS = 24


def statistics(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Of every filter that measured anything, in order: how many corrections, quantiles, and a histogram as
    (place, width, height of those that it drops, height of the others), in per cent of the figure."""
    columns = zip(*(row.findings for row in verdicts), strict=True) if verdicts else ()
    return [made for column in columns if (made := _statistics(column))]


def _statistics(column: Sequence[Finding]) -> dict[str, Any] | None:
    known = sorted((finding.value, finding.reason is not None) for finding in column if finding.value is not None)
    if not known:
        return None
    values = [value for value, _ in known]
    return {
        "name": column[0].filter,
        "measured": len(known),
        "quantiles": [short(values[_rank(share, len(values))]) for share in QUANTILES],
        "bars": _bars(known),
    }


def _rank(share: int, count: int) -> int:
    """The place of a quantile that is one of the values (nearest rank)."""
    return max(0, math.ceil(share / 100 * count) - 1)


def _bars(known: Sequence[tuple[float, bool]]) -> list[tuple[str, str, str, str]]:
    low, high = known[0][0], known[-1][0]
    if low == high:
        return []
    whole = all(value == int(value) for value, _ in known) and high - low < BINS
    # Whole numbers that are few have a bar each, centred as the others are.
    count = int(high - low) + 1 if whole else BINS
    bins = [[0, 0] for _ in range(count)]
    for value, dropped in known:
        at = int(value - low) if whole else min(count - 1, int((value - low) / (high - low) * count))
        bins[at][dropped] += 1
    top = max(map(sum, bins))
    return [
        (f"{100 * at / count:.2f}", f"{94 / count:.2f}", _height(dropped, top), _height(kept, top))
        for at, (kept, dropped) in enumerate(bins)
        if kept or dropped
    ]


def _height(part: int, top: int) -> str:
    """In per cent; one of thousands is seen, too."""
    return f"{max(100 * part / top, 4.0 * bool(part)):.2f}"


def short(value: float) -> str:
    """A figure to three digits, whole numbers in full."""
    return f"{value:,.0f}" if value == int(value) else f"{value:.3g}"
