"""Tables of `scores`: answers by set of questions, models and pairs, strata, perplexities; rows in, figures out."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import exp
from statistics import fmean
from typing import Any, NamedTuple, get_args

from lema.errors import RunError
from lema.recipe.training_schema import ScoresSpec
from lema.report import statistics
from lema.rows import Answer, Outcome, Probe, Stratum

_OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


class ScoredAnswer(NamedTuple):
    """What counts of one answer."""

    outcome: Outcome
    tokens: int


# The answers of one model to one set of questions: by seed of its training, then by question.
Sheet = dict[int | None, dict[str, ScoredAnswer]]


@dataclass(slots=True)
class AnswerSet:
    """The answers to one set of questions by arm; of the votes on a question, how many are right."""

    single: dict[str, Sheet] = field(default_factory=dict)
    majority: dict[str, Sheet] = field(default_factory=dict)
    votes: dict[str, Counter[tuple[int | None, str]]] = field(default_factory=dict)
    drawn: int = 0  # votes a question


def answer_sets(answers: Iterable[Answer], splits: Mapping[str, str], arms: Sequence[str]) -> dict[str, AnswerSet]:
    """The answers by set of questions, each with all arms in their order. Raises RunError for a second answer."""
    names = {name: name for name in splits}  # one string a question for all of its answers
    sets = defaultdict[str, AnswerSet](AnswerSet)
    for row in answers:
        own, name = sets[splits[row.question_id]], names[row.question_id]
        if row.kind == "vote":
            own.drawn = max(own.drawn, row.index + 1)
            own.votes.setdefault(row.arm, Counter())[row.seed, name] += row.outcome == "correct"
            continue
        sheets = own.single if row.kind == "single" else own.majority
        sheet = sheets.setdefault(row.arm, {}).setdefault(row.seed, {})
        if name in sheet:
            raise RunError(f"scores: {row.arm!r} answered question {name} twice")
        sheet[name] = ScoredAnswer(row.outcome, row.completion_tokens)
    for own in sets.values():
        own.single, own.majority = (_ordered_sheets(sheets, arms) for sheets in (own.single, own.majority))
    return sets


def _ordered_sheets(sheets: Mapping[str, Sheet], arms: Sequence[str]) -> dict[str, Sheet]:
    """Arms and seeds in their order. Raises RunError unless all trainings of all arms answered the same questions."""
    ordered = {arm: dict(sorted(sheets[arm].items(), key=lambda one: one[0] or 0)) for arm in arms if arm in sheets}
    first, whole = next(((arm, one) for arm, sheet in ordered.items() for one in sheet.values()), ("", {}))
    for arm, sheet in ordered.items():
        for one in sheet.values():
            if odd := sorted(one.keys() ^ whole.keys()):
                raise RunError(
                    f"scores: {first!r} and {arm!r} answered different questions, so they cannot be compared: "
                    f"{len(odd)} are answered by one of them only, such as {odd[0]}; make `answers` again"
                )
    return ordered


def set_scores(answers: AnswerSet, spec: ScoresSpec) -> dict[str, Any]:
    """Models and pairs on one set of questions."""
    arms = answers.single
    models = {arm: _model_scores(sheet, spec.confidence) for arm, sheet in arms.items()}
    for arm, sheet in answers.majority.items():
        models[arm]["majority"] = {"votes": answers.drawn, **_accuracy(sheet, spec.confidence)}
        models[arm]["pass_at"] = _pass_at(answers.votes[arm].values(), answers.drawn)
    pairs = {
        f"{second}-minus-{first}": _pair_scores(arms[second], arms[first], spec)
        for first, second in combinations(arms, 2)
    }
    corrected = statistics.holm({name: pair["p"] for name, pair in pairs.items()})
    for name, pair in pairs.items():
        pair |= {"p": round(pair["p"], 6), "holm": round(corrected[name], 6)}
    return {"models": models, "pairs": pairs}


def _pass_at(right: Collection[int], drawn: int) -> dict[str, float]:
    """Mean pass@k over questions and seeds, for k = 1, 2, 4, ... up to the votes that were drawn."""
    ks = [1 << power for power in range(drawn.bit_length())]
    return {str(k): round(sum(statistics.pass_at(k, drawn, count) for count in right) / len(right), 4) for k in ks}


def _right_answers(sheet: Sheet) -> Any:
    """Which answers are right, an array (questions, seeds) of 0 and 1; questions in the order of their ids."""
    import numpy as np

    names = sorted(next(iter(sheet.values())))
    return np.array([[float(one[name].outcome == "correct") for one in sheet.values()] for name in names])


def _accuracy(sheet: Sheet, confidence: float) -> dict[str, float]:
    right = _right_answers(sheet)
    low, high = statistics.share(right, confidence)
    return {"accuracy": round(float(right.mean()), 4), "low": round(low, 4), "high": round(high, 4)}


def _model_scores(sheet: Sheet, confidence: float) -> dict[str, Any]:
    rows = [row for one in sheet.values() for row in one.values()]
    outcomes = Counter(row.outcome for row in rows)
    n, correct = len(rows) // len(sheet), outcomes["correct"]
    by_seed = {str(seed): sum(row.outcome == "correct" for row in one.values()) / n for seed, one in sheet.items()}
    return {
        "n": n,
        "correct": correct if len(sheet) == 1 else round(correct / len(sheet), 1),
        **_accuracy(sheet, confidence),
        "by_seed": {seed: round(accuracy, 4) for seed, accuracy in by_seed.items() if seed != "None"},
        "completion_tokens": round(sum(row.tokens for row in rows) / len(rows), 1),
        "outcomes": {outcome: outcomes[outcome] for outcome in _OUTCOMES},
    }


def _pair_scores(sheet: Sheet, other: Sheet, spec: ScoresSpec) -> dict[str, Any]:
    """The figures of a pair, p not yet rounded and not yet corrected."""
    right, other_right = _right_answers(sheet), _right_answers(other)
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
    shares = {"difference": round(value, 4), "low": round(low, 4), "high": round(high, 4)}
    return {**shares, "p": p, "holm": p, "won": won, "lost": lost, "detectable": round(least, 4)}


def perplexities(probe: Iterable[Probe], confidence: float, arms: Sequence[str]) -> dict[str, Any]:
    """Perplexities by arm; of several trainings the mean counts for a question."""
    found: dict[str, dict[str, list[Probe]]] = {arm: defaultdict(list) for arm in arms}
    for row in probe:
        found[row.arm][row.question_id].append(row)
    made = {}
    for arm, questions in found.items():
        if not questions:
            continue
        right, wrong = (
            [fmean(exp(getattr(row, kind)) for row in rows) for rows in questions.values()]
            for kind in ("right", "wrong")
        )
        gaps = [bad - good for good, bad in zip(right, wrong, strict=True)]
        low, high = statistics.mean_interval(gaps, confidence)
        shown = {"right": fmean(right), "wrong": fmean(wrong), "delta": fmean(gaps), "low": low, "high": high}
        shown["preferred"] = fmean(row.right < row.wrong for rows in questions.values() for row in rows)
        made[arm] = {"n": len(gaps), **{name: round(value, 4) for name, value in shown.items()}}
    return made


def strata_scores(strata: Mapping[str, Sequence[Stratum]], arms: Mapping[str, Sheet]) -> dict[str, Any]:
    """Accuracy of every arm for every value of every stratum that tells test questions apart."""
    groups = defaultdict[str, dict[str, set[str]]](lambda: defaultdict(set))
    for name in next(iter(next(iter(arms.values())).values())):
        for stratum in strata[name]:
            groups[stratum.name][stratum.value].add(name)
    return {
        name: {
            value: {
                "n": len(values[value]),
                "accuracy": {arm: _stratum_accuracy(sheet, values[value]) for arm, sheet in arms.items()},
            }
            for value in sorted(values, key=_in_order)
        }
        for name, values in sorted(groups.items())
        if len(values) > 1
    }


def _stratum_accuracy(sheet: Sheet, names: set[str]) -> float:
    rows = [row for one in sheet.values() for name, row in one.items() if name in names]
    return round(sum(row.outcome == "correct" for row in rows) / len(rows), 4)


def _in_order(value: str) -> tuple[int, int, str]:
    """Numbers, also at the end of a word as in "Level 2", by size."""
    digits = value.rpartition(" ")[2]
    return (0, int(digits), value) if digits.isdecimal() else (1, 0, value)
