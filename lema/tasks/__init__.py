"""Tasks: how to read a question, find the answer in a text and compare it. One file each, named after its task.

`lema/tasks/gsm8k.py` defines `gsm8k = Task(...)`; a recipe says `task: gsm8k`, or `task: my_pkg.my_mod:my_task`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from lema.rows import Split

Vote = TypeVar("Vote")


@dataclass(frozen=True, slots=True)
class Reading:
    """A raw record as a question: its text, the gold answer, and the gold rationale as steps, one a line, or None.

    `strata` are what scores of this question can be told apart by, such as its level: name and value.
    """

    text: str
    gold: str
    rationale: str | None
    strata: Mapping[str, str] = field(default_factory=dict)


class Undecided(Enum):
    """Why two answers could not be compared; the value is the outcome of the grade. Not true, and not a "no" either:
    a path with such an answer is no mistake."""

    UNPARSED = "unparsed"
    TIMEOUT = "timeout"

    def __bool__(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Task:
    """What the pipeline must know of a benchmark. Functions are pure and never execute what a model wrote.

    `read` raises ValueError, saying what is wrong, for a record that it cannot read.
    `extract` returns the final answer in a model's text, or None.
    `equal(answer, gold)` compares two answers; where that cannot be decided it says why.
    `generate(**options)` yields (split, record) for ever or until exhausted, for tasks that make their own questions.
    `counts(record)` is false for a record that the protocol of the benchmark leaves out.
    `write` makes a record that `read` reads as this question, for questions that evolve.
    """

    name: str
    read: Callable[[Mapping[str, Any]], Reading]
    extract: Callable[[str], str | None]
    equal: Callable[[str, str], bool | Undecided]
    generate: Callable[..., Iterator[tuple[Split, dict[str, Any]]]] | None = None
    counts: Callable[[Mapping[str, Any]], bool] | None = None
    write: Callable[[Reading], dict[str, Any]] | None = None


def group_equal(votes: Sequence[Vote | None], equal: Callable[[Vote, Vote], bool | Undecided]) -> list[list[int]]:
    """The places of votes that are equal, in the order of the first of each group; None is no vote.

    `equal(vote, first)` compares with the first of a group, as a task compares an answer with the gold one.
    """
    groups: list[tuple[Vote, list[int]]] = []
    for place, vote in enumerate(votes):
        if vote is not None:
            group = next((places for first, places in groups if vote == first or equal(vote, first)), None)
            if group is None:
                groups.append((vote, group := []))
            group.append(place)
    return [places for _, places in groups]


def majority_vote(votes: Sequence[Vote | None], equal: Callable[[Vote, Vote], bool | Undecided]) -> list[int]:
    """The places of the votes for the commonest answer (self-consistency, Wang et al., arXiv 2203.11171).

    Of equally common answers the one that was given first wins. Empty where nothing votes.
    """
    return max(group_equal(votes, equal), key=len, default=[])
