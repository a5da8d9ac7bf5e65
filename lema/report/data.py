"""What the report says, as plain data: the two templates only set it out. Rows in, figures out, in a fixed order."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from lema.report.asked import asked, counted
from lema.report.examples import contrasts, examples_to_read
from lema.report.filter_names import judging, unchecked
from lema.report.kinds import kinds
from lema.report.sets import sets, strata, trainings, turned, votes
from lema.report.spread import statistics
from lema.report.targets import targets
from lema.rows import Answer, Correction, Evolved, Example, Grade, Location, Question, Sample, Verdict

_VARIABLE = re.compile(r"\S+/\S+|-?[0-9][0-9.,]*")  # ids and figures: what differs between reasons of one kind
_KINDS: tuple[tuple[Literal["cot", "correction"], str], ...] = (("cot", "CoT"), ("correction", "corrections"))


class Inputs(NamedTuple):
    """The rows that a report is made of; `mix` and `adapters` by arm."""

    plan: Mapping[str, Any]
    questions: Sequence[Question]
    samples: Sequence[Sample]
    grades: Sequence[Grade]
    locations: Sequence[Location]
    corrections: Sequence[Correction]
    verdicts: Sequence[Verdict]
    evolved: Sequence[Evolved]
    mix: Mapping[str, Sequence[Example]]
    adapters: Mapping[str, Mapping[str, Any]]
    answers: Sequence[Answer]
    scores: Mapping[str, Any]


def facts(rows: Inputs, examples: int) -> dict[str, Any]:
    """Everything that the templates show."""
    lead, models = _lead(rows), list(rows.scores["models"].values())
    drawn, passes = votes(models)
    return {
        "recipe": str(rows.plan.get("recipe") or rows.plan.get("name") or ""),
        "description": rows.plan.get("description"),
        "arms": _arms(rows),
        "trainings": trainings(models),
        "pairs": _pairs(rows),
        "votes": drawn,
        "passes": passes,
        "strata": strata(rows.scores),
        "sets": sets(rows.scores, lead),
        "probe": rows.scores.get("probe", {}),
        "lead": lead,
        "tests": models[0]["n"],
        "confidence": rows.scores["confidence"],
        "power": rows.scores["power"],
        "waterfall": _waterfall(rows),
        "targets": targets(rows.plan, rows.grades, rows.corrections, rows.verdicts),
        "samplers": _samplers(rows),
        "kinds": kinds(rows.questions, rows.grades, rows.corrections, rows.verdicts),
        "filters": _filters(rows),
        "statistics": statistics(rows.verdicts),
        "reasons": _reasons(rows.verdicts),
        "error_types": _error_types(rows),
        "examples": examples_to_read(rows.questions, rows.samples, rows.corrections, rows.verdicts, examples),
        "contrasts": contrasts(rows.questions, rows.answers, lead),
        "training": _training(rows),
        "models": _models(rows),
        "settings": settings(rows.plan),
    }


def settings(tree: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """A nested mapping as (dotted name, value) under each of its top keys, lone values under "recipe"; long texts
    by length and digest only."""
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, value in _flat("", tree):
        top, _, rest = name.partition(".")
        groups[top if rest else "recipe"].append((rest or top, value))
    return dict(groups)


def _flat(name: str, value: Any) -> Iterable[tuple[str, str]]:
    inner: Iterable[tuple[Any, Any]]
    if isinstance(value, Mapping) and value:
        inner = value.items()
    elif isinstance(value, list | tuple) and any(isinstance(one, Mapping | list | tuple) for one in value):
        inner = enumerate(value, start=1)
    else:
        yield name, _plain(value)
        return
    for key, one in inner:
        yield from _flat(f"{name}.{key}" if name else str(key), one)


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple | Mapping):
        return ", ".join(_plain(one) for one in value) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    text = str(value)
    if re.fullmatch(r"[0-9a-f]{40,}", text):
        return text[:12]
    if "\n" in text or len(text) > 160:
        return f"a text of {len(text)} characters, SHA-256 {hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return text or "empty"


def _arms(rows: Inputs) -> list[dict[str, Any]]:
    """Models in the order of the scores, the base first, with what each learnt from."""
    made = []
    for arm, score in rows.scores["models"].items():
        kinds = Counter(example.kind for example in rows.mix.get(arm, ()))
        learnt = {"cot": kinds["cot"], "corrections": kinds["correction"], "tokens": _tokens(rows, arm)}
        made.append({"arm": arm, **learnt, **score})
    return made


def _tokens(rows: Inputs, arm: str) -> int | None:
    """Tokens with loss in one pass over an arm, as its training counted them."""
    return rows.adapters.get(arm, {}).get("loss_tokens_an_epoch")


def _pairs(rows: Inputs) -> list[dict[str, Any]]:
    arms = list(rows.scores["models"])
    names = [(second, first) for place, second in enumerate(arms) for first in arms[:place]]
    return [{"arm": arm, "than": than, **rows.scores["pairs"][f"{arm}-minus-{than}"]} for arm, than in names]


def _lead(rows: Inputs) -> dict[str, Any] | None:
    """The comparison that answers the question: the first arm with corrections against the arm without any that is
    nearest to it in rows; against the base where every arm has corrections. None where no arm has any."""
    kinds = {arm: {example.kind for example in examples} for arm, examples in rows.mix.items()}
    arms = [arm for arm in rows.scores["models"] if "correction" in kinds.get(arm, ())]
    if not arms:
        return None
    others = [arm for arm in rows.scores["models"] if arm in rows.mix and "correction" not in kinds[arm]]
    size = len(rows.mix[arms[0]])
    than = min(others, key=lambda arm: abs(len(rows.mix[arm]) - size), default=next(iter(rows.scores["models"])))
    found = turned(rows.scores["pairs"], arms[0], than)
    more = size - len(rows.mix.get(than, ()))
    seen = found["holm"] < 1 - rows.scores["confidence"]
    verdict = ("helped" if found["difference"] > 0 else "hurt") if seen else "unclear"
    compared = {"arm": arms[0], "than": than, "more_rows": more, "than_is_base": than not in rows.mix}
    tokens = {"tokens": _tokens(rows, arms[0]), "than_tokens": _tokens(rows, than)}
    return {**found, **compared, **tokens, "verdict": verdict}


def _waterfall(rows: Inputs) -> list[dict[str, Any]]:
    """Counts from the questions to the rows of the arms; `of` is the line above that a share is taken of."""
    outcomes = Counter(row.outcome for row in rows.grades)
    parsed = sum(row.status == "parsed" for row in rows.corrections)
    counts: list[tuple[str, str, int, int | None]] = [
        ("training questions", "", sum(row.split == "train" for row in rows.questions), None),
        ("paths sampled", "", len(rows.samples), None),
        ("graded incorrect", "", outcomes["incorrect"], len(rows.samples)),
        ("corrections asked for", "", len(rows.corrections), None),
        ("corrections parsed", "", parsed, len(rows.corrections)),
        ("corrections accepted", "", sum(row.accepted for row in rows.verdicts), parsed),
    ]
    for arm, examples in rows.mix.items():
        kinds = Counter(example.kind for example in examples)
        detail = ", ".join(f"{kinds[kind]:,} {word}" for kind, word in _KINDS if kinds[kind])
        counts.append((f"rows of {arm}", detail, len(examples), None))
    top = max(count for _, _, count, _ in counts) or 1
    return [
        {"label": label, "detail": detail, "count": count, "of": of, "width": 100 * count / top}
        for label, detail, count, of in counts
    ]


def _samplers(rows: Inputs) -> list[dict[str, Any]]:
    paths, outcomes = defaultdict[str, list[Sample]](list), defaultdict[str, Counter[str]](Counter)
    for sample in rows.samples:
        paths[sample.sampler].append(sample)
    for grade in rows.grades:
        outcomes[grade.sampler][grade.outcome] += 1
    return [
        {
            "sampler": name,
            "paths": len(own),
            "prompt_tokens": sum(sample.prompt_tokens for sample in own),
            "completion_tokens": sum(sample.completion_tokens for sample in own),
            **{outcome: outcomes[name][outcome] for outcome in ("correct", "incorrect", "unparsed", "truncated")},
            "other": outcomes[name]["timeout"] + outcomes[name]["failed"],
        }
        for name, own in paths.items()
    ]


def _filters(rows: Inputs) -> dict[str, Any]:
    """The drop matrix: how many corrections two filters drop alike; on the diagonal those that a filter drops."""
    dropped = [[drop.filter for drop in row.drops] for row in rows.verdicts]
    order = list(judging(rows.verdicts, rows.plan))
    both = Counter((one, other) for names in dropped for one in names for other in names)
    first = Counter(row.dropped_by for row in rows.verdicts if row.dropped_by)
    alone = Counter(names[0] for names in dropped if len(names) == 1)
    return {
        "judged": len(rows.verdicts),
        "unchecked": unchecked(rows.plan),
        "accepted": sum(row.accepted for row in rows.verdicts),
        "names": order,
        "rows": [
            {"name": one, "all": both[one, one], "first": first[one], "alone": alone[one],
             "with": [both[one, other] for other in order]}
            for one in order
        ],
    }  # fmt: skip


def _reasons(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """The ten commonest reasons of the first filter to drop, figures left out, each with one in full."""
    kinds: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in verdicts:
        if row.dropped_by is not None:
            kinds[row.dropped_by, _VARIABLE.sub("…", row.reason or "")].append(row.reason or "")
    ranked = sorted(kinds.items(), key=lambda kind: (-len(kind[1]), kind[0]))[:10]
    return [
        {"filter": name, "reason": reason, "count": len(full), "example": full[0] if full[0] != reason else ""}
        for (name, reason), full in ranked
    ]


def _error_types(rows: Inputs) -> list[dict[str, Any]]:
    accepted = {row.id for row in rows.verdicts if row.accepted}
    named = [row for row in rows.corrections if row.error_type]
    counts = Counter(row.error_type for row in named)
    kept = Counter(row.error_type for row in named if row.id in accepted)
    ranked = sorted(counts.items(), key=lambda kind: (-kind[1], str(kind[0])))
    return [
        {"type": kind, "count": n, "accepted": kept[kind], "width": 100 * n / ranked[0][1],
         "accepted_width": 100 * kept[kind] / ranked[0][1]}
        for kind, n in ranked
    ]  # fmt: skip


def _training(rows: Inputs) -> list[dict[str, Any]]:
    """Figures of every arm's training; what is not a single figure goes to the provenance."""
    return [
        {
            "arm": arm,
            "curve": list(figures.get("curve", ())),
            "figures": {name: value for name, value in figures.items() if isinstance(value, int | float | str)},
            "provenance": settings({k: v for k, v in figures.items() if isinstance(v, Mapping)}),
        }
        for arm, figures in rows.adapters.items()
    ]


def _models(rows: Inputs) -> list[tuple[str, str, str, int | str, int | str]]:
    """(role, model, prompt, prompt tokens, completion tokens) of everything that was asked."""
    return [
        (one.role, one.model, one.prompt[:12], counted(one.prompt_tokens), counted(one.completion_tokens))
        for one in asked(rows.samples, rows.locations, rows.corrections, rows.verdicts, rows.plan, rows.evolved)
    ]
