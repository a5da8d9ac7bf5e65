from typing import Any

import pytest

from lema.tasks import Reading
from lema.tasks.asdiv import asdiv

RECORD = {
    "Body": "Seven red apples and two green apples are in the basket.",
    "Question": "How many apples are in the basket?",
    "Answer": "9 (apples)",
    "Formula": "7+2=9",
    "Solution-Type": "Addition",
    "Grade": "1",
}
TEXT = "Seven red apples and two green apples are in the basket. How many apples are in the basket?"


def test_a_record_as_published() -> None:
    assert asdiv.read(RECORD) == Reading(TEXT, "9", "7+2=9", {"type": "Addition", "grade": "1"})


def test_a_record_of_the_hub() -> None:
    record = {name.lower().replace("-", "_"): value for name, value in RECORD.items()}
    assert asdiv.read(record) == asdiv.read(RECORD)


@pytest.mark.parametrize(
    ("answer", "counts"),
    [
        ("9 (apples)", True), ("2.5 (hours)", True), ("-3", True), ("1,200 (km)", False), ("7:5", False),
        ("2; 3", False), ("1/4 (of the cake)", False), ("Sunday", False), ("yes", False), (7, True),
    ],
)  # fmt: skip
def test_answers_that_are_not_one_number_are_left_out(answer: Any, counts: bool) -> None:
    assert asdiv.counts is not None
    record = {**RECORD, "Answer": answer}
    assert asdiv.counts(record) is counts
    if counts:
        assert asdiv.read(record).gold


def test_a_formula_with_a_remainder_is_no_rationale() -> None:
    assert asdiv.read({**RECORD, "Formula": "29/9=3 r 2"}).rationale is None


def test_a_record_without_an_answer_is_an_error_and_not_left_out() -> None:
    assert asdiv.counts is not None
    assert asdiv.counts({"Body": "B.", "Question": "Q?"})


def test_answers_are_rounded_to_two_places() -> None:
    assert asdiv.equal("3.333", "3.33") is True
    assert asdiv.equal("3.34", "3.33") is False
