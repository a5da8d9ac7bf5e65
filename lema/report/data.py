"""What the report shows of scores, trainings and settings, as plain data for its template."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lema.report.charts import histogram, quantiles
from lema.report.counts import Counts, target_sentence

QUANTILES = (0, 5, 25, 50, 75, 95, 100)  # in per cent; the ends are the least and the most


def report_facts(
    plan: Mapping[str, Any],
    counts: Counts,
    adapters: Mapping[str, Mapping[str, Any]],
    scores: Mapping[str, Any],
) -> dict[str, Any]:
    """Models in the order of the scores, the base first, with what each learnt from; every pair of them; the pair that
    the page leads with; the sets beside the test questions; trainings; settings."""
    models = list(scores["models"].values())
    voted = next((row for row in models if "majority" in row), None)
    lead = lead_pair(counts, adapters, scores)
    others = scores["transfer"] | ({"dev": scores["dev"]} if "dev" in scores else {})
    return {
        "recipe": str(plan.get("recipe") or plan.get("name") or ""),
        "description": plan.get("description"),
        "arms": [
            {
                "arm": arm,
                "cot": counts.arms[arm]["cot"] if arm in counts.arms else 0,
                "corrections": counts.arms[arm]["correction"] if arm in counts.arms else 0,
                "tokens": _loss_tokens(adapters, arm),
                **figures,
            }
            for arm, figures in scores["models"].items()
        ],
        # With how many seeds every arm was trained; the smallest number where they differ.
        "trainings": min((len(row["by_seed"]) for row in models if row["by_seed"]), default=1),
        "pairs": [
            {"arm": arm, "than": than, **scores["pairs"][f"{arm}-minus-{than}"]}
            for place, arm in enumerate(scores["models"])
            for than in list(scores["models"])[:place]
        ],
        "votes": voted["majority"]["votes"] if voted else 0,
        "passes": list(voted["pass_at"]) if voted else [],
        "strata": scores["strata"],
        "sets": [
            {
                "name": name,
                "n": next(iter(figures["models"].values()))["n"],
                "models": list(figures["models"].values()),
                "pair": lead and oriented_pair(figures["pairs"], lead["arm"], lead["than"]),
            }
            for name, figures in others.items()
        ],
        "probe": scores.get("probe", {}),
        "lead": lead,
        "tests": models[0]["n"],
        "confidence": scores["confidence"],
        "power": scores["power"],
        "training": _training(adapters),
        "settings": settings(plan),
        "targets": target_sentence(plan, counts),
        "unchecked": counts.filters.unchecked,
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


def _training(adapters: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Single figures of the trainings, one row a figure and one column an arm; what is nested is provenance."""
    names = dict.fromkeys(
        name for record in adapters.values() for name, value in record.items() if isinstance(value, int | float | str)
    )
    return {
        "arms": list(adapters),
        "figures": [
            (name.replace("_", " "), [_figure(record.get(name)) for record in adapters.values()]) for name in names
        ],
        "provenance": {
            arm: [
                (f"{group}.{name}", value)
                for group, rows in settings({k: v for k, v in record.items() if isinstance(v, Mapping)}).items()
                for name, value in rows
            ]
            for arm, record in adapters.items()
        },
    }


def _figure(value: Any) -> int | str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return value
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else short_digests(str(value))


def short_digests(text: str) -> str:
    """A model's identity with digests cut to twelve digits."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{20,}\b", r"\1", text)


def settings(tree: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """A nested mapping as (dotted name, value) under each of its top keys, lone values under "recipe"; long texts
    by length and digest only."""
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, value in _flattened("", tree):
        top, _, rest = name.partition(".")
        groups[top if rest else "recipe"].append((rest or top, value))
    return dict(groups)


def _flattened(name: str, value: Any) -> Iterable[tuple[str, str]]:
    inner: Iterable[tuple[Any, Any]]
    if isinstance(value, Mapping) and value:
        inner = value.items()
    elif isinstance(value, list | tuple) and any(isinstance(one, Mapping | list | tuple) for one in value):
        inner = enumerate(value, start=1)
    else:
        yield name, _setting(value)
        return
    for key, one in inner:
        yield from _flattened(f"{name}.{key}" if name else str(key), one)


def _setting(value: Any) -> str:
    if isinstance(value, Sequence | Mapping) and not isinstance(value, str):
        return ", ".join(_setting(one) for one in value) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    text = str(value)
    if re.fullmatch(r"[0-9a-f]{40,}", text):
        return text[:12]
    if "\n" in text or len(text) > 160:
        return f"a text of {len(text)} characters, SHA-256 {hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return text or "empty"


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
    ranked = sorted(filters.reasons.items(), key=lambda entry: (-entry[1], entry[0]))[:10]
    return {
        "waterfall": waterfall,
        "waterfall_top": max(count for _, count, _ in waterfall),
        # Of every filter that measured anything: how many corrections, quantiles, histogram.
        "measured": [
            (name, len(values.kept) + len(values.dropped), quantiles(values, QUANTILES), histogram(name, values))
            for name, values in filters.measured.items()
            if values.kept or values.dropped
        ],
        # The ten commonest reasons of the first filter to drop, one of each kind in full, and whether others differ.
        "reasons": [
            (name, filters.examples[name, kind], count > 1 and filters.examples[name, kind] != kind, count)
            for (name, kind), count in ranked
        ],
        "error_types": [
            (name, count, counts.accepted_types[name])
            for name, count in sorted(counts.error_types.items(), key=lambda entry: (-entry[1], entry[0]))
        ],
    }
