from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema.stages.grades import grade_text
from lema.tasks import Reading, Undecided
from lema.tasks.csqa import csqa, equal_choices, extract_choice

STEM = "Where would you keep money that you do not need?"
WORDS = ["bank", "library", "a post office", "mall", "the river bank"]
HUB = {"question": STEM, "choices": {"label": list("ABCDE"), "text": WORDS}, "answerKey": "A"}
FILE = {
    "answerKey": "A",
    "question": {"stem": STEM, "choices": [{"label": a, "text": b} for a, b in zip("ABCDE", WORDS, strict=True)]},
}
TEXT = f"{STEM}\nCandidate Answers: (A) bank, (B) library, (C) a post office, (D) mall, (E) the river bank."

# What models write, what it says, and what that is against the gold answer "(A) bank".
TEXTS = [
    ("The answer is bank.", "bank", True),
    ("The answer is Bank", "Bank", True),
    ("The answer is a bank.", "a bank", True),
    ("The answer is the bank, because money is kept there.", "the bank", True),
    ("The answer is (A) bank.", "(A) bank", True),
    ("The answer is A.", "(A)", True),
    ("The answer is (A).", "(A)", True),
    ("The answer is A: bank.", "(A) bank", True),
    ("The answer is A) bank", "(A) bank", True),
    ("The answer is A. bank", "(A) bank", True),
    ("The answer is A. The others are places too.", "(A)", True),
    ("The answer is option A.", "(A)", True),
    ("The answer is bank (A).", "(A) bank", True),
    ("The answer is: **A**.", "(A)", True),
    ("The answer is **(A) bank**.", "(A) bank", True),
    ('The answer is "bank".', "bank", True),
    ("The correct answer is $\\boxed{A}$.", "(A)", True),
    ("So it is $\\boxed{\\text{bank}}$.", "bank", True),
    ("So it is \\boxed{(A) \\text{ bank}}", "(A) bank", True),
    ("Answer: A", "(A)", True),
    ("**Final Answer:** (A) bank", "(A) bank", True),
    ("Money is safe there.\n(A)", "(A)", True),
    ("Money is safe there.\nA.", "(A)", True),
    ("The answer is library. No, the answer is bank.", "bank", True),
    ("The answer is bank.\n\nQuestion: Where are books?\nThe answer is library.", "bank", True),
    ("The answer is \\(\\text{A}\\).", "(A)", True),
    ("\\boxed{\\textbf{(A)}}", "(A)", True),
    ("Money is safe there.\n(A) bank", "(A) bank", True),
    ("The answer is B.", "(B)", False),
    ("The answer is (B) library.", "(B) library", False),
    ("The answer is library.", "library", False),
    ("The answer is c", "(C)", False),
    ("The answer is C. a post office", "(C) a post office", False),
    ("The answer is E) the mall", "(E) the mall", False),
    ("Money is safe there.\nE", "(E)", False),
    ("The answer is banks.", "banks", False),
    # one letter and another text, or more than a candidate: nobody can tell
    ("The answer is (A) library.", "(A) library", None),
    ("The answer is (B) bank.", "(B) bank", None),
    ("The answer is the river bank.", "the river bank", None),
    ("The answer is bank or library.", "bank or library", None),
    ("The answer is A or B.", None, None),
    ("The answer is (A) or (B).", None, None),
    ("The answer is A, B and C.", None, None),
    ("The answer is not A.", None, None),
    ("The answer is none of these.", None, None),
    ("The answer is unclear.", None, None),
    ("The answer is either of them, as people may keep their money where they like to.", None, None),
    ("The answer is " + "one that we would have to think about for much longer than this.", None, None),
    ("A bank keeps money.", None, None),
    ("Money is safe there.\nA bank", None, None),
    ("The answer is", None, None),
    ("", None, None),
]


@pytest.mark.parametrize(("text", "answer", "same"), TEXTS)
def test_letter_text_or_both(text: str, answer: str | None, same: bool | None) -> None:
    assert extract_choice(text) == answer
    outcome, _ = grade_text(text, "stop", "(A) bank", csqa)
    assert outcome == {True: "correct", False: "incorrect", None: "unparsed"}[same]


def test_a_column_is_long_enough() -> None:
    assert len(TEXTS) >= 40


def test_a_text_that_holds_the_gold_text_is_not_it() -> None:
    assert equal_choices("the river bank", "(E) the river bank") is True
    assert equal_choices("the river bank", "(A) bank") is Undecided.UNPARSED
    assert equal_choices("bank", "(E) the river bank") is False


@given(st.text(max_size=30))
def test_no_text_breaks_extraction(text: str) -> None:
    found = extract_choice(f"The answer is {text}")
    assert found is None or equal_choices(found, "(A) bank") in (True, False, Undecided.UNPARSED)


@pytest.mark.parametrize("record", [HUB, FILE], ids=["hub", "file"])
def test_both_formats_are_read_and_the_question_lists_its_candidates(record: dict[str, Any]) -> None:
    assert csqa.read(record) == Reading(TEXT, "(A) bank", None)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({**HUB, "answerKey": "F"}, "`answerKey` is 'F', the choices are A, B, C, D, E"),
        ({**HUB, "answerKey": ""}, "needs a text in `answerKey`"),
        ({**HUB, "choices": {"label": ["A"], "text": ["bank", "mall"]}}, "needs `choices` with a `label` and a `text`"),
        ({**HUB, "choices": None}, "needs `choices`"),
        ({"answerKey": "A"}, "needs a text in `question`"),
    ],
)
def test_unreadable_records_say_what_is_wrong(record: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        csqa.read(record)
