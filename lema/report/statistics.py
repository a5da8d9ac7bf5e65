"""The statistics of `scores`, with z and t the quantiles of the confidence.

One training an arm; n questions, b right for the first model only, c for the second only:
- share: Wilson's score interval (Wilson 1927; recommended by Brown, Cai and DasGupta 2001 over the usual one).
- difference (b - c) / n: percentile interval of the paired bootstrap over questions (Efron 1979). Drawing n questions
  with replacement makes (b, c, rest) multinomial, which is what is drawn. It shrinks to nothing where b = c = 0.
- p: exact McNemar test, two-sided, b out of b + c against one half (McNemar 1947).
- detectable: the smallest true difference that this test would find with 80 % power on so many questions with so much
  discordance (Connor 1987): sqrt(n) d = z sqrt(w) + z80 sqrt(w - d^2) with w = max((b + c) / n, d).

Several trainings an arm, s seeds each; both questions and seeds are a sample, questions crossed with the arms, seeds
nested in them: the design of Judd, Westfall and Kenny (2012, JPSP 103: 54-69; 2017, Annual Review of Psychology 68:
601-625) with stimuli within and participants between conditions:
- the variance of a difference is that of the questions' mean differences over n, plus for either arm the variance of
  its seeds' accuracies over s, less what of the latter is noise of single answers, which the former holds already. A
  seed variance below nothing counts as nothing.
- p and interval from t with Satterthwaite's (1946) degrees of freedom. Four halves of a question, one of each outcome,
  are added to the questions' variance, as Agresti and Min (2005, Statistics in Medicine 24: 729-740) do, so that few
  questions that all agree prove nothing. By simulation, 3 and more seeds find a difference where none is in 1 to 6 % of
  cases at a confidence of 95 %; 2 seeds that differ much, in up to 9 %.
- share: Wilson's interval for as many questions as would have this variance (Korn and Graubard 1998, Survey
  Methodology 24: 193-201), with t for z.
- detectable: (t + t80) standard errors.

Several comparisons: p-values by Holm (1979, Scandinavian Journal of Statistics 6: 65-70), which bounds the chance of
any false finding among them and needs no independence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb, inf, sqrt
from statistics import fmean, stdev
from typing import Any

POWER = 0.8


@dataclass(frozen=True, slots=True)
class DifferenceEstimate:
    """A value, its standard error and the degrees of freedom of the latter."""

    value: float
    error: float
    freedom: float

    def interval(self, confidence: float) -> tuple[float, float]:
        """Of a difference of shares, so within -1 and 1."""
        reach = self.error * t_quantile((1 + confidence) / 2, self.freedom)
        return max(-1.0, self.value - reach), min(1.0, self.value + reach)

    def p(self) -> float:
        """Two-sided p of a true value of 0."""
        from scipy.special import stdtr

        return float(2 * stdtr(self.freedom, -abs(self.value) / self.error))

    def detectable(self, confidence: float) -> float:
        """The smallest true value found with 80 % power; at most 1."""
        both = t_quantile((1 + confidence) / 2, self.freedom) + t_quantile(POWER, self.freedom)
        return min(1.0, both * self.error)


def difference(right: Any, others: Any) -> DifferenceEstimate:
    """Mean of `right` less mean of `others`, arrays (questions, seeds) of 0 and 1 with the same questions."""
    gaps = right.mean(1) - others.mean(1)
    n = len(gaps)
    # Halves of a question that only one of the two gets right, and of one that both or neither do.
    spread = (float((gaps**2).sum()) + 1) / (n + 2) - (float(gaps.sum()) / (n + 2)) ** 2
    parts = [(spread / (n + 2), n - 1), *_seed_variance(right), *_seed_variance(others)]
    return DifferenceEstimate(float(gaps.mean()), *_standard_error(parts))


def share(right: Any, confidence: float) -> tuple[float, float]:
    """Interval of the mean of `right`, an array (questions, seeds) of 0 and 1."""
    n, seeds = right.shape
    mean, means = float(right.mean()), right.mean(1)
    if seeds == 1 or mean in (0, 1):
        return wilson(round(mean * n), n, confidence)
    error, freedom = _standard_error([(float(means.var()) / n, n - 1), *_seed_variance(right)])
    size = min(mean * (1 - mean) / error**2, n * seeds) if error else n * seeds
    return wilson(mean * size, size, confidence, freedom)


def _seed_variance(right: Any) -> list[tuple[float, float]]:
    """What the choice of the seeds adds to the variance of an arm's accuracy: (variance, degrees of freedom)."""
    n, seeds = right.shape
    if seeds == 1 or n == 1:
        return []
    noise = right - right.mean(1, keepdims=True) - right.mean(0, keepdims=True) + right.mean()
    noise = float((noise**2).sum()) / ((n - 1) * (seeds - 1)) / n
    between = float(right.mean(0).var(ddof=1))
    if between <= noise * (1 + 1e-9):  # equal but for rounding is equal
        return []
    return [(between / seeds, seeds - 1), (-noise / seeds, (n - 1) * (seeds - 1))]


