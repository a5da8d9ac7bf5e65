from typing import Any

import pytest

from lema.models import Completion, Model
from lema.recipe import CorrectionsSpec
from lema.rows import Correction, Location
from lema.stages.corrections import corrections
from tests.stages.rows import BASE, Script, graded, question, sample, task

GOOD = """\
Incorrect Step: Step 2.
Error Type: wrong operation
Explanation: It adds.
Correct Solution:
...
Step 2: 2 * 3 = 6
Step 3: The answer is 6."""
PROMPT = {"user": "{{ question }}\n{{ path }}"}
QUESTIONS = [question(6), question(7)]
WRONG = sample("q6", "Two and three.\n2 + 3 = 5\nThe answer is 5.")
SAMPLES = [
    WRONG,
    sample("q6", "The answer is 6.", index=1),
    sample("q7", "Eh?", "other"),
    sample("q7", "The answer is 1.", "other", 1),
]
GRADES = [
    graded(row, outcome)
    for row, outcome in zip(SAMPLES, ("incorrect", "correct", "unparsed", "incorrect"), strict=True)
]


def corrected(generate: Script, found: list[Location] | None = None, **spec: Any) -> list[Correction]:
    made = CorrectionsSpec.model_validate({"model": "base", "prompt": PROMPT, **spec})
    return list(
        corrections(
            QUESTIONS, BASE, SAMPLES, GRADES, found or [], spec=made, task=task(), models={"m": Model("m", "b", "m")},
            generate=generate,
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "ids"),
    [
        ({}, ["q6/s/0/c0", "q7/other/1/c0"]),
        ({"samplers": ("s",)}, ["q6/s/0/c0"]),
        ({"samplers": ("s",), "tries": 3}, ["q6/s/0/c0", "q6/s/0/c1", "q6/s/0/c2"]),
        ({"samplers": ()}, []),
    ],
)
def test_only_wrong_paths_are_corrected(spec: dict[str, Any], ids: list[str]) -> None:
    generate = Script(GOOD)
    assert [row.id for row in corrected(generate, **spec)] == ids
    assert [request.index for request in generate.asked] == [int(name[-1]) for name in ids]


def test_the_fields_of_a_reply() -> None:
    row = corrected(Script(GOOD), samplers=("s",))[0]
    assert (row.status, row.reason, row.incorrect_step, row.error_type) == ("parsed", None, 2, "wrong operation")
    assert (row.explanation, row.solution, row.answer) == ("It adds.", "...\n2 * 3 = 6\nThe answer is 6.", "6")
    assert (row.sample_id, row.question_id, row.reply) == (WRONG.id, "q6", GOOD)


def test_a_reply_may_name_no_step() -> None:
    row = corrected(Script("Mistakes: It adds.\nCorrected Answer:\n2 * 3 = 6\nThe answer is 6."), samplers=("s",))[0]
    assert (row.status, row.incorrect_step, row.explanation) == ("parsed", None, "It adds.")
    assert (row.solution, row.answer) == ("2 * 3 = 6\nThe answer is 6.", "6")


@pytest.mark.parametrize(
    ("completion", "status", "reason"),
    [
        (Completion("", "failed", "timed out"), "failed", "timed out"),
        (Completion("", "refused", "policy"), "failed", "policy"),
        (Completion(GOOD, "length"), "truncated", "the reply was cut at max_tokens"),
        (Completion("I see no mistake.", "stop"), "malformed", "`Incorrect Step:` is missing"),
        (
            Completion(GOOD.replace("Step: Step 2", "Step: Step 4").replace("Step 2:", "Step 4:"), "stop"),
            "malformed",
            "the incorrect step is 4, but the path has steps 1 to 3",
        ),
        (Completion(GOOD.replace("It adds.", ""), "stop"), "malformed", "`Explanation:` is empty"),
    ],
)
def test_a_reply_that_cannot_be_read_is_kept_with_the_reason(completion: Completion, status: str, reason: str) -> None:
    row = corrected(Script(completion), samplers=("s",))[0]
    assert (row.status, row.reason, row.reply) == (status, reason, completion.text)
    assert (row.incorrect_step, row.error_type, row.explanation, row.solution, row.answer) == (None,) * 5


