"""Cutting texts into steps."""

import pytest

from lema.text.steps import number_steps, split_steps


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", ()),
        (" \n\n ", ()),
        ("2 + 3 = 5\nThe answer is 5.", ("2 + 3 = 5", "The answer is 5.")),
        ("Step 1: a\r\n\r\n  Step 2: b ", ("a", "b")),
        ("STEP 1) a\n**Step 2:** b", ("a", "b")),
        ("Step 1: as in Step 2: b", ("as in", "b")),
        ("Step 1: one. Two.", ("one. Two.",)),
        ("Step 1:\nStep 2: b", ("b",)),
        ("She has 3.5 pies. She eats 1.", ("She has 3.5 pies.", "She eats 1.")),
        ("Mr. Li ate 3. Mrs. Li ate 4.", ("Mr. Li ate 3.", "Mrs. Li ate 4.")),
        ("J. R. Smith is from the U.S. Army.", ("J. R. Smith is from the U.S. Army.",)),
        ('"Why?" He paid $5. (So it is.) It is 5!', ('"Why?"', "He paid $5.", "(So it is.)", "It is 5!")),
        ("it costs 5. and that is all", ("it costs 5. and that is all",)),
        ("One. Two.\nThree. Four.", ("One. Two.", "Three. Four.")),
    ],
)
def test_split(text: str, steps: tuple[str, ...]) -> None:
    assert split_steps(text) == steps


def test_numbered_steps_are_split_into_the_same_steps() -> None:
    steps = ("2 + 3 = 5. So far, so good.", "The answer is 5.")
    assert number_steps(steps) == "Step 1: 2 + 3 = 5. So far, so good.\nStep 2: The answer is 5."
    assert split_steps(number_steps(steps)) == steps
    assert number_steps(steps, first=4).startswith("Step 4: ")
    assert split_steps(number_steps(steps[:1])) == steps[:1]
