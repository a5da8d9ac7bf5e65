"""Arithmetic in prose."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema.text.arithmetic import equations, evaluate, holds
from lema.text.numbers import format_number, numbers, parse_number


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        *(("2+3*4", 14), ("(2+3)*4", 20), ("12 - 5 - 4", 3), ("24/4/2", 3), ("-2^2", -4), ("2**3", 8)),
        *(("2^-1", Fraction(1, 2)), ("4(3)(2)", 24), ("3 × 4 ÷ 6 − 1", 1), ("50% * 30", 15), ("1,000 + 1", 1001)),
        *(("2 1/2 * 2", 5), ("3 - -2", 5), (".5 * 4", 2)),
    ],
)
def test_evaluate(expression: str, value: int | Fraction) -> None:
    assert evaluate(expression) == value


@pytest.mark.parametrize(
    "text",
    ["", "a", "1 +", "(1", "1)", "1/0", "9^99", "2^0.5", "9^32^32", "1 2", "__import__('os')", "()", "%",
     "(" * 60 + "1" + ")" * 60, "1+" * 300 + "1", "9" * 5000],
)  # fmt: skip
def test_evaluate_refuses(text: str) -> None:
    assert evaluate(text) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("He pays 3 shirts x $20/shirt = $60.", [("3 * 20", "60")]),
        ("3 hours + 3 hours + 4 hours = 10 hours in class", [("3 + 3 + 4", "10")]),
        ("1/3 * 30 = 30 / 3 = $10", [("1 / 3 * 30", "30 / 3"), ("30 / 3", "10")]),
        ("She sold 48/2 = <<48/2=24>>24 clips", [("48 / 2", "24")]),
        ("60% of 120 apartments = 72", [("60% * 120", "72")]),
        ("20 percent of the 50 = 10", [("20% * 50", "10")]),
        ("3 times 4 equals 12", [("3 * 4", "12")]),
        ("5,000*4=20,000 and 2+2=4", [("5000 * 4", "20000"), ("2 + 2", "4")]),
        ("(5 + 3 = 8)", [("5 + 3", "8")]),
        ("x = 3 + 4 = 7", [("3 + 4", "7")]),
        ("Then 4(43) = 172", [("4 (43)", "172")]),
        ("5 oz. x 3 = 15 oz.", [("5 * 3", "15")]),
        ("2 cups / 1/4 cup = 8", [("2 / (1/4)", "8")]),
        ("1½ x 4 = 6", [("(1+1/2) * 4", "6")]),
        ("for 5 days it is 3 x 5 = 15", [("3 * 5", "15")]),
        # Not arithmetic, or not all of it.
        *((text, []) for text in ("2y + 3 = 7", "y + 3 + 4 = 7", "3 + 4 = 7y", "4x = 12", "0.3(140+x) = x", "x = 7")),
        *((text, []) for text in ("half of 20 - 3 = 7", "twice 5 + 1 = 11", "at 5:30 + 2 = 7:30", "5 pens cost = 15")),
    ],
)
def test_equations(text: str, found: list[tuple[str, str]]) -> None:
    assert [(equation.left, equation.right) for equation in equations(text)] == found


def test_an_equation_says_where_it_stands() -> None:
    text = "So he pays $3 x 20 = $60 in all."
    (equation,) = equations(text)
    assert text[equation.start : equation.end] == equation.text == "$3 x 20 = $60"


@pytest.mark.parametrize(
    "text",
    [
        *("14 * 5 = 70", "3 - 5 = -2", "1 - 1/4 = 3/4", "10 / 3 = 3.33", "10 / 3 = 3"),
        *("20 / 3 = 6.66", "20 / 3 = 6.67"),  # cut off; rounded
        *("30% + 20% = 50", "100% + 20% = 120%", "45/60 x 100% = 75%", "40/60 = 67%", "$40 + 10% = $44"),
        *("1 hour - 20 minutes = 40 minutes", "$1 - 25 cents = 75 cents"),
    ],
)
def test_holds(text: str) -> None:
    (equation,) = equations(text)
    assert holds(equation)


@pytest.mark.parametrize(
    "text",
    [
        *("14 * 5 = 60", "20 / 3 = 6.68", "7 / 2 = 3", "12.34 + 5.11 = 17.44", "8 - 10 = 2", "40/60 = 60%"),
        *("$40 - 10% = $44", "1 hour - 20 minutes = 30 minutes"),
    ],
)
def test_does_not_hold(text: str) -> None:
    (equation,) = equations(text)
    assert not holds(equation)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("$1,250.50", Fraction("1250.5")), ("15%", 15), ("12 apples", 12), ("3/4", Fraction(3, 4)), ("is 5.", 5)),
        *(("1 1/2", Fraction(3, 2)), ("½", Fraction(1, 2)), ("-$3", -3), ("−4", -4)),
        *((text, None) for text in ("none", "3 or 4", "", "9" * 5000)),
    ],
)
def test_number(text: str, value: Fraction | int | None) -> None:
    assert parse_number(text) == value


def test_numbers() -> None:
    text = "mid-90s: 5-3, 16 - 2 and -3; $1,200.50 <<7*7=49>> 3/4"
    assert numbers(text) == [90, 5, 3, 16, 2, -3, Fraction("1200.5"), 3, 4]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *((Fraction(7, 2), "3.5"), (Fraction(1200), "1200"), (Fraction(10, 3), "3.3333"), (Fraction(-1, 3), "-0.3333")),
        *((Fraction(1, 400), "0.0025"), (Fraction(1, 30000), "0.00003333"), (Fraction(0), "0")),
    ],
)
def test_show(value: Fraction, shown: str) -> None:
    assert format_number(value) == shown


@given(st.decimals(min_value=-(10**6), max_value=10**6, places=3))
def test_what_is_shown_is_read_again(value: object) -> None:
    exact = Fraction(str(value))
    assert evaluate(format_number(exact)) == exact
    assert parse_number(format_number(exact)) == exact


@given(st.text(alphabet="0123456789 +-*/x=().,%$<>abyz\n", max_size=80))
def test_any_text_is_survived(text: str) -> None:
    for equation in equations(text):
        assert evaluate(equation.left) is not None
        assert text[equation.start : equation.end] == equation.text
        holds(equation)
    numbers(text)
    parse_number(text)
