"""Tasks: how to read a question, find the answer in a text and compare it. One file each, named after its task.

`lema/tasks/gsm8k.py` defines `gsm8k = Task(...)`; a recipe says `task: gsm8k`, or `task: my_pkg.my_mod:my_task`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lema.rows import Split


@dataclass(frozen=True, slots=True)
class Reading:
    """A raw record as a question: its text, the gold answer, and the gold rationale as steps, one a line, or None."""

    text: str
    gold: str
    rationale: str | None


@dataclass(frozen=True, slots=True)
class Task:
    """What the pipeline must know of a benchmark. Functions are pure and never execute what a model wrote.

    `read` raises ValueError, saying what is wrong, for a record that it cannot read.
    `extract` returns the final answer in a model's text, or None. `equal(answer, gold)` compares two answers.
    `generate(**options)` yields (split, record) for ever or until exhausted, for tasks that make their own questions.
    `write` makes a record that `read` reads as this question, for questions that evolve.
    """

    name: str
    read: Callable[[Mapping[str, Any]], Reading]
    extract: Callable[[str], str | None]
    equal: Callable[[str, str], bool]
    generate: Callable[..., Iterator[tuple[Split, dict[str, Any]]]] | None = None
    write: Callable[[Reading], dict[str, Any]] | None = None
