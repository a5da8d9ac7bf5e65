from typing import Any

import pytest

from lema.models.types import Completion, Model
from lema.recipe.schema import LocationsSpec
from lema.rows import Location
from lema.stages.locations import locations
from tests.stages.rows import BASE, Script, graded, question, sample

QUESTIONS = [question(6)]
PATH = "Two and three.\n2 + 3 = 5\nThe answer is 5."
SAMPLES = [
    sample("q6", PATH),
    sample("q6", "The answer is 6.", index=1),
    sample("q6", PATH, "slips", error_type="wrong operation", incorrect_step=2, origin="q6"),
]
GRADES = [
    graded(row, outcome) for row, outcome in zip(SAMPLES, ("incorrect", "correct", "incorrect"), strict=True)
]  # fmt: skip
PROMPT = {"user": "{{ question }}\n{{ path }}"}


def located(generate: Script, **spec: Any) -> list[Location]:
    made = LocationsSpec.model_validate({"model": "m", "prompt": PROMPT, **spec})
    models = {"m": Model("m", "b", "m")}
    return list(locations(QUESTIONS, BASE, SAMPLES, GRADES, spec=made, models=models, generate=generate))


def test_a_recipe_without_locations_has_none_and_asks_nobody() -> None:
    generate = Script("?")
    assert list(locations(QUESTIONS, BASE, SAMPLES, GRADES, spec=None, models={}, generate=generate)) == []
    assert generate.asked == []


@pytest.mark.parametrize(
    ("reply", "step"),
    [
        ("Incorrect Step: Step 2.", 2),
        ("Incorrect Step: Step 2.\nExplanation: Step 1 is right.\nCorrect Solution:\n...\nStep 2: 2 * 3 = 6", 2),
        ("**Incorrect Step:** 3", 3),
        ("I think that it is step 1, yes, Step 1.", 1),
        ("2", 2),
        ("2.", 2),
    ],
)
def test_the_step_that_a_reply_names(reply: str, step: int) -> None:
    row = located(Script(reply), samplers=("s",))[0]
    assert (row.id, row.status, row.reason, row.reply) == (SAMPLES[0].id, "parsed", None, reply)
    assert row.incorrect_step == step


@pytest.mark.parametrize(
    ("completion", "status", "reason"),
    [
        (Completion("No idea.", "stop"), "malformed", "names no step"),
        (Completion("Step 1 or Step 2", "stop"), "malformed", "names several steps"),
        (Completion("Incorrect Step: Step 4.", "stop"), "malformed", "names step 4, the path has steps 1 to 3"),
        (Completion("I would", "length"), "truncated", "the reply was cut at max_tokens"),
        (Completion("", "failed", "timed out"), "failed", "timed out"),
    ],
)
def test_a_reply_that_names_no_one_step_is_kept_with_the_reason(completion: Any, status: str, reason: str) -> None:
    row = located(Script(completion), samplers=("s",))[0]
    assert (row.status, row.reason, row.reply, row.incorrect_step) == (status, reason, completion.text, None)


def test_nobody_is_asked_where_a_mistake_was_put() -> None:
    generate = Script("Step 1")
    rows = {row.sampler: row for row in located(generate)}
    assert len(generate.asked) == 1
    assert (rows["slips"].incorrect_step, rows["slips"].model, rows["slips"].completion) == (2, "injected", "")
    assert (rows["s"].incorrect_step, rows["s"].model) == (1, "m")
    # Or the locator is asked about them, too.
    assert [row.incorrect_step for row in located(Script("Step 1"), known=False)] == [1, 1]


def test_hints_are_shown_as_to_the_corrector() -> None:
    generate = Script("Step 1")
    located(generate, hint="answer", prompt={"user": "{{ path }} {{ gold }}"}, samplers=("s",))
    assert generate.asked[0].messages[0].content.endswith("The answer is 5. 6")