@pytest.mark.parametrize(
    ("hint", "user", "expected"),
    [
        ("none", "{{ path }}", "Step 1: Two and three.\nStep 2: 2 + 3 = 5\nStep 3: The answer is 5."),
        ("none", "{{ steps[1] }} of {{ question }}", "2 + 3 = 5 of Question 6?"),
        ("answer", "{{ gold }}", "6"),
        ("rationale", "{{ gold }}: {{ rationale }}", "6: 6 + 0 = 6."),
    ],
)
def test_what_the_corrector_is_shown(hint: str, user: str, expected: str) -> None:
    generate = Script(GOOD)
    corrected(generate, samplers=("s",), hint=hint, prompt={"user": user})
    assert generate.asked[0].messages[-1].content == expected


def test_the_model_is_the_one_of_the_recipe() -> None:
    assert {row.model for row in corrected(Script(GOOD), model="m")} == {"m"}


def location(sample_id: str, step: int | None) -> Location:
    status, reason = ("parsed", None) if step else ("malformed", "names no step")
    return Location(sample_id, "q", "s", status, reason, "", step, "m", "", "", 0, 0)  # type: ignore[arg-type]


TOLD = {"user": "{{ path }} {{ incorrect_step }}"}


def test_a_corrector_is_told_the_step_and_not_asked_where_there_is_none() -> None:
    generate = Script(GOOD)
    rows = {row.id: row for row in corrected(generate, [location("q6/s/0", 2)], prompt=TOLD)}
    assert len(generate.asked) == 1
    assert generate.asked[0].messages[-1].content.endswith("The answer is 5. 2")
    assert rows["q6/s/0/c0"].status == "parsed"
    assert (rows["q7/other/1/c0"].status, rows["q7/other/1/c0"].reason) == ("failed", "no location was asked for")


def test_a_location_that_failed_is_the_reason() -> None:
    row = corrected(Script(GOOD), [location("q6/s/0", None)], prompt=TOLD, samplers=("s",))[0]
    assert (row.status, row.reason) == ("failed", "no location: names no step")


def test_a_prompt_that_does_not_ask_for_the_step_is_blind_to_locations() -> None:
    assert len(corrected(Script(GOOD), [location("q6/s/0", 1)])) == 2


STEPLESS = """\
Explanation: It adds.
Correct Solution:
Step 1: Two and three.
Step 2: 2 * 3 = 6
Step 3: The answer is 6."""


@pytest.mark.parametrize(
    ("reply", "found", "step"),
    [
        (STEPLESS, [], 2),
        (STEPLESS.replace("Step 1: Two and three.", "..."), [], 2),
        (STEPLESS, [location("q6/s/0", 1)], 1),
        (STEPLESS.replace("2 * 3 = 6", "2 + 3 = 5").replace("is 6", "is 5"), [], None),
    ],
)
def test_a_reply_without_step_has_the_one_that_is_told_or_else_the_first_that_it_changes(
    reply: str, found: list[Location], step: int | None
) -> None:
    prompt = TOLD if found else PROMPT
    row = corrected(Script(reply), found, without=("incorrect_step",), samplers=("s",), prompt=prompt)[0]
    assert (row.status, row.incorrect_step, row.explanation) == ("parsed", step, "It adds.")


def test_a_reply_without_explanation() -> None:
    row = corrected(Script(GOOD.replace("Explanation: It adds.\n", "")), without=("explanation",), samplers=("s",))[0]
    assert (row.status, row.incorrect_step, row.explanation, row.answer) == ("parsed", 2, None, "6")


def test_a_reply_that_is_an_object() -> None:
    reply = """```json
{"incorrect_step": 2, "explanation": "It adds.", "solution": ["...", "2 * 3 = 6", "The answer is 6."]}
```"""
    row = corrected(Script(reply), format="json", samplers=("s",))[0]
    assert (row.status, row.incorrect_step, row.explanation) == ("parsed", 2, "It adds.")
    assert (row.solution, row.answer) == ("...\n2 * 3 = 6\nThe answer is 6.", "6")
    assert corrected(Script(GOOD), format="json", samplers=("s",))[0].reason == "the reply is not a JSON object"
