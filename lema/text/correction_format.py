"""The text format of a correction: what correctors write and the `corrections` stage reads (LEMA, section 2.1).

    Incorrect Step: Step 2.
    Error Type: wrong operation
    Explanation: One or more sentences.
    Correct Solution:
    ...
    Step 2: ...
    Step 3: The answer is 12.

"Error Type" is optional. A first line "..." stands for the untouched steps before the incorrect one. Or the same as
an object, for endpoints that hold a model to a JSON Schema:

    {"incorrect_step": 2, "explanation": "...", "solution": ["...", "4 * 3 = 12", "The answer is 12."]}

Paths that are no chain of steps, as in CommonsenseQA, are corrected without naming one (LEMA, C.3):

    Mistakes: One or more sentences.
    Corrected Answer:
    ...
    The answer is bank.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lema.text.steps import number_steps, strip_number

ELLIPSIS = "..."

_FIELDS = ("Incorrect Step", "Error Type", "Explanation", "Correct Solution")
_WHOLE_FIELDS = ("Mistakes", "Corrected Answer")
# Models like to dress labels up: "**Explanation:** ...", "### Explanation: ...".
_FIELD_LABEL = re.compile(
    rf"^[ \t#*]*({'|'.join((*_FIELDS, *_WHOLE_FIELDS))})\**[ \t]*:[ \t*]*", re.IGNORECASE | re.MULTILINE
)
_STEP_NAME = re.compile(r"(?:step\s*)?(\d{1,4})\s*[.:]?", re.IGNORECASE)
_STEP_LINE = re.compile(r"[*]*step\s+(\d{1,4})\s*[:.)][* ]*(.*)", re.IGNORECASE)
_ELLIPSES = (ELLIPSIS, "…")
_DRESSING = frozenset(("{", "}", "```"))


@dataclass(frozen=True, slots=True)
class Parsed:
    """A correction; `incorrect_step` counts from 1, `solution` holds steps without their numbers, the first of
    them "..." where the untouched steps are left out. What the form of the reply does without is None; in the one
    without steps, `solution` holds the corrected answer line by line."""

    incorrect_step: int | None
    error_type: str | None
    explanation: str | None
    solution: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Malformed:
    """Why a reply is not a correction, in one line."""

    reason: str


def write_correction(correction: Parsed) -> str:
    """The reply that says this; `parse_correction(write_correction(c)) == c`."""
    at = correction.incorrect_step
    if at is None and correction.explanation:
        return "\n".join([f"Mistakes: {correction.explanation}", "Corrected Answer:", *correction.solution])
    fields = {
        "Incorrect Step": None if at is None else f"Step {at}.",
        "Error Type": correction.error_type,
        "Explanation": correction.explanation,
    }
    lines = [f"{name}: {value}" for name, value in fields.items() if value]
    return "\n".join([*lines, "Correct Solution:", *number_solution(correction.solution, at or 1)])


def parse_correction(text: str, *, steps: int | None = None, without: Collection[str] = ()) -> Parsed | Malformed:
    """Read a reply. Strict about fields, their order and the numbers of the steps; tolerant of white space, of
    Markdown around labels, of braces around the solution and of talk before the first label.

    `steps`, when given, is how many steps the wrong path has; the incorrect one must be among them. `without` may
    name `incorrect_step` and `explanation`: fields that the reply need not have.
    """
    try:
        return _read_labels(text, steps, without)
    except _NoCorrection as fault:
        return Malformed(str(fault))


def parse_correction_json(text: str, *, steps: int | None = None, without: Collection[str] = ()) -> Parsed | Malformed:
    """As `parse_correction`, for a reply that is an object with `incorrect_step`, `error_type`, `explanation` and
    `solution`, the solution being a list of steps. What stands around the object, such as a Markdown fence, does not
    count."""
    try:
        said = json.loads(text[text.index("{") : text.rindex("}") + 1])
        return _read_object(said, steps, without)
    except (ValueError, RecursionError):
        return Malformed("the reply is not a JSON object")
    except _NoCorrection as fault:
        return Malformed(str(fault))


class _NoCorrection(Exception):
    """Why a reply is not a correction, in one line."""


def _require(fulfilled: object, reason: str) -> None:
    if not fulfilled:
        raise _NoCorrection(reason)


def _read_labels(text: str, steps: int | None, without: Collection[str]) -> Parsed:
    labels = list(_FIELD_LABEL.finditer(text))
    known = {name.lower(): name for name in (*_FIELDS, *_WHOLE_FIELDS)}
    names = [known[label[1].lower()] for label in labels]
    whole = "Incorrect Step" not in names and any(name in names for name in _WHOLE_FIELDS)
    order, optional = _WHOLE_FIELDS if whole else _FIELDS, ["Error Type"]
    optional += [name.replace("_", " ").title() for name in without]
    for name in order:
        _require(name in names or name in optional, f"`{name}:` is missing")
        _require(names.count(name) < 2, f"`{name}:` is there more than once")
    expected = [name for name in order if name in names]
    _require(names == expected, f"the fields are not in the order {', '.join(expected)}")
    ends = [label.start() for label in labels[1:]] + [len(text)]
    fields = {name: text[label.end() : end].strip() for name, label, end in zip(names, labels, ends, strict=True)}
    for name, value in fields.items():
        _require(value, f"`{name}:` is empty")
    why, solution = (fields.get(name, "") for name in (order[-2], order[-1]))
    lines = [line.strip() for line in solution.splitlines() if line.strip() and line.strip() not in _DRESSING]
    explanation = " ".join(why.split()) or None
    if whole:
        _require(lines, "`Corrected Answer:` is empty")
        _require(lines[0] not in _ELLIPSES, "`Corrected Answer:` is not written out")
        return Parsed(None, None, explanation, tuple(lines))
    at = None
    if "Incorrect Step" in fields:
        step = _STEP_NAME.fullmatch(fields["Incorrect Step"].strip("* "))
        _require(step, "`Incorrect Step:` does not name one step, as in 'Step 2.'")
        at = int(step[1]) if step else None
    elif len(lines) > 1 and lines[0] in _ELLIPSES and (first := _STEP_LINE.fullmatch(lines[1])):
        at = int(first[1])  # the first step after "..." is the one that differs
    _require_place(at, steps)
    return Parsed(at, fields.get("Error Type", "").strip("*. ") or None, explanation, _read_steps(lines, at))


def _read_object(said: Mapping[str, Any], steps: int | None, without: Collection[str]) -> Parsed:
    for name in ("incorrect_step", "explanation", "solution"):
        _require(name in said or name in without, f"`{name}` is missing")
    at, kind, why, lines = (said.get(name) for name in ("incorrect_step", "error_type", "explanation", "solution"))
    _require(isinstance(at, int | None) and not isinstance(at, bool), "`incorrect_step` is not a whole number")
    texts = isinstance(why, str | None) and isinstance(kind, str | None)
    _require(texts, "`explanation` and `error_type` are texts")
    _require(why or "explanation" in without, "`explanation` is empty")
    _require(at is not None or "incorrect_step" in without, "`incorrect_step` is empty")
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise _NoCorrection("`solution` is not a list of steps")
    _require_place(at, steps)
    solution = tuple(bare for line in lines for bare in [" ".join(strip_number(line).split())] if bare)
    if solution[:1] and solution[0] in _ELLIPSES:
        kept = at not in (None, 1) and len(solution) > 1
        _require(kept, "the solution begins with '...', which stands for no steps or is all there is")
        solution = (ELLIPSIS, *solution[1:])
    _require(solution, "the solution has no steps")
    return Parsed(at, kind or None, " ".join((why or "").split()) or None, solution)


def number_solution(solution: Sequence[str], incorrect_step: int | None) -> tuple[str, ...]:
    """The lines of a corrected solution with their numbers; after a first "..." they count from the incorrect step.
    Without an incorrect step they have no numbers.

    >>> number_solution(["...", "4 * 3 = 12", "The answer is 12."], 2)
    ('...', 'Step 2: 4 * 3 = 12', 'Step 3: The answer is 12.')
    """
    if incorrect_step is None:
        return tuple(solution)
    if solution and solution[0] == ELLIPSIS:
        return (ELLIPSIS, *number_steps(solution[1:], incorrect_step).splitlines())
    return tuple(number_steps(solution).splitlines())


def expand_ellipsis(solution: Sequence[str], incorrect_step: int | None, path: Sequence[str]) -> tuple[str, ...]:
    """The corrected solution with a first "..." replaced by the steps of the path that it stands for."""
    if incorrect_step is not None and solution and solution[0] == ELLIPSIS:
        return (*path[: incorrect_step - 1], *solution[1:])
    return tuple(solution)


def elide_prefix(solution: Sequence[str], incorrect_step: int | None, path: Sequence[str]) -> tuple[str, ...]:
    """The corrected solution with the untouched steps before the incorrect one replaced by "..."; unchanged where
    there are none or the solution does not keep them."""
    kept = tuple(path[: (incorrect_step or 1) - 1])
    if kept and tuple(solution[: len(kept)]) == kept and len(solution) > len(kept):
        return (ELLIPSIS, *solution[len(kept) :])
    return tuple(solution)


def _require_place(at: int | None, steps: int | None) -> None:
    there = at is None or 1 <= at <= (steps or at)
    _require(there, f"the incorrect step is {at}, but the path has steps 1 to {steps or '...'}")


def _read_steps(lines: Sequence[str], incorrect_step: int | None) -> tuple[str, ...]:
    left_out = bool(lines) and lines[0] in _ELLIPSES
    _require(not (left_out and incorrect_step == 1), "the solution begins with '...', but no step comes before Step 1")
    solution = [ELLIPSIS] if left_out else []
    for due, line in enumerate(lines[left_out:], incorrect_step if left_out and incorrect_step else 1):
        step = _STEP_LINE.fullmatch(line)
        if step is None:
            raise _NoCorrection(f"the solution has a line that is not a step, where Step {due} is due")
        _require(int(step[1]) == due, f"the solution has Step {int(step[1])} where Step {due} is due")
        _require(step[2].strip(), f"Step {due} of the solution is empty")
        solution.append(step[2].strip())
    _require(solution[left_out:], "the solution has no steps")
    return tuple(solution)
