"""The filter that asks a model."""

from dataclasses import replace
from typing import Any

import pytest

from lema.filters import Finding
from lema.models.types import Completion
from lema.recipe.basic_types import Prompt
from tests.filters.candidates import GOOD, MALFORMED, WORLD, judge
from tests.stages.rows import Script

NO, NEITHER = Finding(0, "the judge says no"), Finding(None, "the judge says neither yes nor no")


@pytest.mark.parametrize(
    ("reply", "finding"),
    [
        *(("yes", Finding(1)), ("Yes, because every step is right.", Finding(1)), ("**No.**", NO)),
        *(("Step 2 is wrong, and no step before.\n\nVerdict: yes\n", Finding(1)), ("Final answer: no", NO)),
        ("No.\nThe explanation is false.", NO),
        *((text, NEITHER) for text in ("Yes.\nOr rather:\nno", "There is no way to tell.", "Nobody knows", "")),
    ],
)
def test_replies(reply: str, finding: Finding) -> None:
    assert judge("judge", GOOD, generate=Script(reply)) == [finding]


def test_a_request_that_failed_is_a_reason() -> None:
    failed = Script(Completion("", "failed", "HTTP 500"))
    assert judge("judge", GOOD, generate=failed) == [Finding(None, "the judge did not reply: HTTP 500")]


def test_the_model_is_told_all_and_asked_only_of_what_can_be_read() -> None:
    template = (
        "{{ question }}|{{ gold }}|{{ rationale }}|{{ path }}|{{ steps | length }}|{{ incorrect_step }}"
        "|{{ explanation }}|{{ solution | join(' ') }}|{{ answer }}"
    )
    generate = Script("yes")
    options: dict[str, Any] = {"prompt": Prompt(user=template), "temperature": 0.5, "max_tokens": 3}
    found = judge("judge", MALFORMED, replace(GOOD, id="c1"), generate=generate, **options)
    assert found == [Finding(None), Finding(1)]
    (request,) = generate.asked
    assert request.model is WORLD["models"]["strong"]
    assert (request.sampling.temperature, request.sampling.max_tokens) == (0.5, 3)
    assert request.messages[0].content == (
        "Ann has 2 and 3, then 4 more. How many?|9|2 + 3 = 5\n5 + 4 = 9"
        "|Step 1: 2 + 3 = 5\nStep 2: 5 + 4 = 8\nStep 3: The answer is 8.|3|2|5 + 4 is 9, not 8."
        "|... Step 2: 5 + 4 = 9 Step 3: The answer is 9.|9"
    )
