import json
from collections.abc import Sequence
from math import log
from typing import Any

import numpy as np
import pytest

from lema.errors import RunError
from lema.recipe.training_schema import ScoresSpec
from lema.report import statistics
from lema.rows import Answer, Outcome, Probe, Question, Stratum
from lema.stages.scores import scores

LETTERS: dict[str, Outcome] = {"1": "correct", "0": "incorrect", "u": "unparsed", "t": "truncated", "f": "failed"}


def answered(kind: Any = "single", first: int = 0, index: int = 0, **arms: str) -> list[Answer]:
    """One letter a question: answered(base="10u") has one right, one wrong and one unparsed answer. With blanks, one
    word a seed."""
    return [
        Answer(
            f"q{at}/{arm}/{seed}/{kind}{index}", f"q{at}", arm, None if arm == "base" else seed, kind, index,
            "", "stop", None, LETTERS[letter], None, "", 50, 10 + at,
        )
        for arm, words in arms.items()
        for seed, letters in enumerate(words.split())
        for at, letter in enumerate(letters, first)
    ]  # fmt: skip


def score(answers: list[Answer], splits: str = "", probe: Sequence[Probe] = (), **strata: str) -> dict[str, Any]:
    """Scores of answers to the questions q0, q1, ...; a blank-separated word each for splits and strata, where they
    are not "test" and none."""
    names = splits.split()
    questions = [
        Question(
            f"q{at}", names[at] if at < len(names) else "test", "?", "1", None,
            tuple(Stratum(name, values.split(",")[at]) for name, values in strata.items()),
        )
        for at in range(30)
    ]  # fmt: skip
    arms = list(dict.fromkeys(row.arm for row in [*answers, *probe]))
    return scores(questions, answers, probe, spec=ScoresSpec(), arms=arms)


def test_figures_of_a_model() -> None:
    made = score(answered(base="1100utf1"))
    assert made["models"]["base"] == {
        "n": 8,
        "correct": 3,
        "accuracy": 0.375,
        "low": 0.1368,
        "high": 0.6943,
        "by_seed": {},
        "completion_tokens": 13.5,
        "outcomes": {"correct": 3, "incorrect": 2, "unparsed": 1, "timeout": 0, "truncated": 1, "failed": 1},
    }
    assert made["pairs"] == made["strata"] == made["transfer"] == {}
    assert "dev" not in made


def test_figures_of_a_pair_by_hand() -> None:
    # Of 20 questions both are right on 8, lema alone on 6, cot alone on 1, neither on 5.
    # p = 2 * (C(7,0) + C(7,1)) / 2^7 = 16 / 128.
    made = score(answered(cot="1" * 8 + "0" * 6 + "1" + "0" * 5, lema="1" * 14 + "0" * 6))
    pair = made["pairs"]["lema-minus-cot"]
    assert (pair["difference"], pair["won"], pair["lost"], pair["p"]) == (0.25, 6, 1, 0.125)
    assert (pair["low"], pair["high"]) == (0.0, 0.5)


def test_p_values_are_corrected_for_the_pairs_of_the_same_questions() -> None:
    made = score(answered(base="0" * 20, cot="1" * 6 + "0" * 14, lema="1" * 12 + "0" * 8))
    figures = {name: (pair["difference"], pair["p"], pair["holm"]) for name, pair in made["pairs"].items()}
    # Every pair once, the later model minus the earlier.
    assert list(figures.items()) == [
        ("cot-minus-base", (0.3, 0.03125, 0.0625)),
        ("lema-minus-base", (0.6, 0.000488, 0.001465)),
        ("lema-minus-cot", (0.3, 0.03125, 0.0625)),
    ]
    assert score(answered(base="0" * 9, cot="1" * 9))["pairs"]["cot-minus-base"]["holm"] == 0.003906


def test_equal_models_differ_by_nothing_and_the_detectable_difference_says_how_little_that_means() -> None:
    pair = score(answered(base="10" * 10, cot="10" * 10))["pairs"]["cot-minus-base"]
    assert (pair["difference"], pair["low"], pair["high"], pair["p"]) == (0, 0, 0, 1)
    assert 0.2 < pair["detectable"] < 0.4


