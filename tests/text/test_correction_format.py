"""The reply format: what is written is read, what is not in the format is refused with a reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema.text.correction_format import (
    Malformed,
    Parsed,
    elide_prefix,
    expand_ellipsis,
    number_solution,
    parse_correction,
    parse_correction_json,
    write_correction,
)

GOOD = """Incorrect Step: Step 2.
Error Type: wrong operation
Explanation: It adds
where it should multiply.
Correct Solution:
...
Step 2: 4 * 3 = 12
Step 3: The answer is 12."""

PARSED = Parsed(2, "wrong operation", "It adds where it should multiply.", ("...", "4 * 3 = 12", "The answer is 12."))


def test_a_reply_is_read() -> None:
    assert parse_correction(GOOD) == PARSED
    assert parse_correction(GOOD, steps=3) == PARSED


@pytest.mark.parametrize(
    "text",
    [
        "Sure, here it is.\n\n" + GOOD,
        GOOD.replace("Incorrect Step:", "**Incorrect Step:**").replace("Explanation:", "### Explanation:"),
        GOOD.replace("Step 2.\n", "2\n"),
        GOOD.replace("Correct Solution:\n", "Correct Solution:\n{\n") + "\n}\n",
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("...", "…"),
        GOOD.upper().replace("IT ADDS\nWHERE IT SHOULD MULTIPLY.", "It adds where it should multiply.")
        .replace("WRONG OPERATION", "wrong operation").replace("THE ANSWER IS 12.", "The answer is 12."),
    ],
)  # fmt: skip
def test_dress_does_not_matter(text: str) -> None:
    assert parse_correction(text) == PARSED


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "`Incorrect Step:` is missing"),
        ("I cannot help with that.", "`Incorrect Step:` is missing"),
        (GOOD.replace("Explanation:", "Because"), "`Explanation:` is missing"),
        (GOOD + "\nExplanation: again", "`Explanation:` is there more than once"),
        (GOOD.replace("It adds\nwhere it should multiply.", ""), "`Explanation:` is empty"),
        ("Explanation: a\nIncorrect Step: 1\nCorrect Solution:\nStep 1: b", "the fields are not in the order"),
        (GOOD.replace("Step 2.\n", "none\n"), "does not name one step"),
        (GOOD.replace("Step 2.\n", "Steps 2 and 3\n"), "does not name one step"),
        (GOOD.replace("Step 2.\n", "Step 0.\n"), "the incorrect step is 0"),
        (GOOD.replace("Step 2.\n", "Step " + "9" * 5000 + "\n"), "does not name one step"),
        (GOOD.replace("Step 2.\n", "Step 1.\n"), "no step comes before Step 1"),
        (GOOD.replace("...\n", ""), "has Step 2 where Step 1 is due"),
        (GOOD.replace("Step 3: The", "Step 4: The"), "has Step 4 where Step 3 is due"),
        (GOOD.replace("Step 3: The", "The"), "a line that is not a step, where Step 3 is due"),
        (GOOD.replace("Step 2: 4 * 3 = 12", "Step 2:"), "Step 2 of the solution is empty"),
        (GOOD.partition("\nStep 2: 4")[0], "the solution has no steps"),
        (GOOD.replace("Step 2.\n", "Step 4.\n"), "the incorrect step is 4, but the path has steps 1 to 3"),
    ],
)
def test_what_is_malformed_has_a_reason(text: str, reason: str) -> None:
    parsed = parse_correction(text, steps=3)
    assert isinstance(parsed, Malformed)
    assert reason in parsed.reason
    assert "\n" not in parsed.reason


WHOLE = """Mistakes: A library keeps books,
not money.
Corrected Answer:
(A) bank: it keeps money.
(B) library: it keeps books.

