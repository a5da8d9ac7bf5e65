from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from lema.rows import Sample
from lema.stages.grades import grades
from lema.tasks import Undecided
from tests.stages.rows import question, sample, task


@pytest.mark.parametrize(
    ("text", "finish", "outcome", "answer"),
    [
        ("The answer is 5.", "stop", "correct", "5"),
        ("The answer is 6.", "stop", "incorrect", "6"),
        ("Five, I think", "stop", "unparsed", None),
        ("", "stop", "unparsed", None),
        ("The answer is 5. And another", "length", "truncated", "5. And another"),
        ("The answer is 5", "length", "correct", "5"),
        ("Let us see", "length", "truncated", None),
        ("The answer is 5.", "failed", "failed", None),
        ("The answer is 5.", "refused", "failed", None),
    ],
)
def test_what_a_path_is_worth(text: str, finish: Any, outcome: str, answer: str | None) -> None:
    row = sample("q5", text, finish=finish)
    (made,) = grades([question(5)], [row], task=task(), pmap=map)
    assert (made.outcome, made.answer) == (outcome, answer)
    assert (made.id, made.question_id, made.sampler) == (row.id, "q5", "s")


@pytest.mark.parametrize(("why", "outcome"), [(Undecided.UNPARSED, "unparsed"), (Undecided.TIMEOUT, "timeout")])
def test_an_answer_that_cannot_be_compared_is_no_mistake(why: Undecided, outcome: str) -> None:
    open_task = replace(task(), equal=lambda answer, gold: why)
    (made,) = grades([question(5)], [sample("q5", "The answer is 5.")], task=open_task, pmap=map)
    assert (made.outcome, made.answer) == (outcome, "5")
    (cut,) = grades([question(5)], [sample("q5", "The answer is 5.", finish="length")], task=open_task, pmap=map)
    assert cut.outcome == "truncated"


def test_one_row_a_sample_in_their_order_and_as_they_are_read() -> None:
    read: list[str] = []

    def paths() -> Iterator[Sample]:
        for number, index in product((1, 2), range(5)):
            read.append(f"q{number}/s/{index}")
            yield sample(f"q{number}", f"The answer is {number}.", index=index)

    made = grades([question(1), question(2)], paths(), task=task(), pmap=map)
    assert [next(made).id for _ in range(3)] == read == ["q1/s/0", "q1/s/1", "q1/s/2"]
    rest = list(made)
    assert [row.id for row in rest] == read[3:]
    assert {row.outcome for row in rest} == {"correct"}
