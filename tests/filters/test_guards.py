"""The guards: test questions, gold solutions and near copies do not get through, and what is only like them does."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lema.errors import RunError
from lema.filters import Candidate, Finding
from lema.models.reference import correct
from lema.rows import Question
from lema.text.steps import number_steps
from tests.filters.candidates import GOOD, MALFORMED, QUESTION, candidate, find, judge

DATA = Path(os.environ.get("LEMA_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
HENS = (
    "Ravi's hens lay 11 eggs a day. He collects the eggs for 2 days and packs them into boxes of 2. "
    "His sister takes three boxes home. How many boxes are left for Ravi?"
)
TEST = Question("t1", "test", HENS, "8", None)
SHORT = Question("t2", "test", "What is 17 - 25?", "-8", None)


def checked(question: str, test: list[Question], **change: Any) -> Finding:
    options = {name: change.pop(name) for name in ("ngram", "limit", "files", "field", "read_file") if name in change}
    rows = [candidate(replace(GOOD, **change), question=replace(QUESTION, text=question))]
    return find("contamination", rows, questions=[QUESTION, *test], **options)[0]


def test_a_test_question_is_found_among_the_training_questions_and_in_a_reply() -> None:
    found = Finding(1, "holds the test question t1")
    for question in (HENS, HENS.upper().replace(" ", "  ").replace(".", " ."), f"Read well. {HENS} Show your work."):
        assert checked(question, [SHORT, TEST]) == found
    for change in ({"explanation": f"As in: {HENS}"}, {"solution": f"{HENS}\nThe answer is 9."}):
        assert checked("Ann has 2.", [TEST], **change) == found
    assert checked(HENS, [replace(TEST, split="train")]) == Finding(0)


def test_part_of_a_test_question_is_measured_and_dropped_above_the_limit() -> None:
    part = checked(HENS.replace("are left for Ravi", "do remain"), [TEST])
    assert part.value is not None
    assert 0.5 < part.value < 1
    assert part.reason == f"holds {part.value:.0%} of the 13-grams of the test question t1"
    assert checked(HENS.replace("are left for Ravi", "do remain"), [TEST], limit=part.value) == Finding(part.value)
    assert checked("So " + " ".join(HENS.split()[:13]), [TEST], limit=0.0).reason is not None


@pytest.mark.parametrize(
    "other",
    [
        HENS.replace("2 days", "3 days").replace("three boxes", "four boxes"),
        "Ravi has hens. They lay 11 eggs, and boxes hold 2. How many boxes are there?",
        " ".join(reversed(HENS.split())),
    ],
)
def test_another_question_is_not_taken_for_a_test_question(other: str) -> None:
    assert checked(other, [TEST, SHORT]).reason is None


@pytest.mark.parametrize(("question", "hit"), [("what is  17 - 25", True), ("What is 17 + 25?", False),
                                               ("What is 17 - 25 + 3?", False), ("What is 17?", False)])  # fmt: skip
def test_a_short_test_question_must_be_the_same(question: str, hit: bool) -> None:
    assert (checked(question, [SHORT]).value == 1) is hit


def test_words_that_many_test_questions_share_are_no_question() -> None:
    dressing = "Think step by step and write the final answer as a fraction in its lowest terms in a box."
    many = [Question(f"t{at}", "test", f"What is {at} over {at + 7}? {dressing}", "", None) for at in range(11)]
    assert checked(f"How much is half of twelve? {dressing}", many) == Finding(0)
    assert checked(f"How much is half of twelve? {dressing}", many[:10]).value != 0


def test_test_questions_of_other_files_count() -> None:
    rows = {"more.jsonl": [{"text": "Other?"}, {"text": HENS}]}
    options: dict[str, Any] = {"files": ["more.jsonl"], "read_file": rows.__getitem__}
    assert checked(HENS, [], field="text", **options) == Finding(1, "holds the test question more.jsonl:2")
    with pytest.raises(RunError, match=r"more\.jsonl, row 1: needs a text in `question`; the record has: text"):
        checked(HENS, [], **options)


@settings(deadline=None)
@given(st.integers(2, 9), st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=30))
def test_a_question_always_holds_itself(ngram: int, letters: list[str]) -> None:
    test = Question("t", "test", " ".join(letters), "", None)
    assert checked(test.text, [test], ngram=ngram, explanation="", solution="").value == 1


GOLD = replace(
    QUESTION,
    text="A hall has 12 rows of 8 seats. 36 seats are taken. How many are free?",
    gold="60",
    rationale="The hall has 12 rows of 8 seats, which is 12 * 8 = <<12*8=96>>96 seats.\n"
    "Of these 36 are taken, so 96 - 36 = <<96-36=60>>60 seats are free.",
)
RECITED = "The hall has 12 rows of 8 seats, which is 12 * 8 = 96 seats.\nOf these 36 are taken, so 96 - 36 = 60 seats are free."  # noqa: E501


def leak(hint: str = "none", solution: str = "12 * 8 = 96\nThe answer is 60.", **change: Any) -> Finding:
    row = replace(GOOD, incorrect_step=1, solution=solution, **change)
    return find("gold_leak", [candidate(row, "Nothing.", GOLD)], hint=hint)[0]


@pytest.mark.parametrize(
    "explanation",
    [
        "The reference solution multiplies 12 by 8.",
        "According to the gold answer, it is 60.",
        "This does not match the given answer.",
        "The provided correct answer is 60, so Step 1 is wrong.",
        "The rationale shows that 36 must be subtracted.",
        "It differs from the ground truth.",
        "The answer key says 60.",
    ],
)
def test_talk_of_a_solution_that_nobody_sees_is_found(explanation: str) -> None:
    reason = leak("rationale", explanation=explanation).reason
    assert reason is not None
    assert reason.startswith("speaks of ")
    assert leak(explanation="", solution=f"{explanation}\nThe answer is 60.").reason == reason


@pytest.mark.parametrize(
    "explanation",
    [
        "The correct answer is 60 because 36 of the 96 seats are taken.",
        "The given solution adds 12 and 8 instead of multiplying them.",
        "Step 1 of the provided solution is wrong: 12 * 8 is 96.",
        "The hall has 96 seats, not 86.",
        "No reference to the seats that are taken is made.",
        "A golden ticket answers for two seats.",
    ],
)
def test_talk_of_the_path_or_the_answer_is_no_leak(explanation: str) -> None:
    assert leak(explanation=explanation).reason is None
    # The question may speak of an answer key itself.
    row, question = replace(GOOD, explanation="The answer key has 9 lines."), "An answer key has 5 lines and 4 more."
    assert find("gold_leak", [candidate(row, question=replace(GOLD, text=question))])[0].reason is None


@pytest.mark.parametrize("said", ["The answer is 60.", "So the correct answer is 60.", "The answer should be 60"])
def test_an_explanation_that_only_states_the_answer_is_found(said: str) -> None:
    assert leak("rationale", explanation=said).reason == "the explanation only states the answer"


def test_a_recited_rationale_is_found() -> None:
    assert leak(explanation=RECITED).reason == "the explanation is the gold rationale, 100% word for word"
    said = "the solution is the gold rationale, 100% word for word"
    assert leak(solution=f"{RECITED}\nThe answer is 60.") == Finding(1, said)
    # A corrector that was shown the rationale may well write it down.
    assert leak("rationale", solution=f"{RECITED}\nThe answer is 60.").reason is None


def test_a_solution_in_other_words_or_a_short_one_is_no_leak() -> None:
    finding = leak(
        solution="There are 12 * 8 = 96 seats in the hall.\nSo 96 - 36 = 60 seats are free.\nThe answer is 60."
    )
    assert finding.reason is None
    assert 0 < (finding.value or 0) < 0.5
    row = replace(GOOD, incorrect_step=1, solution="5 + 4 = 9\nThe answer is 9.")
    short = candidate(row, question=replace(QUESTION, rationale="5 + 4 = 9"))
    assert find("gold_leak", [short]) == [Finding(0)]


LONG = (
    "The hall has 12 rows and every row has 8 seats, so there are 12 * 8 = 96 seats in all.\n"
    "People take 20 of the seats at first, which leaves 96 - 20 = 76 seats that are free.\n"
    "Then 16 more people come in and sit down, so that in the end 76 - 16 = 60 seats are free.\nThe answer is 60."
)


def near(*solutions: str | None, **options: Any) -> list[Finding]:
    rows = [replace(GOOD, id=f"c{at}", solution=text, incorrect_step=1) for at, text in enumerate(solutions)]
    return judge("near_duplicate", *rows, **options)


def test_nearly_the_same_correction_is_found_and_the_first_kept() -> None:
    first, second, third = near(LONG, LONG.replace("at first", "to begin"), LONG.replace("  ", " ").lower())
    assert first == Finding(0)
    assert second.value is not None
    assert 0.85 < second.value < 1
    assert second.reason == f"{second.value:.0%} like c0, limit is 85%"
    assert third == Finding(1, "100% like c0, limit is 85%")


def test_what_is_only_like_an_earlier_correction_is_kept_and_measured() -> None:
    changed = LONG.replace("20 of the seats", "many seats").replace("come in and sit down", "arrive")
    changed = changed.replace("rows", "lines")
    first, second = near(LONG, changed)
    assert second.reason is None
    assert second.value is not None
    assert 0.5 < second.value < 0.85
    assert near(LONG, changed, threshold=second.value)[1].reason is not None
    assert near(LONG, "5 + 4 = 9.\nThe answer is 9.") == [first, Finding(0)]


def test_another_question_with_the_same_numbers_is_no_near_duplicate() -> None:
    other = replace(QUESTION, text="How many of the seats in the hall, which has rows, are free when people come?")
    rows = [candidate(replace(GOOD, id="c0")), candidate(replace(GOOD, id="c1"), question=other)]
    assert all(finding.reason is None for finding in find("near_duplicate", rows))


def test_near_duplicates_are_the_same_every_time() -> None:
    texts = [LONG, LONG.replace("seats", "chairs"), LONG.replace("12 rows", "the rows"), None, "", LONG]
    assert near(*texts) == near(*texts)
    assert near(*texts)[3:5] == [Finding(None), Finding(None)]
    assert judge("near_duplicate", MALFORMED) == [Finding(None)]


def real_corrections() -> list[Candidate]:
    """Corrections of real wrong paths by the program `reference`."""
    path = DATA / "mistakes" / "gsm8k_train_mistakes.jsonl"
    if not path.is_file():
        pytest.skip(f"no real mistakes: {path.name} is not there")
    made = []
    for at, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        row = json.loads(line)
        *rationale, gold = [step.strip() for step in row["reference_solution"].splitlines()]
        steps = [*(step.strip() for step in row["steps"][:-1]), f"The answer is {row['steps'][-1].strip()}."]
        fixed = correct(row["question"], rationale, gold, steps)
        if fixed is None:
            continue
        correction = replace(
            GOOD, id=f"m{at}/c0", incorrect_step=fixed.incorrect_step, explanation=fixed.explanation,
            solution="\n".join(fixed.solution), answer=gold,
        )  # fmt: skip
        question = Question(f"m{at}", "train", row["question"], gold, "\n".join(rationale))
        made.append(candidate(correction, number_steps(steps), question))
    return made


def test_what_is_planted_among_real_corrections_is_found_and_nothing_else() -> None:
    rows = real_corrections()
    assert len(rows) > 250

    def planted(**change: Any) -> list[Candidate]:
        return [replace(row, correction=replace(row.correction, **change)) for row in rows[::10]]

    tests = [replace(row.question, id=f"t{at}", split="test") for at, row in enumerate(rows[::10])]
    others = [row for at, row in enumerate(rows) if at % 10]
    assert all(one.reason for one in find("contamination", rows[::10], questions=tests))
    assert [one.reason for one in find("contamination", others, questions=tests)] == [None] * len(others)

    assert [one.reason for one in find("gold_leak", rows, hint="rationale")] == [None] * len(rows)
    talk = planted(explanation="The reference solution subtracts here, as the student should have done.")
    assert all(one.reason for one in find("gold_leak", talk))
    long = [row for row in rows if len((row.question.rationale or "").split()) > 15]
    recited = [
        replace(row, correction=replace(row.correction, incorrect_step=1, solution=row.question.rationale))
        for row in long
    ]
    assert all(one.reason for one in find("gold_leak", recited))
    assert not any(one.reason for one in find("gold_leak", recited, hint="rationale"))

    again = [
        replace(row, correction=replace(said, id=f"{said.id}+", solution=f"Now, {said.solution}"))
        for row, said in ((row, row.correction) for row in rows[::10])
        if not (said.solution or "").startswith("...")
    ]
    found = find("near_duplicate", [*rows, *again])
    assert [one.reason for one in found[: len(rows)]] == [None] * len(rows)
    assert all(one.reason for one in found[len(rows) :])
    assert again
