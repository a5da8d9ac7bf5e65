"""Every filter over one small world of candidates: question "2 and 3, then 4 more", wrong path of three steps."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lema import component
from lema.filters import Candidate
from lema.rows import Correction, Question, Sample

QUESTION = Question("q1", "train", "Ann has 2 and 3, then 4 more. How many?", "9", "2 + 3 = 5\n5 + 4 = 9")
PATH = "Step 1: 2 + 3 = 5\nStep 2: 5 + 4 = 8\nStep 3: The answer is 8."
SAMPLE = Sample("q1/s/0", "q1", "s", 0, PATH, "stop", None, "m", "p", "", 0, 0)
GOOD = Correction(
    id="q1/s/0/c0", sample_id="q1/s/0", question_id="q1", index=0, status="parsed", reason=None,
    reply="Incorrect Step: Step 2. and so on", incorrect_step=2, error_type="arithmetic slip",
    explanation="5 + 4 is 9, not 8.", solution="...\n5 + 4 = 9\nThe answer is 9.", answer="9",
    model="m", prompt="p", completion="k", prompt_tokens=10, completion_tokens=20,
)  # fmt: skip
NOTHING = dict.fromkeys(("incorrect_step", "error_type", "explanation", "solution", "answer"))
MALFORMED = replace(GOOD, status="malformed", reason="`Explanation:` is missing", **NOTHING)
FAILED = replace(GOOD, status="failed", reason="HTTP 500", reply="", completion_tokens=0, **NOTHING)
OPTIONS = {"max_tokens": {"limit": 20}}


def candidate(correction: Correction, path: str = PATH) -> Candidate:
    matches = None if correction.answer is None else correction.answer == QUESTION.gold
    return Candidate(QUESTION, replace(SAMPLE, text=path), correction, matches)


def judge(name: str, *corrections: Correction, path: str = PATH, **options: Any) -> list[str | None]:
    part: Callable[..., Any] = component.load("filters", name)
    return list(part([candidate(one, path) for one in corrections], **(options or OPTIONS.get(name, {}))))


@pytest.mark.parametrize("name", component.names("filters"))
def test_every_filter_keeps_a_good_correction_and_takes_no_candidates(name: str) -> None:
    assert judge(name, GOOD) == [None]
    assert judge(name) == []


@pytest.mark.parametrize("name", component.names("filters"))
def test_every_filter_copes_with_replies_that_could_not_be_read(name: str) -> None:
    reasons = judge(name, MALFORMED, FAILED)
    assert len(reasons) == 2
    assert all(reason is None or reason for reason in reasons)


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("answer_matches", {"answer": "8"}, "answer is 8, gold is 9"),
        ("answer_matches", {"answer": None}, "no answer"),
        ("has_fields", {"status": "malformed", "reason": "`Explanation:` twice"}, "malformed: `Explanation:` twice"),
        ("has_fields", {"status": "truncated"}, "truncated"),
        ("has_fields", {"explanation": " "}, "no explanation"),
        ("has_fields", {"incorrect_step": None, "solution": ""}, "no incorrect step, no solution"),
        ("max_tokens", {"completion_tokens": 21}, "21 tokens, limit is 20"),
        ("max_tokens", {"completion_tokens": 0, "reply": "so " * 21}, "21 words, limit is 20"),
        ("max_tokens", {"completion_tokens": 0}, None),
        ("changed", {"solution": "2 + 3 = 5\n5 + 4 = 8\nThe answer is 8."}, "the solution is the wrong path again"),
        ("changed", {"solution": "...\n5 +  4 = 8\nThe answer is 8."}, "the solution is the wrong path again"),
        ("changed", {"solution": "...\n5 + 4 = 8\nThe answer is 9."}, None),
        ("consistent_prefix", {"solution": "2 + 3  = 5\n5 + 4 = 9\nThe answer is 9."}, None),
        ("consistent_prefix", {"solution": "3 + 2 = 5\n5 + 4 = 9"}, "step 1 is not kept, incorrect step is 2"),
        ("consistent_prefix", {"incorrect_step": 3, "solution": "2 + 3 = 5"},
         "step 2 is not kept, incorrect step is 3"),
        ("consistent_prefix", {"incorrect_step": 4}, "incorrect step is 4, the path has 3"),
        ("consistent_prefix", {"incorrect_step": 0}, "incorrect step is 0, the path has 3"),
        ("consistent_prefix", {"incorrect_step": None}, "incorrect step is None, the path has 3"),
        ("consistent_prefix", {"incorrect_step": 1}, "'...' stands for no step, incorrect step is 1"),
        ("consistent_prefix", {"incorrect_step": 1, "solution": "9 in all"}, None),
        ("arithmetic", {"solution": "...\n5 + 4 = 10\nThe answer is 10."}, "5 + 4 = 10 does not hold"),
        ("arithmetic", {"solution": "2 + 3 = 6\n6 + 4 = 9"}, "2 + 3 = 6 does not hold, 1 more"),
        ("arithmetic", {"explanation": "5 + 4 = 8 is wrong"}, None),
    ],
)  # fmt: skip
def test_reasons(name: str, change: dict[str, Any], reason: str | None) -> None:
    assert judge(name, replace(GOOD, **change)) == [reason]


def test_a_failed_or_malformed_row_is_dropped_with_its_own_reason() -> None:
    assert judge("has_fields", MALFORMED, FAILED) == ["malformed: `Explanation:` is missing", "failed: HTTP 500"]
    assert judge("answer_matches", MALFORMED, FAILED) == ["no answer", "no answer"]


def test_a_field_that_the_form_does_without_may_be_empty() -> None:
    row = replace(GOOD, explanation=None, solution="")
    assert list(component.load("filters", "has_fields")([candidate(row)], without=["explanation"])) == ["no solution"]


def test_duplicates_are_found_whatever_their_white_space_or_ellipsis() -> None:
    rows = [
        GOOD,
        replace(GOOD, id="c1", solution="...\n5 + 4  = 9\nThe answer is 9.", explanation="Other words."),
        replace(GOOD, id="c2", solution="2 + 3 = 5\n5 + 4 = 9\nThe answer is 9."),
        replace(GOOD, id="c3", solution="...\n4 + 5 = 9\nThe answer is 9."),
        replace(MALFORMED, id="c4"),
        replace(MALFORMED, id="c5"),
    ]
    assert judge("duplicate", *rows) == [None, "same as q1/s/0/c0", "same as q1/s/0/c0", None, None, None]


def test_the_same_solution_of_another_path_is_no_duplicate() -> None:
    part = component.load("filters", "duplicate")
    twice = [candidate(GOOD), candidate(replace(GOOD, id="c1"), PATH.replace("8", "7"))]
    assert list(part(twice)) == [None, None]
