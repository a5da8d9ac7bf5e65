"""What all filters have in common, and the small ones, each over planted cases and near misses."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lema.errors import RunError
from lema.filters import GIVEN, Finding
from lema.pipeline.stage_runner import PROVIDERS
from lema.recipe import part_loader
from tests.filters.candidates import FAILED, GOOD, MALFORMED, PATH, QUESTION, WORLD, candidate, find, judge

NAMES = part_loader.part_names("filters")


@pytest.mark.parametrize("name", NAMES)
def test_every_filter_keeps_a_good_correction_says_what_it_measures_and_takes_no_candidates(name: str) -> None:
    (finding,) = judge(name, GOOD)
    assert finding.reason is None
    assert finding.value is not None
    assert judge(name) == []
    assert part_loader.part_summary("filters", name).startswith("Measures ")


@pytest.mark.parametrize("name", NAMES)
def test_every_filter_copes_with_replies_that_could_not_be_read(name: str) -> None:
    elsewhere = {"sample_id": "q1/s/1"}
    findings = judge(name, replace(MALFORMED, **elsewhere), GOOD, replace(FAILED, **elsewhere))
    assert len(findings) == 3
    assert all(finding.reason is None or finding.reason for finding in findings)
    assert findings[1] == judge(name, GOOD)[0]


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=60), st.text(max_size=60), st.integers(0, 9), st.text(max_size=8))
def test_no_text_is_too_strange_for_a_filter(explanation: str, solution: str, step: int, answer: str) -> None:
    row = replace(GOOD, explanation=explanation, solution=solution, incorrect_step=step, answer=answer)
    for name in NAMES:
        (finding,) = judge(name, row)
        assert isinstance(finding, Finding)
        assert finding.reason is None or finding.reason.strip()


def test_what_filters_may_ask_for_is_what_the_pipeline_can_give() -> None:
    assert set(WORLD) == set(GIVEN) <= set(PROVIDERS)


@pytest.mark.parametrize(
    ("name", "change", "value", "reason"),
    [
        ("answer_matches", {}, 1, None),
        ("answer_matches", {"answer": "8"}, 0, "answer is 8, gold is 9"),
        ("answer_matches", {"answer": None}, None, "no answer"),
        ("has_fields", {"status": "malformed", "reason": "`Explanation:` twice"}, 3,
         "malformed: `Explanation:` twice"),
        ("has_fields", {"status": "truncated"}, 3, "truncated"),
        ("has_fields", {"explanation": " "}, 2, "no explanation"),
        ("has_fields", {"incorrect_step": None, "solution": ""}, 1, "no incorrect step, no solution"),
        ("max_tokens", {"completion_tokens": 21}, 21, "21 tokens, limit is 20"),
        ("max_tokens", {"completion_tokens": 0, "reply": "so " * 21}, 21, "21 words, limit is 20"),
        ("max_tokens", {"completion_tokens": 0}, 7, None),
        ("changed", {}, 2, None),
        ("changed", {"solution": "2 + 3 = 5\n5 + 4 = 8\nThe answer is 8."}, 0, "the solution is the wrong path again"),
        ("changed", {"solution": "...\n5 +  4 = 8\nThe answer is 8."}, 0, "the solution is the wrong path again"),
        ("changed", {"solution": "...\n5 + 4 = 8\nThe answer is 9."}, 1, None),
        ("consistent_prefix", {}, 1, None),
        ("consistent_prefix", {"solution": "2 + 3  = 5\n5 + 4 = 9\nThe answer is 9."}, 1, None),
        ("consistent_prefix", {"solution": "3 + 2 = 5\n5 + 4 = 9"}, 0, "step 1 is not kept, incorrect step is 2"),
        ("consistent_prefix", {"incorrect_step": 3, "solution": "2 + 3 = 5"}, 0.5,
         "step 2 is not kept, incorrect step is 3"),
        ("consistent_prefix", {"incorrect_step": 4}, None, "incorrect step is 4, the path has 3"),
        ("consistent_prefix", {"incorrect_step": 0}, None, "incorrect step is 0, the path has 3"),
        ("consistent_prefix", {"incorrect_step": None}, None, "incorrect step is None, the path has 3"),
        ("consistent_prefix", {"incorrect_step": 1}, 0, "'...' stands for no step, incorrect step is 1"),
        ("consistent_prefix", {"incorrect_step": 1, "solution": "9 in all"}, 1, None),
        ("arithmetic", {"solution": "...\n5 + 4 = 10\nThe answer is 10."}, 1, "5 + 4 = 10 does not hold"),
        ("arithmetic", {"solution": "2 + 3 = 6\n6 + 4 = 9"}, 2, "2 + 3 = 6 does not hold, 1 more"),
        ("arithmetic", {"explanation": "5 + 4 = 8 is wrong"}, 0, None),
        ("arithmetic", {"solution": "Nine."}, None, None),
    ],
)  # fmt: skip
def test_findings(name: str, change: dict[str, Any], value: float | None, reason: str | None) -> None:
    assert judge(name, replace(GOOD, **change)) == [Finding(value, reason)]


@pytest.mark.parametrize(
    "line",
    [
        *("3 apples + 4 apples = 7 apples", "3 boys + 4 girls = 7 children", "2/3 * 9 = 6 apples", "2 * 3 + 1 = 7"),
        *("20% of 50 = 10", "20% of $50 = $10 and 1/4 of 12 = 3", "2 + 3 = 1 + 4 = 5", "$5 + 50 cents = $5.50"),
        *("1 hour - 20 minutes = 40 minutes", "1 hour + 30 minutes = 1.5 hours", "3 kg + 500 g = 3.5 kg"),
        *("3 hours * 60 minutes = 180 minutes", "5 hours x $3 = $15", "40 miles / 2 hours = 20 miles per hour"),
        *("5 miles/hour + 3 miles/hour = 8 miles/hour", "1 foot + 1 inch = 13 inches", "$1,000 + 500 cents = $1,005."),
        *("5 hours + 3 hours = 60 minutes * 8", "5 days + 3 = 8 weeks"),  # the 3 may be weeks
    ],
)
def test_arithmetic_that_holds(line: str) -> None:
    assert judge("arithmetic", replace(GOOD, solution=line)) == [Finding(0)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("12 eggs - 5 eggs = 6 eggs", "12 eggs - 5 eggs = 6 does not hold"),
        ("20% of $50 = $12", "20% of $50 = $12 does not hold"),
        ("2 + 3 = 5 + 4 = 9", "2 + 3 = 5 + 4 does not hold"),
        ("5 hours + 3 hours = 8 minutes", "5 hours + 3 hours = 8 minutes does not hold in its units"),
        ("1 hour + 20 minutes = 21 minutes", "1 hour + 20 minutes = 21 minutes does not hold in its units"),
        ("$5 + 3 hours = 8 hours", "$5 + 3 hours = 8 hours mixes money and time"),
        ("5 feet - 3 feet = 2 pounds", "5 feet - 3 feet = 2 pounds mixes length and weight"),
    ],
)
def test_arithmetic_that_does_not_hold(line: str, reason: str) -> None:
    assert judge("arithmetic", replace(GOOD, solution=line)) == [Finding(1, reason)]


def test_a_failed_or_malformed_row_is_dropped_with_its_own_reason() -> None:
    reasons = [finding.reason for finding in judge("has_fields", MALFORMED, FAILED)]
    assert reasons == ["malformed: `Explanation:` is missing", "failed: HTTP 500"]


def test_an_answer_that_cannot_be_compared_is_no_other_answer() -> None:
    (finding,) = find("answer_matches", [replace(candidate(GOOD), answer_is_gold=None)])
    assert finding == Finding(None, "the answer cannot be compared with the gold one")


def test_a_field_that_the_form_does_without_may_be_empty() -> None:
    row = replace(GOOD, explanation=None, solution="")
    assert judge("has_fields", row, without=["explanation"]) == [Finding(1, "no solution")]
    stepless = replace(GOOD, incorrect_step=None)
    assert judge("has_fields", stepless) == [Finding(2, "no incorrect step")]
    assert judge("has_fields", stepless, without=["incorrect_step"]) == [Finding(2)]


def test_a_threshold_that_is_no_share_is_a_message() -> None:
    with pytest.raises(RunError, match="near_duplicate: threshold is 0, and needs to be above 0"):
        judge("near_duplicate", GOOD, threshold=0.0)


def test_duplicates_are_found_whatever_their_white_space_or_ellipsis() -> None:
    rows = [
        GOOD,
        replace(GOOD, id="c1", solution="...\n5 + 4  = 9\nThe answer is 9.", explanation="Other words."),
        replace(GOOD, id="c2", solution="2 + 3 = 5\n5 + 4 = 9\nThe answer is 9."),
        replace(GOOD, id="c3", solution="...\n4 + 5 = 9\nThe answer is 9."),
        replace(MALFORMED, id="c4"),
        replace(MALFORMED, id="c5"),
    ]
    same = "same as q1/s/0/c0"
    found = [Finding(0), Finding(1, same), Finding(2, same), Finding(0), Finding(None), Finding(None)]
    assert judge("duplicate", *rows) == found
    of_another_path = candidate(replace(GOOD, id="c1"), PATH.replace("8", "7"))
    assert find("duplicate", [candidate(GOOD), of_another_path]) == [Finding(0), Finding(0)]


@pytest.mark.parametrize(
    ("options", "finding"),
    [
        *(({}, Finding(14)), ({"least": 14, "most": 14}, Finding(14)), ({"of": "ratio", "most": 0.7}, Finding(0.7))),
        ({"least": 15}, Finding(14, "14 words, at least 15 wanted")),
        ({"most": 13}, Finding(14, "14 words, at most 13 wanted")),
        ({"of": "ratio", "least": 1}, Finding(0.7, "0.7 times as long as the path, at least 1 wanted")),
    ],
)
def test_length(options: dict[str, Any], finding: Finding) -> None:
    assert judge("length", GOOD, **options) == [finding]


@pytest.mark.parametrize(
    ("question", "explanation", "dropped"),
    [
        ("Ann has 2.", "Она ошиблась: 5 + 4 = 9.", True),
        ("Ann has 2.", "五加四等于九。", True),
        ("У Ани два яблока.", "Она ошиблась.", False),
        ("桃子有二个，再来四个。", "五加四等于九、かもしれない。", False),
        ("Ann has 2.", "The area is π r^2, and 𝑥 is naïve.", False),
        ("2 + 3 = ?", "Она ошиблась.", False),  # nothing to compare with
    ],
)
def test_language(question: str, explanation: str, dropped: bool) -> None:
    row = replace(GOOD, explanation=explanation, solution="5 + 4 = 9")
    (finding,) = find("language", [candidate(row, question=replace(QUESTION, text=question))])
    assert (finding.reason is not None) == dropped


def test_the_share_of_foreign_letters_is_measured() -> None:
    row = replace(GOOD, explanation="abc де", solution="5")
    assert judge("language", row, limit=0.4) == [Finding(0.4)]
    reason = "40% of the letters are of another script, Cyrillic; limit is 39%"
    assert judge("language", row, limit=0.39) == [Finding(0.4, reason)]


def answers(*given: str | None) -> list[Any]:
    return [replace(GOOD, id=f"c{at}", answer=answer) for at, answer in enumerate(given)]


def test_only_the_answer_of_the_majority_is_kept() -> None:
    said = "{} of {} corrections answer {}".format
    two_of_three = [Finding(0.6667), Finding(0.3333, said(1, 3, 8)), Finding(0.6667)]
    assert judge("majority", *answers("9", "8", "9")) == two_of_three
    assert judge("majority", *answers("9", "8")) == [Finding(0.5, said(1, 2, 9)), Finding(0.5, said(1, 2, 8))]
    assert judge("majority", *answers("9", None)) == [Finding(0.5, said(1, 2, 9)), Finding(None, "no answer")]
    assert judge("majority", *answers("9", "8"), threshold=0.4) == [Finding(0.5), Finding(0.5)]


def test_the_majority_is_that_of_a_path_or_of_a_question() -> None:
    rows = [*answers("9", "9"), replace(GOOD, id="c2", sample_id="q1/s/1", answer="8")]
    assert judge("majority", *rows)[2] == Finding(1)
    assert judge("majority", *rows, of="question")[2].reason == "1 of 3 corrections answer 8"


@settings(deadline=None)
@given(st.lists(st.sampled_from(["1", "2", "3"]), min_size=1, max_size=9))
def test_at_most_one_answer_has_the_majority(given: list[str]) -> None:
    findings = judge("majority", *answers(*given))
    kept = {answer for answer, finding in zip(given, findings, strict=True) if finding.reason is None}
    assert len(kept) <= 1
    assert all(given.count(answer) > len(given) / 2 for answer in kept)
