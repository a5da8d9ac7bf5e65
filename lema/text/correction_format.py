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
from collections.abc import Collection, Sequence
from dataclasses import dataclass

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
    labels = list(_FIELD_LABEL.finditer(text))
    known = {name.lower(): name for name in (*_FIELDS, *_WHOLE_FIELDS)}
    names = [known[label[1].lower()] for label in labels]
    whole = "Incorrect Step" not in names and any(name in names for name in _WHOLE_FIELDS)
    optional = ["Error Type", *(name.replace("_", " ").title() for name in without)]
    if fault := _order_fault(names, _WHOLE_FIELDS if whole else _FIELDS, optional):
        return Malformed(fault)
    ends = [label.start() for label in labels[1:]] + [len(text)]
    fields = {name: text[label.end() : end].strip() for name, label, end in zip(names, labels, ends, strict=True)}
    if empty := [name for name in names if not fields[name]]:
        return Malformed(f"`{empty[0]}:` is empty")
    if whole:
        lines = _lines(fields["Corrected Answer"])
        explanation = " ".join(fields["Mistakes"].split())
        if not lines or lines[0] in _ELLIPSES:
            return Malformed("`Corrected Answer:` is not written out" if lines else "`Corrected Answer:` is empty")
        return Parsed(None, None, explanation, tuple(lines))
    incorrect = None
    if "Incorrect Step" in fields:
        step = _STEP_NAME.fullmatch(fields["Incorrect Step"].strip("* "))
        if step is None:
            return Malformed("`Incorrect Step:` does not name one step, as in 'Step 2.'")
        incorrect = int(step[1])
    lines = _lines(fields["Correct Solution"])
    if incorrect is None and len(lines) > 1 and lines[0] in _ELLIPSES and (first := _STEP_LINE.fullmatch(lines[1])):
        incorrect = int(first[1])  # the first step after "..." is the one that differs
    if fault := _place_fault(incorrect, steps):
        return Malformed(fault)
    solution = _solution(lines, incorrect)
    if isinstance(solution, Malformed):
        return solution
    explanation = " ".join(fields.get("Explanation", "").split())
    kind = fields.get("Error Type", "").strip("*. ")
    return Parsed(incorrect, kind or None, explanation or None, solution)


def parse_correction_json(text: str, *, steps: int | None = None, without: Collection[str] = ()) -> Parsed | Malformed:
    """As `parse_correction`, for a reply that is an object with `incorrect_step`, `error_type`, `explanation` and
    `solution`, the solution being a list of steps. What stands around the object, such as a Markdown fence, does not
    count."""
    try:
        said = json.loads(text[text.index("{") : text.rindex("}") + 1])
    except (ValueError, RecursionError):
        return Malformed("the reply is not a JSON object")
    for name in ("incorrect_step", "explanation", "solution"):
        if name not in said and name not in without:
            return Malformed(f"`{name}` is missing")
    at, kind, why, lines = (said.get(name) for name in ("incorrect_step", "error_type", "explanation", "solution"))
    if not isinstance(at, int | None) or isinstance(at, bool):
        return Malformed("`incorrect_step` is not a whole number")
    if not isinstance(why, str | None) or not isinstance(kind, str | None):
        return Malformed("`explanation` and `error_type` are texts")
    if not why and "explanation" not in without:
        return Malformed("`explanation` is empty")
    if at is None and "incorrect_step" not in without:
        return Malformed("`incorrect_step` is empty")
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        return Malformed("`solution` is not a list of steps")
    if fault := _place_fault(at, steps):
        return Malformed(fault)
    solution = tuple(bare for line in lines for bare in [" ".join(strip_number(line).split())] if bare)
    if solution[:1] and solution[0] in _ELLIPSES:
        if at in (None, 1) or len(solution) == 1:
            return Malformed("the solution begins with '...', which stands for no steps or is all there is")
        solution = (ELLIPSIS, *solution[1:])
    if not solution:
        return Malformed("the solution has no steps")
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


def _order_fault(names: Sequence[str], fields: Sequence[str], optional: Collection[str]) -> str | None:
    for name in fields:
        if name not in names and name not in optional:
            return f"`{name}:` is missing"
        if names.count(name) > 1:
            return f"`{name}:` is there more than once"
    expected = [name for name in fields if name in names]
    return None if list(names) == expected else f"the fields are not in the order {', '.join(expected)}"


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and line.strip() not in _DRESSING]


def _place_fault(incorrect_step: int | None, steps: int | None) -> str | None:
    if incorrect_step is None or 1 <= incorrect_step <= (steps or incorrect_step):
        return None
    return f"the incorrect step is {incorrect_step}, but the path has steps 1 to {steps or '...'}"


def _solution(lines: Sequence[str], incorrect_step: int | None) -> tuple[str, ...] | Malformed:
    left_out = bool(lines) and lines[0] in _ELLIPSES
    if left_out and incorrect_step == 1:
        return Malformed("the solution begins with '...', but no step comes before Step 1")
    expected = incorrect_step if left_out and incorrect_step else 1
    solution: list[str] = []
    for line in lines[left_out:]:
        step = _STEP_LINE.fullmatch(line)
        if step is None:
            return Malformed(f"the solution has a line that is not a step, where Step {expected} is due")
        if int(step[1]) != expected:
            return Malformed(f"the solution has Step {int(step[1])} where Step {expected} is due")
        if not step[2].strip():
            return Malformed(f"Step {expected} of the solution is empty")
        solution.append(step[2].strip())
        expected += 1
    if not solution:
        return Malformed("the solution has no steps")
    return (ELLIPSIS, *solution) if left_out else tuple(solution)