The answer is (A) bank."""
WHOLE_SOLUTION = ("(A) bank: it keeps money.", "(B) library: it keeps books.", "The answer is (A) bank.")
WHOLE_PARSED = Parsed(None, None, "A library keeps books, not money.", WHOLE_SOLUTION)


@pytest.mark.parametrize(
    "text",
    [
        WHOLE,
        "Sure.\n\n" + WHOLE.replace("Mistakes:", "**Mistakes:**"),
        WHOLE.replace("Corrected Answer:", "### Corrected Answer:\n{") + "\n}",
    ],
)
def test_a_correction_may_name_no_step(text: str) -> None:
    assert parse_correction(text) == WHOLE_PARSED == parse_correction(text, steps=2)
    assert parse_correction(write_correction(WHOLE_PARSED)) == WHOLE_PARSED
    assert number_solution(WHOLE_SOLUTION, None) == WHOLE_SOLUTION
    assert expand_ellipsis(WHOLE_SOLUTION, None, ("x",)) == elide_prefix(WHOLE_SOLUTION, None, ("x",)) == WHOLE_SOLUTION


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (WHOLE.partition("\nCorrected")[0], "`Corrected Answer:` is missing"),
        (WHOLE.partition("Corrected")[1] + WHOLE.partition("Corrected")[2], "`Mistakes:` is missing"),
        (WHOLE.partition("\n(A)")[0] + "\n{\n}", "`Corrected Answer:` is empty"),
        (WHOLE + "\nMistakes: more", "`Mistakes:` is there more than once"),
        ("Mistakes: All.\nCorrected Answer:\n...\nThe answer is bank.", "`Corrected Answer:` is not written out"),
    ],
)
def test_a_correction_without_a_step_has_both_fields(text: str, reason: str) -> None:
    assert parse_correction(text) == Malformed(reason)


LINE = st.text(alphabet="abc 123+=.", min_size=1, max_size=20).map(str.strip).filter(lambda text: text.strip(".…"))


@given(st.integers(1, 30), LINE, st.lists(LINE, min_size=1, max_size=5), st.sampled_from([None, "arithmetic slip"]))
def test_what_is_written_is_read(step: int, explanation: str, lines: list[str], kind: str | None) -> None:
    solution = ("...", *lines) if step > 1 else tuple(lines)
    correction = Parsed(step, kind, " ".join(explanation.split()), solution)
    assert parse_correction(write_correction(correction)) == correction


def test_numbers_and_ellipsis() -> None:
    path = ("a", "b", "c")
    assert number_solution(("x", "y"), 2) == ("Step 1: x", "Step 2: y")
    assert number_solution(("...", "x", "y"), 3) == ("...", "Step 3: x", "Step 4: y")
    assert expand_ellipsis(("...", "x"), 3, path) == ("a", "b", "x")
    assert elide_prefix(("a", "b", "x"), 3, path) == ("...", "x")
    for whole, at in ((("a", "z", "x"), 3), (("...", "x"), 3), (("x",), 1)):
        assert elide_prefix(whole, at, path) == whole


OBJECT = (
    '{"incorrect_step": 2, "error_type": "wrong operation", "explanation": "It adds\\nwhere it should multiply.", '
    '"solution": ["...", "4 * 3 = 12", "Step 3: The answer is 12."]}'
)


@pytest.mark.parametrize("text", [OBJECT, f"```json\n{OBJECT}\n```", f"Here it is: {OBJECT} Is that right?"])
def test_an_object_is_read(text: str) -> None:
    assert parse_correction_json(text, steps=3) == PARSED


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the reply is not a JSON object"),
        (GOOD, "the reply is not a JSON object"),
        ("[" * 5000 + "{}" + "]" * 5000, "`incorrect_step` is missing"),
        ('{"a": ' * 5000 + "1" + "}" * 5000, "the reply is not a JSON object"),
        (OBJECT.replace('"explanation"', '"why"'), "`explanation` is missing"),
        (OBJECT.replace("2, ", '"2", '), "`incorrect_step` is not a whole number"),
        (OBJECT.replace("2, ", "true, "), "`incorrect_step` is not a whole number"),
        (OBJECT.replace("2, ", "null, "), "`incorrect_step` is empty"),
        (OBJECT.replace("2, ", "4, "), "the incorrect step is 4, but the path has steps 1 to 3"),
        (OBJECT.replace("2, ", "1, "), "the solution begins with '...'"),
        (OBJECT.replace('"It adds\\nwhere it should multiply."', '""'), "`explanation` is empty"),
        (OBJECT.replace('"It adds\\nwhere it should multiply."', "[]"), "`explanation` and `error_type` are texts"),
        (OBJECT.replace('["..."', "[{}"), "`solution` is not a list of steps"),
        ('{"incorrect_step": 1, "explanation": "a", "solution": [" "]}', "the solution has no steps"),
    ],
)
def test_an_object_that_is_no_correction_has_a_reason(text: str, reason: str) -> None:
    found = parse_correction_json(text, steps=3)
    assert isinstance(found, Malformed)
    assert found.reason.startswith(reason)


@pytest.mark.parametrize("at", [2, None])
@pytest.mark.parametrize("explanation", ["It adds.", None])
@pytest.mark.parametrize("solution", [("...", "4 * 3 = 12"), ("a", "4 * 3 = 12")])
def test_a_reply_may_do_without_fields(at: int | None, explanation: str | None, solution: tuple[str, ...]) -> None:
    known = 2 if solution[0] == "..." else at  # "..." stands before the incorrect step
    text = write_correction(Parsed(2, None, explanation, solution))
    text = text if at else text.replace("Incorrect Step: Step 2.\n", "")
    without = [name for name, value in (("incorrect_step", at), ("explanation", explanation)) if value is None]
    assert parse_correction(text, without=without) == Parsed(known, None, explanation, solution)
    if without:
        assert isinstance(parse_correction(text), Malformed)
