"""`scores`: what the answers are worth: accuracy with intervals, and every pair of models on the same questions.

Formulae, with z the normal quantile of the confidence, n questions, b of them right for the first model only and
c right for the second only:
- accuracy: Wilson's score interval (Wilson 1927; recommended by Brown, Cai and DasGupta 2001 over the usual one).
- difference (b - c) / n: percentile interval of the paired bootstrap over questions (Efron 1979). Drawing n questions
  with replacement makes (b, c, rest) multinomial, which is what is drawn. It shrinks to nothing where b = c = 0.
- p: exact McNemar test, two-sided, b out of b + c against one half (McNemar 1947); not corrected for several pairs.
- detectable: the smallest true difference that this test would find with 80 % power on so many questions with so much
  discordance, from the sample-size formula of Connor (1987): sqrt(n) d = z sqrt(w) + z80 sqrt(w - d^2) with
  w = max((b + c) / n, d). A difference smaller than this may be there and not be seen. (Normal approximation; the
  exact test needs slightly more.)
"""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from math import comb, sqrt
from statistics import NormalDist
from typing import Any, get_args

from lema.errors import RunError
from lema.recipe import ScoresSpec
from lema.rows import Answer, Outcome

POWER = 0.8
_OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


def scores(answers: Sequence[Answer], *, spec: ScoresSpec) -> dict[str, Any]:
    """Figures of every model and of every pair, nested for `dvc metrics show`; shares, not per cent.

    `models.<arm>`: n, correct, accuracy, low, high, completion_tokens (mean) and outcomes.
    `pairs.<arm>-minus-<earlier arm>`: difference, low, high, p, won, lost and detectable. Failed requests count as not
    right. Raises RunError when there are no answers, or when the models did not answer the same questions.
    """
    arms = _by_arm(answers)
    pairs = {
        f"{second}-minus-{first}": _pair(arms[second], arms[first], spec) for first, second in combinations(arms, 2)
    }
    models = {arm: _model(rows, spec.confidence) for arm, rows in arms.items()}
    return {"confidence": spec.confidence, "power": POWER, "models": models, "pairs": pairs}


def wilson(correct: int, n: int, confidence: float) -> tuple[float, float]:
    """Wilson's interval for a share of `correct` in `n`."""
    z, share = _quantile(confidence), correct / n
    middle = share + z * z / (2 * n)
    half = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def mcnemar(won: int, lost: int) -> float:
    """Two-sided exact p of `won` out of `won + lost` under a fair coin; 1 when both are 0."""
    n = won + lost
    return min(1.0, 2 * sum(comb(n, k) for k in range(min(won, lost) + 1)) / (1 << n))


def bootstrap(won: int, lost: int, n: int, spec: ScoresSpec) -> tuple[float, float]:
    """Percentile interval of the paired difference over `spec.resamples` resamples of the questions."""
    import numpy as np

    counts = np.random.default_rng(spec.seed).multinomial(
        n, [won / n, lost / n, (n - won - lost) / n], size=spec.resamples
    )
    tail = (1 - spec.confidence) / 2
    low, high = np.quantile((counts[:, 0] - counts[:, 1]) / n, [tail, 1 - tail])
    return float(low), float(high)


def detectable(discordant: float, n: int, confidence: float) -> float:
    """The smallest difference found with 80 % power; 1 where even the largest would not be.

    `discordant` is the share of questions on which the two models differ.
    """
    z, z_power = _quantile(confidence), NormalDist().inv_cdf(POWER)

    def missing(difference: float) -> float:
        share = max(discordant, difference)
        return z * sqrt(share) + z_power * sqrt(share - difference**2) - sqrt(n) * difference

    low, high = 0.0, 1.0
    if missing(high) > 0:
        return 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if missing(middle) > 0 else (low, middle)
    return high


def _by_arm(answers: Sequence[Answer]) -> dict[str, dict[str, Answer]]:
    """Arm -> question -> answer; every arm has the same questions, each once."""
    arms: dict[str, dict[str, Answer]] = {}
    for row in answers:
        if row.question_id in arms.setdefault(row.arm, {}):
            raise RunError(f"scores: {row.arm!r} answered question {row.question_id} twice")
        arms[row.arm][row.question_id] = row
    if not arms:
        raise RunError("scores: there are no answers; does the recipe have test questions?")
    first = next(iter(arms))
    for arm, rows in arms.items():
        if odd := sorted(rows.keys() ^ arms[first].keys()):
            raise RunError(
                f"scores: {first!r} and {arm!r} answered different questions, so they cannot be compared: "
                f"{len(odd)} are answered by one of them only, such as {odd[0]}; make `answers` again"
            )
    return arms


def _pair(rows: dict[str, Answer], others: dict[str, Answer], spec: ScoresSpec) -> dict[str, Any]:
    n = len(rows)
    right, other_right = _right(rows), _right(others)
    won, lost = len(right - other_right), len(other_right - right)
    low, high = bootstrap(won, lost, n, spec)
    return {
        "difference": round((won - lost) / n, 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "p": round(mcnemar(won, lost), 6),
        "won": won,
        "lost": lost,
        "detectable": round(detectable((won + lost) / n, n, spec.confidence), 4),
    }


def _right(rows: dict[str, Answer]) -> frozenset[str]:
    return frozenset(question for question, row in rows.items() if row.outcome == "correct")


def _model(rows: dict[str, Answer], confidence: float) -> dict[str, Any]:
    outcomes = Counter(row.outcome for row in rows.values())
    low, high = wilson(outcomes["correct"], len(rows), confidence)
    return {
        "n": len(rows),
        "correct": outcomes["correct"],
        "accuracy": round(outcomes["correct"] / len(rows), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "completion_tokens": round(sum(row.completion_tokens for row in rows.values()) / len(rows), 1),
        "outcomes": {outcome: outcomes[outcome] for outcome in _OUTCOMES},
    }


def _quantile(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)
