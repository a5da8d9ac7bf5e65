"""What the report shows of scores, trainings and targets, as plain data for its template."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from lema.report.charts import accuracy_axis, difference_axis, histogram, loss_curves, short_figure
from lema.report.counts import Counts
from lema.report.markdown import short_digests

QUANTILES = (0, 5, 25, 50, 75, 95, 100)  # in per cent; the ends are the least and the most
COMMONEST_REASONS = 10


def report_facts(
    plan: Mapping[str, Any],
    counts: Counts,
    adapters: Mapping[str, Mapping[str, Any]],
    scores: Mapping[str, Any],
) -> dict[str, Any]:
    """Models in the order of the scores, the base first, with what each learnt from; every pair of them; the pair that
    the page leads with; the sets beside the test questions; charts; trainings; settings."""
    models = scores["models"]
    voted = next((row for row in models.values() if "majority" in row), None)
    lead = lead_pair(counts, adapters, scores)
    arms = [
        {
            "arm": arm,
            **{kind: counts.arms[arm][kind] if arm in counts.arms else 0 for kind in ("cot", "correction")},
            "tokens": _loss_tokens(adapters, arm),
            **figures,
        }
        for arm, figures in models.items()
    ]
    pairs = [
        {"arm": arm, "than": than, **scores["pairs"][f"{arm}-minus-{than}"]}
        for place, arm in enumerate(models)
        for than in list(models)[:place]
    ]
    others = scores["transfer"] | ({"dev": scores["dev"]} if "dev" in scores else {})
    return {
        "plan": plan,
        "counts": counts,
        "scores": scores,
        "arms": arms,
        "accuracy_ticks": accuracy_axis(arms),
        # With how many seeds every arm was trained; the smallest number where they differ.
        "trainings": min((len(row["by_seed"]) for row in arms if row["by_seed"]), default=1),
        "pairs": pairs,
        "difference_ticks": difference_axis(pairs),
        "votes": voted["majority"]["votes"] if voted else 0,
        "passes": list(voted["pass_at"]) if voted else [],
        "sets": [
            {
                "name": name,
                "n": next(iter(figures["models"].values()))["n"],
                "models": list(figures["models"].values()),
                "pair": lead and oriented_pair(figures["pairs"], lead["arm"], lead["than"]),
            }
            for name, figures in others.items()
        ],
        "lead": lead,
        "controls": [
            {"arm": row["arm"], **oriented_pair(scores["pairs"], lead["arm"], row["arm"])}
            for row in arms[1:]
            if lead and not row["correction"] and row["arm"] != lead["than"]
        ],
        "tests": arms[0]["n"],
        "target": _target(plan, counts),
        "curves": loss_curves(adapters),
        "training": _training(adapters),
        "settings": {**plan, **{f"training of {arm}": _nested(record) for arm, record in adapters.items()}},
        **_correction_facts(counts),
    }


def _loss_tokens(adapters: Mapping[str, Mapping[str, Any]], arm: str) -> int | None:
    """Tokens with loss in one pass over an arm, as its training counted them."""
    return adapters.get(arm, {}).get("loss_tokens_an_epoch")


def lead_pair(
    counts: Counts, adapters: Mapping[str, Mapping[str, Any]], scores: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The comparison that answers the question: the first arm with corrections against the arm without any that is
    nearest to it in rows; against the base where every arm has corrections. None where no arm has any."""
    sizes = {arm: kinds["cot"] + kinds["correction"] for arm, kinds in counts.arms.items()}
    corrected = [arm for arm in scores["models"] if arm in sizes and counts.arms[arm]["correction"]]
    if not corrected:
        return None
    arm, base = corrected[0], next(iter(scores["models"]))
    others = [name for name in scores["models"] if name in sizes and name not in corrected]
    than = min(others, key=lambda name: abs(sizes[name] - sizes[arm]), default=base)
    pair = oriented_pair(scores["pairs"], arm, than)
    verdict = "helped" if pair["difference"] > 0 else "hurt"
    return {
        **pair,
        "arm": arm,
        "than": than,
        "more_rows": sizes[arm] - sizes.get(than, 0),
        "than_is_base": than not in sizes,
        "tokens": _loss_tokens(adapters, arm),
        "than_tokens": _loss_tokens(adapters, than),
        "verdict": verdict if pair["holm"] < 1 - scores["confidence"] else "unclear",
    }


