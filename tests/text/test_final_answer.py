"""The sentence that states the answer, wherever it is looked for."""

from typing import Any

import pytest

from lema.tasks import group_equal, majority_vote
from lema.text.final_answer import (
    drop_answer_step,
    last_statement,
    only_states_answer,
    states_answer,
    strip_answers,
    unboxed,
)


@pytest.mark.parametrize(
    ("step", "rest", "only", "dropped"),
    [
        ("The answer is 5.", [], True, True),
        ("So, the final answer is **5** apples.", [], True, True),
        ("Answer is 5", [], True, True),
        ("2 + 3 = 5. Thus the answer is 5.", ["2 + 3 = 5."], False, False),
        ("The answer is 5 because 2 + 3 is 5.", [], False, True),
        ("So the answer is correct.", ["So the answer is correct."], True, False),
        ("2 + 3 = 5", ["2 + 3 = 5"], False, False),
        ("...", ["..."], False, False),
    ],
)
def test_a_step_that_states_the_answer(step: str, rest: list[str], only: bool, dropped: bool) -> None:
    assert strip_answers([step]) == rest
    assert states_answer(step) is (rest != [step])
    assert only_states_answer(step) is only
    assert drop_answer_step(["a", step]) == (("a",) if dropped else ("a", step))


@pytest.mark.parametrize(
    ("text", "kind", "rest"),
    [
        ("#### 4\n\\boxed{5} The answer is 6", "sentence", "6"),
        ("#### 4\n\\boxed{5}\nAnswer: 7", "hashes", "4"),
        ("\\boxed{5}\nAnswer: 7", "box", "5"),
        ("\\boxed{5", None, ""),
        ("🎯 **Answer:** 7", "label", "7"),
    ],
)
def test_the_strongest_statement_counts(text: str, kind: str | None, rest: str) -> None:
    found = last_statement(text, hashes=True)
    assert (found and found.kind, found.text if found else "") == (kind, rest)


def test_boxes_are_opened() -> None:
    assert unboxed("$\\boxed{\\frac{1}{2}}$ or \\boxed 7") == "$\\frac{1}{2}$ or 7"


@pytest.mark.parametrize(
    ("votes", "groups", "winner"),
    [
        ([], [], []),
        ([None, None], [], []),
        (["a", "b", "B", "A"], [[0, 3], [1, 2]], [0, 3]),
        (["a", None, "b", "B"], [[0], [2, 3]], [2, 3]),
    ],
)
def test_of_equally_common_votes_the_first_wins(votes: list[str | None], groups: Any, winner: Any) -> None:
    def equal(one: str, other: str) -> bool:
        return one.lower() == other.lower()

    assert group_equal(votes, equal) == groups
    assert majority_vote(votes, equal) == winner
