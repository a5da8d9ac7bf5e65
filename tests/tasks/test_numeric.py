from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema.tasks.numeric import equal_numbers, extract_number, gold_number
from lema.text.numbers import parse_number

NUMBERS = {
    "12": "12", "-5": "-5", "−5": "-5", "- 5": "-5", "+5": "5", "$-5": "-5", "-$5": "-5", "0": "0", "-0": "0",
    "$1,234.50": "1234.5", "36.0": "36", "36.00 dollars": "36", ".5": "0.5", "5.": "5", "1,000,000": "1000000",
    "£7.25": "7.25", "50%": "50", "50 %": "50", "12 apples": "12", "5kg": "5", "12th": "12", "about 12": "12",
    "1/2": "0.5", "3/4 cup": "0.75", "1 1/2": "1.5", "-1 1/2": "-1.5", "1/3": "1/3", "10/5": "2",
    "2 million": "2000000", "1.5 thousand km": "1500", "\\frac{3}{4}": "0.75", "\\boxed{18}": "18", "$\\$12$": "12",
    "**18**": "18", "3 * 4 = 12": "12", "x = 5 - 2 = 3 km": "3", "12 (3 per day)": "12",
    "1e3": "1000", "1.5e-2": "0.015", "2 x 10^3": "2000", "1.2 × 10^6 km": "1200000", "4 \\times 10^{2}": "400",
}  # fmt: skip
NOT_ONE_NUMBER = [
    "", "twelve", "3 * 4", "3 + 4", "3 x 4", "12 - 4", "12-14", "12 and 13", "3 hours and 20 minutes", "1,23", "1,0000",
    "1,234,5", "1 000", "12:30", "1/0", "0 1/0", "x2", "CO2", "not 12", "1e3x", "10^3", "3 x 10^3 x 2", "1.2.3", "2 +",
    "٣", "inf", "nan", "9" * 41, "9" * 5000, "1/" + "9" * 5000, "__import__('os')", "12 =",
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), NUMBERS.items())
def test_one_number_in_any_dress(text: str, value: str) -> None:
    assert gold_number(text) == value
    assert equal_numbers(text, value)


@pytest.mark.parametrize("text", NOT_ONE_NUMBER)
def test_no_number_or_more_than_one_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number"):
        gold_number(text)
    assert not equal_numbers(text, text)