def _standard_error(parts: list[tuple[float, float]]) -> tuple[float, float]:
    """Standard error and degrees of freedom of a sum of independent variances."""
    variance = sum(part for part, _ in parts)
    spread = sum(part**2 / max(freedom, 1) for part, freedom in parts)
    return sqrt(variance), max(1.0, variance**2 / spread) if spread else inf


def mean_interval(values: Sequence[float], confidence: float) -> tuple[float, float]:
    """Student's interval for the mean of values of any size; both ends are the value where there is only one."""
    middle, n = fmean(values), len(values)
    if n == 1:
        return middle, middle
    reach = t_quantile((1 + confidence) / 2, n - 1) * stdev(values) / sqrt(n)
    return middle - reach, middle + reach


def wilson(correct: float, n: float, confidence: float, freedom: float = inf) -> tuple[float, float]:
    """Wilson's interval for a share of `correct` in `n`; with degrees of freedom, by t."""
    z, share = t_quantile((1 + confidence) / 2, freedom), correct / n
    middle = share + z * z / (2 * n)
    half = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def mcnemar(won: int, lost: int) -> float:
    """Two-sided exact p of `won` out of `won + lost` under a fair coin; 1 when both are 0."""
    from scipy.stats import binomtest

    return float(binomtest(won, won + lost).pvalue) if won + lost else 1.0


def bootstrap(won: int, lost: int, n: int, *, confidence: float, resamples: int, seed: int) -> tuple[float, float]:
    """Percentile interval of the paired difference over resamples of the questions."""
    import numpy as np

    counts = np.random.default_rng(seed).multinomial(n, [won / n, lost / n, (n - won - lost) / n], size=resamples)
    tail = (1 - confidence) / 2
    low, high = np.quantile((counts[:, 0] - counts[:, 1]) / n, [tail, 1 - tail])
    return float(low), float(high)


def detectable(discordant: float, n: int, confidence: float) -> float:
    """The smallest difference that McNemar's test finds with 80 % power; 1 where even the largest would not be.

    `discordant` is the share of questions on which the two models differ.
    """
    from scipy.optimize import brentq

    z, z_power = t_quantile((1 + confidence) / 2), t_quantile(POWER)

    def missing(difference: float) -> float:
        share = max(discordant, difference)
        return z * sqrt(share) + z_power * sqrt(share - difference**2) - sqrt(n) * difference

    return 1.0 if missing(1) > 0 else float(brentq(missing, 1e-12, 1))


def holm(ps: Mapping[str, float]) -> dict[str, float]:
    """p-values by name, corrected for their number: the k-th smallest of m times m - k + 1, never below the one
    before it and never above 1."""
    corrected, least = {}, 0.0
    for rank, (name, p) in enumerate(sorted(ps.items(), key=lambda entry: (entry[1], entry[0]))):
        least = corrected[name] = max(least, min(1.0, (len(ps) - rank) * p))
    return {name: corrected[name] for name in ps}


def pass_at(k: int, n: int, correct: int) -> float:
    """Chance that one of k answers is right, by n answers of which `correct` are (Chen et al., arXiv 2107.03374)."""
    return 1 - comb(n - correct, k) / comb(n, k)


def t_quantile(share: float, freedom: float = inf) -> float:
    """Of Student's t; of the normal distribution without degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, share))
