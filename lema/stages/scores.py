"""`scores`: what the answers are worth: accuracy with intervals, and every pair of models on the same questions.

The formulae and their sources are in `lema.report.statistics`.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import combinations
from math import exp
from statistics import fmean
from typing import Any, get_args

from lema.errors import RunError
from lema.recipe.training_schema import ScoresSpec
from lema.report import statistics as statistics
from lema.rows import Answer, Outcome, Probe, Question

POWER = statistics.POWER
_OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
# The answers of one model to one set of questions: by seed of its training, then by question.
Sheet = dict[int | None, dict[str, Answer]]


def scores(
    questions: Iterable[Question], answers: Sequence[Answer], probe: Sequence[Probe], *, spec: ScoresSpec
) -> dict[str, Any]:
    """Figures of every model and of every pair, nested for `dvc metrics show`; shares, not per cent.

    - `models.<arm>`, on the test questions: n, correct, accuracy, low, high, by_seed (accuracy of each training),
      completion_tokens (mean) and outcomes; with votes also majority (votes, accuracy, low, high) and pass_at. Where
      an arm was trained several times, figures are means over its seeds, and outcomes count all answers.
    - `pairs.<arm>-minus-<earlier arm>`: difference, low, high, p, holm (p corrected for all pairs of the same
      questions), won and lost (questions that the one answers right more often than the other), detectable.
    - `strata.<name>.<value>`: n, and accuracy by arm, of the test questions.
    - `transfer.<set>` and, when they were asked, `dev`: models and pairs of these questions.
    - `probe.<arm>`, when there is one: n, right and wrong (mean perplexities of the paths), delta (wrong - right) with
      low and high, by t over the questions; preferred, the share of questions whose right path is the likelier one.

    Failed requests count as not right. Raises RunError when there are no answers to test questions, or when the models
    did not answer the same questions.
    """
    asked = {question.id: question for question in questions}
    sets = defaultdict[str, list[Answer]](list)
    for row in answers:
        sets[asked[row.question_id].split].append(row)
    if "test" not in sets:
        raise RunError("scores: there are no answers; does the recipe have test questions?")
    others = {name: _set(rows, spec) for name, rows in sets.items() if name != "test"}
    made = {
        "confidence": spec.confidence,
        "power": POWER,
        **_set(sets["test"], spec),
        "strata": _strata(asked, _sheets(sets["test"], "single")),
        "transfer": {name: figures for name, figures in others.items() if name != "dev"},
    }
    dev = {"dev": others["dev"]} if "dev" in others else {}
    return made | dev | ({"probe": _probe(probe, spec.confidence)} if probe else {})


def _set(answers: Sequence[Answer], spec: ScoresSpec) -> dict[str, Any]:
    """Models and pairs on one set of questions."""
    arms, majorities = _sheets(answers, "single"), _sheets(answers, "majority")
    votes = defaultdict[str, Counter[tuple[int | None, str]]](Counter)
    drawn = max((row.index + 1 for row in answers if row.kind == "vote"), default=0)
    for row in answers:
        if row.kind == "vote":
            votes[row.arm][row.seed, row.question_id] += row.outcome == "correct"
    models = {arm: _model(sheet, spec.confidence) for arm, sheet in arms.items()}
    for arm, sheet in majorities.items():
        models[arm]["majority"] = {"votes": drawn, **_accuracy(sheet, spec.confidence)}
        models[arm]["pass_at"] = _pass_at(votes[arm].values(), drawn)
    pairs = {
        f"{second}-minus-{first}": _pair(arms[second], arms[first], spec) for first, second in combinations(arms, 2)
    }
    corrected = statistics.holm({name: pair["p"] for name, pair in pairs.items()})
    return {"models": models, "pairs": {name: _rounded(pair, corrected[name]) for name, pair in pairs.items()}}


def _pass_at(right: Collection[int], drawn: int) -> dict[str, float]:
    """Mean pass@k over questions and seeds, for k = 1, 2, 4, ... up to the votes that were drawn."""
    ks = [1 << power for power in range(drawn.bit_length())]
    return {str(k): round(sum(statistics.pass_at(k, drawn, count) for count in right) / len(right), 4) for k in ks}


def _sheets(answers: Sequence[Answer], kind: str) -> dict[str, Sheet]:
    """The answers of one kind by arm; every training of every arm has the same questions, each once."""
    arms: dict[str, Sheet] = {}
    for row in answers:
        if row.kind == kind:
            one = arms.setdefault(row.arm, {}).setdefault(row.seed, {})
            if row.question_id in one:
                raise RunError(f"scores: {row.arm!r} answered question {row.question_id} twice")
            one[row.question_id] = row
    first, whole = next(((arm, one) for arm, sheet in arms.items() for one in sheet.values()), ("", {}))
    for arm, sheet in arms.items():
        for one in sheet.values():
            if odd := sorted(one.keys() ^ whole.keys()):
                raise RunError(
                    f"scores: {first!r} and {arm!r} answered different questions, so they cannot be compared: "
                    f"{len(odd)} are answered by one of them only, such as {odd[0]}; make `answers` again"
                )
    return {arm: dict(sorted(sheet.items(), key=lambda entry: entry[0] or 0)) for arm, sheet in arms.items()}


def _right(sheet: Sheet) -> Any:
    """Which answers are right, an array (questions, seeds) of 0 and 1; questions in the order of their ids."""
    import numpy as np

    names = sorted(next(iter(sheet.values())))
    return np.array([[float(one[name].outcome == "correct") for one in sheet.values()] for name in names])


def _accuracy(sheet: Sheet, confidence: float) -> dict[str, float]:
    right = _right(sheet)
    low, high = statistics.share(right, confidence)
    return {"accuracy": round(float(right.mean()), 4), "low": round(low, 4), "high": round(high, 4)}


def _model(sheet: Sheet, confidence: float) -> dict[str, Any]:
    rows = [row for one in sheet.values() for row in one.values()]
    outcomes = Counter(row.outcome for row in rows)
    n, correct = len(rows) // len(sheet), outcomes["correct"]
    by_seed = {str(seed): sum(row.outcome == "correct" for row in one.values()) / n for seed, one in sheet.items()}
    return {
        "n": n,
        "correct": correct if len(sheet) == 1 else round(correct / len(sheet), 1),
        **_accuracy(sheet, confidence),
        "by_seed": {seed: round(accuracy, 4) for seed, accuracy in by_seed.items() if seed != "None"},
        "completion_tokens": round(sum(row.completion_tokens for row in rows) / len(rows), 1),
        "outcomes": {outcome: outcomes[outcome] for outcome in _OUTCOMES},
    }


def _pair(sheet: Sheet, other: Sheet, spec: ScoresSpec) -> dict[str, Any]:
    right, other_right = _right(sheet), _right(other)
    gaps = right.mean(1) - other_right.mean(1)
    n, won, lost = len(gaps), int((gaps > 1e-9).sum()), int((gaps < -1e-9).sum())
    if len(sheet) == len(other) == 1:
        low, high = statistics.bootstrap(
            won, lost, n, confidence=spec.confidence, resamples=spec.resamples, seed=spec.seed
        )
        value, p = (won - lost) / n, statistics.mcnemar(won, lost)
        least = statistics.detectable((won + lost) / n, n, spec.confidence)
    else:
        estimate = statistics.difference(right, other_right)
        low, high = estimate.interval(spec.confidence)
        value, p, least = estimate.value, estimate.p(), estimate.detectable(spec.confidence)
    return {"difference": value, "low": low, "high": high, "p": p, "won": won, "lost": lost, "detectable": least}


def _rounded(pair: Mapping[str, Any], holm: float) -> dict[str, Any]:
    shares = {name: round(pair[name], 4) for name in ("difference", "low", "high")}
    chances = {"p": round(pair["p"], 6), "holm": round(holm, 6)}
    return {**shares, **chances, "won": pair["won"], "lost": pair["lost"], "detectable": round(pair["detectable"], 4)}


def _probe(probe: Sequence[Probe], confidence: float) -> dict[str, Any]:
    """Perplexities by arm; of several trainings the mean counts for a question."""
    arms = defaultdict[str, dict[str, list[Probe]]](lambda: defaultdict(list))
    for row in probe:
        arms[row.arm][row.question_id].append(row)
    made = {}
    for arm, questions in arms.items():
        right, wrong = (
            [fmean(exp(getattr(row, kind)) for row in rows) for rows in questions.values()]
            for kind in ("right", "wrong")
        )
        gaps = [bad - good for good, bad in zip(right, wrong, strict=True)]
        low, high = statistics.mean(gaps, confidence)
        shown = {"right": fmean(right), "wrong": fmean(wrong), "delta": fmean(gaps), "low": low, "high": high}
        preferred = fmean(row.right < row.wrong for rows in questions.values() for row in rows)
        made[arm] = {"n": len(gaps), **{name: round(value, 4) for name, value in shown.items()}}
        made[arm]["preferred"] = round(preferred, 4)
    return made


def _strata(asked: Mapping[str, Question], arms: Mapping[str, Sheet]) -> dict[str, Any]:
    """Accuracy of every arm for every value of every stratum that tells test questions apart."""
    groups = defaultdict[str, dict[str, set[str]]](lambda: defaultdict(set))
    for name in next(iter(next(iter(arms.values())).values())):
        for stratum in asked[name].strata:
            groups[stratum.name][stratum.value].add(name)
    return {
        name: {
            value: {
                "n": len(values[value]),
                "accuracy": {arm: _share(sheet, values[value]) for arm, sheet in arms.items()},
            }
            for value in sorted(values, key=_in_order)
        }
        for name, values in sorted(groups.items())
        if len(values) > 1
    }


def _share(sheet: Sheet, names: set[str]) -> float:
    rows = [row for one in sheet.values() for name, row in one.items() if name in names]
    return round(sum(row.outcome == "correct" for row in rows) / len(rows), 4)


def _in_order(value: str) -> tuple[int, int, str]:
    """Numbers, also at the end of a word as in "Level 2", by size."""
    digits = value.rpartition(" ")[2]
    return (0, int(digits), value) if digits.isdecimal() else (1, 0, value)
