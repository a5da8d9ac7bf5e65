from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lema.errors import RunError
from lema.rows import Question, Sample
from lema.text.joins import ChildRows, SortedLookup, accepted
from tests.stages import rows
from tests.stages.rows import by_id, correction

# Each is a prefix of the next one, which comes before or after its children.
NAMES = ["q", "q-1", "q-1-2", "q/", "q1", "q10", "q2"]


def questions() -> list[Question]:
    return by_id(Question(name, "train", f"{name}?", "1", None) for name in NAMES)


def samples(*left_out: str) -> list[Sample]:
    return by_id(
        rows.sample(name, "", sampler, index)
        for name in NAMES
        if name not in left_out
        for sampler in ("s", "s-2")
        for index in (0, 1, 10)
    )


def test_rows_are_found_by_id_in_the_order_of_their_children() -> None:
    asked = SortedLookup(questions())
    assert [asked[row.question_id].id for row in samples()] == [row.question_id for row in samples()]


def test_rows_are_found_in_their_own_order_and_what_is_not_there_is_none() -> None:
    asked = SortedLookup(questions())
    wanted = sorted([*NAMES, "a", "q-0", "q11", "z"])
    assert [row.id if (row := asked.get(name)) else None for name in wanted] == [
        name if name in NAMES else None for name in wanted
    ]
    with pytest.raises(RunError, match="no row 'zz'"):
        asked["zz"]


@pytest.mark.parametrize("left_out", [(), ("q",), ("q-1", "q2")])
def test_children_come_with_their_question(left_out: tuple[str, ...]) -> None:
    own = ChildRows(samples(*left_out))
    for question in questions():
        expected = [row for row in samples(*left_out) if row.question_id == question.id]
        assert own.of(question.id) == expected


def test_children_of_questions_that_are_skipped_are_dropped() -> None:
    own = ChildRows(samples())
    assert [row.question_id for name in ("q-1", "q10") for row in own.of(name)] == ["q-1"] * 6 + ["q10"] * 6


@pytest.mark.parametrize("join", [lambda stream: SortedLookup(stream).get("q0500"), lambda s: ChildRows(s).of("q0500")])
def test_a_join_reads_no_further_than_it_must(join: Callable[[Any], Any]) -> None:
    read = 0

    def stream() -> Iterator[Sample]:
        nonlocal read
        for number in range(1000):
            read += 1
            yield rows.sample(f"q{number:04d}", "")

    assert join(stream()) is not None or read
    assert read < 510


def test_accepted_corrections_have_a_solution_and_a_verdict_for_them() -> None:
    path = rows.sample("q", "A.")
    first, second = correction(path, "The answer is 1."), correction(rows.sample("r", "A."), None)
    assert list(accepted([first, second], [rows.accepted(first), rows.accepted(second)])) == [first]
    assert list(accepted([first], [rows.accepted(first, False)])) == list(accepted([first], [])) == []