# What models write, by the answer that it states; None for no answer or more than one: never a guess.
STATED: dict[str | None, list[str]] = {
    "12": [
        "So the answer is 12. There are 3 left.", "The answer is 12, because 3 times 4 is 12.",
        "She pays 3 * 4 = 12 dollars.\n\n**The answer is: 12**", "The answer is: **12**.", "The answer is **$12**.",
        "The answer is $\\boxed{12}$.", "So she has $\\boxed{12}$ apples left.", "\\boxed{\\text{12 apples}}",
        "\\[\n\\boxed{12.00}\n\\]", "#### 12", "3 * 4 = <<3*4=12>>12\n#### 12", "#### $12.00", "Final Answer: 12",
        "**Final Answer:** 12 apples", "### Answer: 12",
        "Answer: Let's think step by step.\n3 * 4 = 12\nThe answer is 12.",
        "Answer: Let's think step by step.\n3 * 4 = 12\n12", "The answer is twelve.", "The answer is Twelve apples.",
        "The answer is: **twelve**", "The answer is twelve (12).", "The answer is 12 apples", "The answer is 12.00",
        "The answer is 12.00 dollars, which is all she has.", "The answer is\n12", "the correct answer is 12!",
        "The answer is 24/2.", "The answer is 24 / 2 = 12.", "The answer is x = 12.", "The answer is 1.2e1.",
        "The answer is 1.2 x 10^1 km.", "The answer is 12%.", "The answer is +12.", "The answer is ~12.",
        "The answer is 10. Wait, that is wrong. The answer is 12.",
        "The answer is 12.\n\nQuestion: How many?\nAnswer: The answer is 13.",
        "The answer is 12.\n\nQ: How many?\nA: The answer is 13.", "The answer is \\(12\\).", "The answer is **(12)**",
        "The answer is:\n\\[\n12\n\\]", "The answer is:\n- 12", "The answer is Rs. 12.",
        "<think>The answer is 13?</think>\n12", "<answer>12</answer>", "- **Answer:** 12",
        "The answer is 12. I checked that the answer is right.",
        "The answer is 12.\n\nHuman: next?\nThe answer is 13.",
    ],
    "12.5": [
        "The answer is 12.5.", "The answer is 12 1/2.",
    ],
    "4": [
        "The answer is 4.\n\nQuestion: Ann has 3?\nAnswer: The answer is 9.",
        "The answer is 4.\nQ: next?\nThe answer is 9.", "The answer is 4.\n\n### Question 2: next?\nThe answer is 9.",
    ],
    "1200": [
        "The answer is 1,200.", "The answer is twelve hundred.",
    ],
    "-12": [
        "The answer is -12.", "The answer is minus twelve.",
    ],
    "13": [
        "\\boxed{1} and then \\boxed{13}", "The answer is 12. No, the answer is 13.",
    ],
    "7": ["3 + 4 = 7\nThe answer is 7."], "8": ["The answer is 7. No, wait. The answer is 8."],
    "1250": ["the final answer is: **$1,250**."], "36": ["The answer is\n36.0 dollars."],
    "15": ["The answer is 5 * 3 = 15 apples."], "1080": ["Reasoning.\n#### 1,080"], "6": ["#### 5\nThe answer is 6."],
    "48": ["3 * 16 = 48\n 48"], "4000": ["It is\n$4,000.00"],
    "3": ["Question: Ann has 3 apples?\nAnswer: The answer is 3."], "1234": ["The answer is 1,234"],
    "12000000": ["The answer is 12 million."], "12000": ["The answer is 12 thousand dollars."],
    "123": ["The answer is one hundred and twenty-three."], "2500": ["The answer is two thousand five hundred."],
    "120": ["#### 120"], "2.4": ["The answer is $\\frac{12}{5}$."], "2.5": ["The answer is $2\\frac{1}{2}$."],
    "5.5": ["The answer is 5½ hours."], "300": ["The answer is 3 hundred."],
    None: [
        "The answer is unknown. There are 5 apples.", "The answer is 7. Then the answer is unclear.",
        "The answer is 3 apples and 4 pears.", "She has 12 apples and 3 pears.", "48 apples", "12 - 4", "",
        "The answer is", "No answer yet.\nQuestion: x? The answer is 9.", "The answer is √12.", "The answer is 12π.",
        "The answer is 12 dozen.", "The answer is two dozen.", "The answer is 12 = 3*4.", "The answer is 12 or 13.",
        "The answer is between 10 and 12.", "The answer is 12 apples and 3 pears.",
        "The answer is twelve or thirteen.", "The answer is one of the twelve.", "The answer is one of them.",
        "The answer is hundred twelve forty.", "The answer is 12:30.", "The answer is 3 * 4.", "The answer is not 12.",
        "The answer is 12-14.", "The answer is unknown.", "She has 12 apples.", "Step 1: 3 * 4 = 12",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("text", "answer"), [(text, answer) for answer, texts in STATED.items() for text in texts])
def test_the_last_stated_answer(text: str, answer: str | None) -> None:
    assert extract_number(text) == answer
    assert answer is None or equal_numbers(answer, "12") is (answer == "12")


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [("36.0", "36", True), ("0.75", "3/4", True), ("33.33", "100/3", False), ("12.4", "12", False), ("-3", "3", False)],
)
def test_equality_is_exact(answer: str, gold: str, same: bool) -> None:
    assert equal_numbers(answer, gold) is same


@given(st.fractions(max_denominator=10**6))
def test_the_plain_form_of_any_number_is_that_number(value: Fraction) -> None:
    shown = gold_number(f"{value.numerator}/{value.denominator}")
    assert parse_number(shown) == value
    assert gold_number(shown) == shown


@given(st.text())
def test_no_text_breaks_extraction(text: str) -> None:
    found = extract_number(f"The answer is {text}")
    assert found is None or equal_numbers(found, found)
