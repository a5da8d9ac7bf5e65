"""Every error that a user can meet.

LemaError                 base; the command line prints it and never shows a traceback
├── RecipeError           the user wrote something wrong: every problem at once, exit code 2
└── RunError              a stage could not finish: what happened and what to do, exit code 1
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

# Control characters, which could command a terminal, as their escapes.
ESCAPES = {code: repr(chr(code))[1:-1] for code in (*range(32), *range(127, 160))}

LONGEST_MESSAGE = 2000  # characters of a message; what a file says may be of any length


class LemaError(Exception):
    """Base of all errors that are shown to a user as a message."""

    exit_code = 1


@dataclass(frozen=True, order=True, slots=True)
class Problem:
    """One thing that is wrong in a file of the user's; lines and columns count from 1, 0 when unknown."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part)
        text = f"{place}: {self.message}".translate(ESCAPES)
        return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]}..."


class RecipeError(LemaError):
    """Problems in recipes, prompts or params.yaml, all of them, in file order."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class RunError(LemaError):
    """A stage could not finish; what it bought so far is kept."""


def allowed(name: object, names: Iterable[str]) -> str:
    """The tail of a message about an unknown name: the nearest one first, then everything that is allowed.

    >>> allowed("gsm8", ["math", "gsm8k"])
    "did you mean 'gsm8k'? allowed: gsm8k, math"
    """
    known = sorted(names)
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}allowed: {', '.join(known) if known else 'none'}"
