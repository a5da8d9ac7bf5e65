from math import sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from scipy.stats import ttest_1samp, ttest_ind

from lema.report.statistics import bootstrap, detectable, difference, holm, mcnemar, pass_at, share, wilson

RIGHT = arrays(float, st.tuples(st.integers(1, 12), st.integers(1, 4)), elements=st.sampled_from([0.0, 1.0]))


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    # Newcombe (1998), Statistics in Medicine 17, table I: method 3 for 81/263, 15/148, 0/20 and 1/29.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_published(correct: int, n: int, low: float, high: float) -> None:
    assert wilson(correct, n, 0.95) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("won", "lost", "p"), [(0, 0, 1), (0, 1, 1), (5, 0, 2 / 32), (6, 1, 16 / 128), (7, 7, 1)])
def test_mcnemar_by_hand(won: int, lost: int, p: float) -> None:
    assert mcnemar(won, lost) == pytest.approx(p)
    assert mcnemar(lost, won) == mcnemar(won, lost)


def test_the_bootstrap_interval_nears_the_normal_one_and_is_seeded() -> None:
    won, lost, n = 300, 200, 2000
    error = sqrt((won + lost) / n - ((won - lost) / n) ** 2) / sqrt(n)

    def interval(confidence: float = 0.95, resamples: int = 100) -> tuple[float, float]:
        return bootstrap(won, lost, n, confidence=confidence, resamples=resamples, seed=0)

    low, high = interval(resamples=20_000)
    assert (low, high) == pytest.approx((0.05 - 1.96 * error, 0.05 + 1.96 * error), abs=0.001)
    assert interval() == interval()
    wide = interval(0.99, 20_000)
    assert wide[0] < low < high < wide[1]


@pytest.mark.parametrize(("discordant", "difference"), [(0.2, 0.1), (0.3, 0.05), (0.1, 0.08), (0.15, 0.15)])
def test_detectable_inverts_the_sample_size_of_connor(discordant: float, difference: float) -> None:
    n = (1.959964 * sqrt(discordant) + 0.841621 * sqrt(discordant - difference**2)) ** 2 / difference**2
    assert detectable(discordant, round(n), 0.95) == pytest.approx(difference, rel=0.01)


def test_more_questions_detect_less_and_few_detect_nothing() -> None:
    found = [detectable(0.2, n, 0.95) for n in (3, 20, 100, 1000)]
    assert found == sorted(found, reverse=True)
    assert found[0] == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_by_its_definition(ps: list[float]) -> None:
    made = list(holm({str(at): p for at, p in enumerate(ps)}).values())
    ordered = sorted(ps)
    for p, corrected in zip(ps, made, strict=True):
        steps = [min(1.0, (len(ps) - k) * q) for k, q in enumerate(ordered) if q <= p]
        assert corrected == max(steps)
    assert all(p <= q <= 1 for p, q in zip(ps, made, strict=True))


@pytest.mark.parametrize(("k", "n", "right"), [(1, 8, 3), (4, 8, 3), (8, 8, 1), (8, 8, 0), (5, 8, 4)])
def test_pass_at_k_is_the_chance_of_a_draw_without_replacement(k: int, n: int, right: int) -> None:
    assert pass_at(k, n, right) == pytest.approx(1 - stats.hypergeom(n, right, k).pmf(0))


def test_seeds_that_all_agree_leave_the_paired_test_over_questions() -> None:
    rng = np.random.default_rng(3)
    one, other = (np.repeat(rng.integers(0, 2, (400, 1)), 3, axis=1).astype(float) for _ in range(2))
    found = difference(one, other)
    paired = ttest_1samp((one - other).mean(1), 0)
    assert found.freedom == 399
    assert found.p() == pytest.approx(paired.pvalue, rel=0.02)
    assert found.interval(0.95) == pytest.approx(tuple(paired.confidence_interval(0.95)), abs=0.001)


def test_seeds_that_decide_everything_leave_the_test_over_seeds() -> None:
    # Every question is answered alike by a seed, so thousands of questions are worth no more than 4 seeds an arm.
    def arm(*shares: float) -> Any:
        return np.array([[float(at < share * 4000) for share in shares] for at in range(4000)])

    one, other = (0.50, 0.60, 0.66, 0.72), (0.50, 0.55, 0.62, 0.52)
    found, expected = difference(arm(*one), arm(*other)), ttest_ind(one, other, equal_var=False)
    assert found.value == pytest.approx(np.mean(one) - np.mean(other), abs=0.001)
    assert found.p() == pytest.approx(expected.pvalue, rel=0.15)
    assert found.p() > 0.1
    assert found.freedom == pytest.approx(expected.df, rel=0.15)


