import json
from math import sqrt

import pytest
from scipy.stats import binomtest

from lema.errors import RunError
from lema.recipe import ScoresSpec
from lema.rows import Answer, Outcome
from lema.stages.scores import bootstrap, detectable, mcnemar, scores, wilson

LETTERS: dict[str, Outcome] = {"1": "correct", "0": "incorrect", "u": "unparsed", "t": "truncated", "f": "failed"}


def answered(**arms: str) -> list[Answer]:
    """One letter a question: answered(base="10u") has one right, one wrong and one unparsed answer."""
    return [
        Answer(f"q{at}/{arm}", f"q{at}", arm, "", "stop", None, LETTERS[letter], None, "", 50, 10 + at)
        for arm, letters in arms.items()
        for at, letter in enumerate(letters)
    ]


def test_figures_of_a_model() -> None:
    made = scores(answered(base="1100utf1"), spec=ScoresSpec())
    assert made["models"]["base"] == {
        "n": 8,
        "correct": 3,
        "accuracy": 0.375,
        "low": 0.1368,
        "high": 0.6943,
        "completion_tokens": 13.5,
        "outcomes": {"correct": 3, "incorrect": 2, "unparsed": 1, "timeout": 0, "truncated": 1, "failed": 1},
    }
    assert made["pairs"] == {}


def test_figures_of_a_pair_by_hand() -> None:
    # Of 20 questions both are right on 8, lema alone on 6, cot alone on 1, neither on 5.
    # p = 2 * (C(7,0) + C(7,1)) / 2^7 = 16 / 128.
    made = scores(answered(cot="1" * 8 + "0" * 6 + "1" + "0" * 5, lema="1" * 14 + "0" * 6), spec=ScoresSpec())
    pair = made["pairs"]["lema-minus-cot"]
    assert (pair["difference"], pair["won"], pair["lost"], pair["p"]) == (0.25, 6, 1, 0.125)
    assert (pair["low"], pair["high"]) == (0.0, 0.5)


def test_every_pair_once_the_later_model_minus_the_earlier() -> None:
    made = scores(answered(base="00", cot="01", lema="11"), spec=ScoresSpec())
    assert list(made["pairs"]) == ["cot-minus-base", "lema-minus-base", "lema-minus-cot"]
    assert [pair["difference"] for pair in made["pairs"].values()] == [0.5, 1.0, 0.5]


def test_equal_models_differ_by_nothing_and_the_detectable_difference_says_how_little_that_means() -> None:
    pair = scores(answered(base="10" * 10, cot="10" * 10), spec=ScoresSpec())["pairs"]["cot-minus-base"]
    assert (pair["difference"], pair["low"], pair["high"], pair["p"]) == (0, 0, 0, 1)
    assert 0.2 < pair["detectable"] < 0.4


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    # Newcombe (1998), Statistics in Medicine 17, table I: method 3 for 81/263, 15/148, 0/20 and 1/29.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_published(correct: int, n: int, low: float, high: float) -> None:
    assert wilson(correct, n, 0.95) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (0, 1), (5, 0), (0, 6), (7, 7), (12, 5), (121, 59), (600, 700)])
def test_mcnemar_is_the_exact_binomial_test(won: int, lost: int) -> None:
    expected = binomtest(won, won + lost, 0.5).pvalue if won + lost else 1.0
    assert mcnemar(won, lost) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(won, lost) == mcnemar(lost, won)


def test_the_bootstrap_interval_nears_the_normal_one_and_is_seeded() -> None:
    won, lost, n = 300, 200, 2000
    error = sqrt((won + lost) / n - ((won - lost) / n) ** 2) / sqrt(n)
    low, high = bootstrap(won, lost, n, ScoresSpec(resamples=20_000))
    assert (low, high) == pytest.approx((0.05 - 1.96 * error, 0.05 + 1.96 * error), abs=0.001)
    assert bootstrap(won, lost, n, ScoresSpec(resamples=100)) == bootstrap(won, lost, n, ScoresSpec(resamples=100))
    wide = bootstrap(won, lost, n, ScoresSpec(confidence=0.99))
    assert wide[0] < low < high < wide[1]


@pytest.mark.parametrize(("discordant", "difference"), [(0.2, 0.1), (0.3, 0.05), (0.1, 0.08), (0.15, 0.15)])
def test_detectable_inverts_the_sample_size_of_connor(discordant: float, difference: float) -> None:
    n = (1.959964 * sqrt(discordant) + 0.841621 * sqrt(discordant - difference**2)) ** 2 / difference**2
    assert detectable(discordant, round(n), 0.95) == pytest.approx(difference, rel=0.01)


def test_more_questions_detect_less_and_few_detect_nothing() -> None:
    found = [detectable(0.2, n, 0.95) for n in (3, 20, 100, 1000)]
    assert found == sorted(found, reverse=True)
    assert found[0] == 1.0


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([], "no answers"),
        (answered(base="11", cot="111"), "1 are answered by one of them only, such as q2"),
        (answered(base="1") * 2, "'base' answered question q0 twice"),
    ],
)
def test_what_cannot_be_compared_is_refused(answers: list[Answer], message: str) -> None:
    with pytest.raises(RunError, match=message):
        scores(answers, spec=ScoresSpec())


def test_the_order_of_rows_within_a_model_changes_nothing_and_all_is_json() -> None:
    rows = answered(base="10110", cot="01110")
    made = scores(rows, spec=ScoresSpec())
    assert json.loads(json.dumps(made)) == made
    assert scores(sorted(rows, key=lambda row: (row.arm, row.id[::-1])), spec=ScoresSpec()) == made