def test_several_trainings_of_an_arm() -> None:
    made = score(answered(base="1000", cot="1100 1000", lema="1110 1100"))
    cot, lema = made["models"]["cot"], made["models"]["lema"]
    assert (cot["n"], cot["correct"], cot["accuracy"], cot["by_seed"]) == (4, 1.5, 0.375, {"0": 0.5, "1": 0.25})
    assert lema["by_seed"] == {"0": 0.75, "1": 0.5}
    assert lema["outcomes"]["correct"] + lema["outcomes"]["incorrect"] == 8
    pair = made["pairs"]["lema-minus-cot"]
    assert (pair["difference"], pair["won"], pair["lost"]) == (0.25, 2, 0)
    assert pair["low"] < 0 < pair["high"]
    right = [[[1, 1], [1, 0], [0, 0], [0, 0]], [[1, 1], [1, 1], [1, 0], [0, 0]]]
    expected = statistics.difference(np.array(right[1], float), np.array(right[0], float))
    assert pair["p"] == pytest.approx(expected.p(), abs=1e-6)


def test_votes_and_their_majority_stand_beside_the_single_answer() -> None:
    single, most = answered(base="0011", cot="0111"), answered("majority", base="0111", cot="1111")
    votes = [
        row for index, base in enumerate(("0011", "0111", "0101")) for row in answered("vote", 0, index, base=base)
    ]
    votes += [row for index in range(3) for row in answered("vote", 0, index, cot="1111")]
    made = score([*single, *votes, *most])["models"]
    assert made["base"]["accuracy"] == 0.5
    assert made["base"]["majority"]["accuracy"] == 0.75
    # q0 has 0 of 3 votes right, q1 2, q2 2, q3 3: pass@2 of two in three is 1 - C(1,2) / C(3,2) = 1.
    assert made["base"]["pass_at"] == {"1": round((0 + 2 / 3 + 2 / 3 + 1) / 4, 4), "2": 0.75}
    assert made["cot"]["pass_at"] == {"1": 1.0, "2": 1.0}
    assert score([*single, *votes, *most])["pairs"] == score(single)["pairs"]


def test_dev_and_transfer_questions_are_scored_apart() -> None:
    rows = answered(base="0010", cot="1011")
    made = score(rows, "test dev far far")
    assert made["models"]["cot"]["n"] == 1
    assert made["dev"]["models"]["cot"]["n"] == 1
    assert made["transfer"]["far"]["models"]["base"]["accuracy"] == 0.5
    assert made["transfer"]["far"]["pairs"]["cot-minus-base"]["difference"] == 0.5
    assert list(made["transfer"]) == ["far"]


def test_accuracy_by_stratum_of_the_test_questions() -> None:
    rows = answered(base="10010", cot="11010 11110")
    made = score(rows, "test test test test far", steps="2,10,2,2,99" + ",2" * 25, kind="a" + ",a" * 29)
    assert made["strata"] == {
        "steps": {
            "2": {"n": 3, "accuracy": {"base": 0.6667, "cot": 0.8333}},
            "10": {"n": 1, "accuracy": {"base": 0.0, "cot": 1.0}},
        }
    }


def test_perplexities_by_hand() -> None:
    def measured(question: str, arm: str, seed: int | None, right: float, wrong: float) -> Probe:
        return Probe(f"{question}/{arm}/{seed}", question, arm, seed, log(right), log(wrong), 9, 9)

    rows = [
        measured("q0", "base", None, 3, 2), measured("q1", "base", None, 2, 5), measured("q2", "base", None, 4, 5),
        measured("q0", "cot", 0, 1, 2), measured("q0", "cot", 1, 3, 6), measured("q1", "cot", 0, 2, 1),
        measured("q1", "cot", 1, 2, 9),
    ]  # fmt: skip
    made = score(answered(base="0"), probe=rows)["probe"]
    assert made["base"] == {
        "n": 3, "right": 3.0, "wrong": 4.0, "delta": 1.0, "low": -3.9683, "high": 5.9683, "preferred": 0.6667
    }  # fmt: skip
    # Means over the two trainings first: 2 and 2 against 4 and 5.
    assert [made["cot"][name] for name in ("n", "right", "wrong", "delta", "preferred")] == [2, 2.0, 4.5, 2.5, 0.75]
    assert "probe" not in score(answered(base="0"))


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
        score(answers)


def test_the_order_of_rows_within_a_model_changes_nothing_and_all_is_json() -> None:
    rows = answered(base="10110", cot="01110")
    made = score(rows)
    assert json.loads(json.dumps(made)) == made
    assert score(sorted(rows, key=lambda row: (row.arm, row.id[::-1]))) == made
