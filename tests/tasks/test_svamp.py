from collections.abc import Callable
from typing import Any

import pytest

from lema.tasks import Reading
from lema.tasks.svamp import svamp
from lema.text.arithmetic import equations, holds

RECORD = {
    "Body": "Each pack costs 76 dollars. If there is a discount of 25 dollars on each pack",
    "Question": "How much do you have to pay?",
    "Equation": "( 76.0 - 25.0 )",
    "Answer": 51.0,
    "Type": "Common-Divison",
}


def test_a_record_as_published() -> None:
    text = "Each pack costs 76 dollars. If there is a discount of 25 dollars on each pack, how much do you have to pay?"
    assert svamp.read(RECORD) == Reading(text, "51", "76 - 25 = 51", {"type": "Common-Division"})


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("Ann has 3 pens.", "Ann has 3 pens. How much do you have to pay?"),
        ("Ann has 3 pens", "Ann has 3 pens. How much do you have to pay?"),
        ("Ann has 3 pens. After she gets 2", "Ann has 3 pens. After she gets 2, how much do you have to pay?"),
    ],
)
def test_body_and_question_are_one_text(body: str, text: str) -> None:
    assert svamp.read({**RECORD, "Body": body}).text == text


@pytest.mark.parametrize(
    ("equation", "rationale"),
    [
        ("( ( 4.0 + 13.0 ) * 3.0 )", "(4 + 13) * 3 = 51"),
        ("( ( 50.0 + 1.0 ) * ( 2.0 - 1.0 ) )", "(50 + 1) * (2 - 1) = 51"),
        ("( 76.0 - 24.0 )", None),
        ("os.system('x')", None),
        ("", None),
    ],
)
def test_the_equation_is_the_rationale_where_it_gives_the_answer(equation: str, rationale: str | None) -> None:
    assert svamp.read({**RECORD, "Equation": equation}).rationale == rationale


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        ("33.33", "100/3", True),
        ("33.3", "100/3", False),
        ("51.00", "51", True),
        ("0.1", "0.104", True),
        ("", "1", False),
    ],
)
def test_answers_are_rounded_to_two_places(answer: str, gold: str, same: bool) -> None:
    assert svamp.equal(answer, gold) is same


def test_every_real_question_is_read(real_records: Callable[[str], list[dict[str, Any]]]) -> None:
    readings = [svamp.read(record) for record in real_records("svamp.jsonl")]
    assert len(readings) == 1000
    # One equation of the data set does not give its answer, and one is a number alone.
    assert sum(reading.rationale is None for reading in readings) == 2
    for reading in readings:
        assert svamp.extract(f"The answer is {reading.gold}.") == reading.gold
        found = equations(reading.rationale or "1 + 1 = 2")
        assert found
        assert all(holds(equation) for equation in found)
    assert {reading.strata["type"] for reading in readings} == {
        *("Addition", "Subtraction", "Multiplication", "Common-Division")
    }
