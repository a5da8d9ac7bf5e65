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

# What models write, by what that is against the gold answer "(A) bank", and by the answer in it. None: nobody can tell.
TEXTS: dict[bool | None, dict[str | None, list[str]]] = {
    True: {
        "bank": [
            "The answer is bank.", 'The answer is "bank".', "So it is $\\boxed{\\text{bank}}$.",
            "The answer is library. No, the answer is bank.",
            "The answer is bank.\n\nQuestion: Where are books?\nThe answer is library.",
        ],
        "(A) bank": [
            "The answer is (A) bank.", "The answer is A: bank.", "The answer is A) bank", "The answer is A. bank",
            "The answer is bank (A).", "The answer is **(A) bank**.", "So it is \\boxed{(A) \\text{ bank}}",
            "**Final Answer:** (A) bank", "Money is safe there.\n(A) bank",
        ],
        "(A)": [
            "The answer is A.", "The answer is (A).", "The answer is A. The others are places too.",
            "The answer is option A.", "The answer is: **A**.", "The correct answer is $\\boxed{A}$.", "Answer: A",
            "Money is safe there.\n(A)", "Money is safe there.\nA.", "The answer is \\(\\text{A}\\).",
            "\\boxed{\\textbf{(A)}}",
        ],
        "Bank": ["The answer is Bank"], "a bank": ["The answer is a bank."],
        "the bank": ["The answer is the bank, because money is kept there."],
    },
    False: {
        "(B)": ["The answer is B."], "(B) library": ["The answer is (B) library."],
        "library": ["The answer is library."], "(C)": ["The answer is c"],
        "(C) a post office": ["The answer is C. a post office"], "(E) the mall": ["The answer is E) the mall"],
        "(E)": ["Money is safe there.\nE"], "banks": ["The answer is banks."],
    },
    None: {
        None: [
            "The answer is A or B.", "The answer is (A) or (B).", "The answer is A, B and C.", "The answer is not A.",
            "The answer is none of these.", "The answer is unclear.",
            "The answer is either of them, as people may keep their money where they like to.",
            "The answer is one that we would have to think about for much longer than this.", "A bank keeps money.",
            "Money is safe there.\nA bank", "The answer is", "",
        ],
        "(A) library": ["The answer is (A) library."], "(B) bank": ["The answer is (B) bank."],
        "the river bank": ["The answer is the river bank."], "bank or library": ["The answer is bank or library."],
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "answer", "same"),
    [(text, answer, same) for same, group in TEXTS.items() for answer, texts in group.items() for text in texts],
)
def test_letter_text_or_both(text: str, answer: str | None, same: bool | None) -> None:
    assert extract_choice(text) == answer
    outcome, _ = grade_text(text, "stop", "(A) bank", csqa)
    assert outcome == {True: "correct", False: "incorrect", None: "unparsed"}[same]


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