def oriented_pair(pairs: Mapping[str, Mapping[str, Any]], arm: str, than: str) -> dict[str, Any]:
    """The figures of `arm` minus `than`, whichever way round the pair was scored."""
    if found := pairs.get(f"{arm}-minus-{than}"):
        return dict(found)
    found = pairs[f"{than}-minus-{arm}"]
    mirrored = {"difference": -found["difference"], "low": -found["high"], "high": -found["low"]}
    return {**found, **mirrored, "won": found["lost"], "lost": found["won"]}


def _target(plan: Mapping[str, Any], counts: Counts) -> dict[str, int]:
    """How many wrong paths and accepted corrections the recipe asked for, 0 without a target, and what it got."""
    paths, spec = plan.get("samples", {}).get("want", {}), plan.get("corrections", {})

    def total(figures: Mapping[str, int], samplers: Sequence[str] | None) -> int:
        return sum(n for name, n in figures.items() if samplers is None or name in samplers)

    wrong = {name: own["incorrect"] for name, own in counts.samplers.items()}
    return {
        "paths": paths.get("in_all", 0),
        "wrong": total(wrong, paths.get("samplers")),
        "corrections": spec.get("want", 0),
        "left": total(wrong, spec.get("samplers")) - total(counts.corrected, spec.get("samplers")),
    }


def _training(adapters: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Single figures of the trainings, one row a figure and one column an arm."""
    names = dict.fromkeys(
        name for record in adapters.values() for name, value in record.items() if isinstance(value, int | float | str)
    )
    figures = [(name.replace("_", " "), [_figure(one.get(name)) for one in adapters.values()]) for name in names]
    return {"arms": list(adapters), "figures": figures}


def _nested(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: dict(value) for name, value in record.items() if isinstance(value, Mapping)}


def _figure(value: Any) -> int | str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return value
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else short_digests(str(value))


def _correction_facts(counts: Counts) -> dict[str, Any]:
    """What became of questions, paths and corrections; `waterfall` has (what, count, count of the line above)."""
    filters, paths, wrong = counts.filters, counts.total("paths"), counts.total("incorrect")
    waterfall: list[tuple[str, int, int | None]] = [
        ("training questions", counts.questions, None),
        ("paths sampled", paths, None),
        ("graded incorrect", wrong, paths),
        ("corrections asked for", counts.corrections, None),
        ("corrections parsed", counts.parsed, counts.corrections),
        ("corrections accepted", filters.accepted, counts.parsed),
    ]
    for arm, kinds in counts.arms.items():
        words = (("cot", "CoT"), ("correction", "corrections"))
        detail = ", ".join(f"{kinds[kind]:,} {word}" for kind, word in words if kinds[kind])
        waterfall.append((f"rows of {arm}" + f" ({detail})" * bool(detail), kinds["cot"] + kinds["correction"], None))
    measured = {name: sorted([*kept, *dropped]) for name, (kept, dropped) in filters.measured.items()}
    return {
        "waterfall": waterfall,
        "waterfall_top": max(count for _, count, _ in waterfall),
        # Of every filter that measured anything: how many corrections, quantiles (nearest rank), histogram.
        "measured": [
            (
                name,
                len(values),
                [short_figure(values[max(0, ceil(share / 100 * len(values)) - 1)]) for share in QUANTILES],
                histogram(name, *filters.measured[name]),
            )
            for name, values in measured.items()
            if values
        ],
        # The commonest reasons of the first filter to drop, one of each kind in full, and whether others differ.
        "reasons": [
            (name, filters.examples[name, kind], count > 1 and filters.examples[name, kind] != kind, count)
            for (name, kind), count in _ranked(filters.reasons)[:COMMONEST_REASONS]
        ],
        "error_types": [(name, count, counts.accepted_types[name]) for name, count in _ranked(counts.error_types)],
    }


def _ranked(counted: Mapping[Any, int]) -> list[tuple[Any, int]]:
    return sorted(counted.items(), key=lambda entry: (-entry[1], entry[0]))