def test_few_questions_that_all_agree_prove_nothing() -> None:
    found = difference(np.ones((2, 2)), np.zeros((2, 2)))
    assert found.value == 1
    assert found.p() > 0.05
    assert found.interval(0.95)[0] < 0.1


@settings(max_examples=200)
@given(RIGHT, st.data())
def test_what_must_hold_of_every_difference(one: Any, data: st.DataObject) -> None:
    shape = st.tuples(st.just(len(one)), st.integers(1, 4))
    other = data.draw(arrays(float, shape, elements=st.sampled_from([0.0, 1.0])))
    found, mirrored = difference(one, other), difference(other, one)
    low, high = found.interval(0.95)
    assert -1 <= low <= found.value <= high <= 1
    assert mirrored.interval(0.95) == pytest.approx((-high, -low))
    assert 0 < found.p() <= 1
    assert found.p() == pytest.approx(mirrored.p())
    # The interval and the test agree on whether there is a difference.
    if abs(found.p() - 0.05) > 1e-6:
        assert (found.p() < 0.05) == (low > 0 or high < 0)
    assert 0 < found.detectable(0.95) <= 1
    shuffled = difference(one[::-1, ::-1], other[::-1])
    assert shuffled.value == pytest.approx(found.value)
    assert shuffled.p() == pytest.approx(found.p())


@given(RIGHT)
def test_what_must_hold_of_every_share(right: Any) -> None:
    low, high = share(right, 0.95)
    assert 0 <= low <= right.mean() + 1e-9
    assert right.mean() - 1e-9 <= high <= 1
    if right.shape[1] == 1:
        assert (low, high) == wilson(int(right.sum()), len(right), 0.95)


def simulated(rng: Any, n: int, seeds: int, hard: Any, ability: float, luck: float) -> Any:
    """Answers of models whose seeds differ: logit = ability + seed + question."""
    logits = ability + rng.normal(0, luck, seeds) + hard[:, None]
    return (rng.random((n, seeds)) < 1 / (1 + np.exp(-logits))).astype(float)


@pytest.mark.parametrize(("n", "seeds", "luck"), [(200, 3, 0.0), (200, 3, 0.2), (400, 5, 0.1), (400, 5, 0.4)])
def test_a_difference_that_is_not_there_is_seldom_found_and_the_interval_covers(
    n: int, seeds: int, luck: float
) -> None:
    rng, repeats = np.random.default_rng(7), 600
    found, covered = 0, 0
    for _ in range(repeats):
        hard = rng.normal(0, 1.5, n)
        one, other = (simulated(rng, n, seeds, hard, 0, luck) for _ in range(2))
        found += difference(one, other).p() < 0.05
        low, high = share(one, 0.95)
        covered += low <= 0.5 <= high
    # Of 600 repeats at 5 %, chance alone makes 3.3 to 6.8 % of it.
    assert found / repeats < 0.07
    assert covered / repeats > 0.92


def test_taking_questions_alone_for_the_sample_would_find_differences_that_are_not_there() -> None:
    """The reason for all this: with seeds that differ, the paired test over questions is wrong far too often."""
    rng, repeats, naive, ours = np.random.default_rng(8), 300, 0, 0
    for _ in range(repeats):
        hard = rng.normal(0, 1.5, 1000)
        one, other = (simulated(rng, 1000, 3, hard, 0, 0.3) for _ in range(2))
        naive += ttest_1samp((one - other).mean(1), 0).pvalue < 0.05
        ours += difference(one, other).p() < 0.05
    assert naive / repeats > 0.3
    assert ours / repeats < 0.08


def test_a_difference_that_is_there_is_found_as_often_as_detectable_says() -> None:
    rng, repeats = np.random.default_rng(9), 300
    made = []
    for _ in range(repeats):
        hard = rng.normal(0, 1.5, 400)
        one, other = simulated(rng, 400, 5, hard, 0.32, 0.1), simulated(rng, 400, 5, hard, 0, 0.1)
        made.append(difference(one, other))
    # 0.32 logits are 5.7 points on these questions, and that is what is called detectable with a power of 80 %.
    assert np.mean([estimate.value for estimate in made]) == pytest.approx(0.057, abs=0.002)
    assert np.median([estimate.detectable(0.95) for estimate in made]) == pytest.approx(0.057, abs=0.002)
    assert 0.7 < sum(estimate.p() < 0.05 for estimate in made) / repeats < 0.9
