"""Test questions apart: by stratum, and the sets beside the test questions, as tables with one column a model."""

from collections.abc import Mapping, Sequence
from typing import Any


def strata(scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One table a stratum: rows of (value, questions, accuracy of every model)."""
    arms = list(scores["models"])
    return [
        {
            "name": name,
            "rows": [(value, one["n"], [one["accuracy"][arm] for arm in arms]) for value, one in values.items()],
        }
        for name, values in scores["strata"].items()
    ]


def sets(scores: Mapping[str, Any], lead: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Transfer sets and, when they were asked, the dev questions: accuracies, and the comparison that the page leads
    with made on them."""
    dev = {"dev": scores["dev"]} if "dev" in scores else {}
    return [
        {
            "name": name,
            "n": next(iter(figures["models"].values()))["n"],
            "models": list(figures["models"].values()),
            "pair": lead and turned(figures["pairs"], lead["arm"], lead["than"]),
        }
        for name, figures in {**scores["transfer"], **dev}.items()
    ]


def turned(pairs: Mapping[str, Mapping[str, Any]], arm: str, than: str) -> dict[str, Any]:
    """The figures of `arm` minus `than`, whichever way round the pair was scored."""
    if found := pairs.get(f"{arm}-minus-{than}"):
        return dict(found)
    found = pairs[f"{than}-minus-{arm}"]
    mirrored = {"difference": -found["difference"], "low": -found["high"], "high": -found["low"]}
    return {**found, **mirrored, "won": found["lost"], "lost": found["won"]}


def trainings(models: Sequence[Mapping[str, Any]]) -> int:
    """With how many seeds every arm was trained; the smallest number where they differ."""
    return min((len(row["by_seed"]) for row in models if row["by_seed"]), default=1)


def votes(models: Sequence[Mapping[str, Any]]) -> tuple[int, list[str]]:
    """How many answers a question voted, and the k of pass@k; 0 and none without votes."""
    voted = [row for row in models if "majority" in row]
    return (voted[0]["majority"]["votes"], list(voted[0]["pass_at"])) if voted else (0, [])
