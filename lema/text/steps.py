"""A path as steps: the one place where a text is cut into steps and steps become a text."""

import re
from collections.abc import Sequence

_PREFIX = re.compile(r"^\s*(?:\*\*)?step\s+\d+\s*[:.)](?:\*\*)?\s*", re.IGNORECASE)
# "Step 2:" in the middle of a line starts a new step; "as in Step 2, ..." does not.
_INLINE = re.compile(r"(?<=\S)\s+(?=(?:\*\*)?step\s+\d+\s*:)", re.IGNORECASE)
# A full stop, and what closes the sentence with it, then white space, then what can open a sentence.
_BOUNDARY = re.compile(r"[.!?][\"'”’)\]]*\s+(?=[\"'“‘(\[$€£]*[A-Z0-9])")
_LAST_WORD = re.compile(r"[A-Za-z.]+$")
_ABBREVIATIONS = frozenset(("mr", "mrs", "ms", "dr", "prof", "st", "mt", "jr", "no", "vs", "approx", "e.g", "i.e"))


def split_steps(text: str) -> tuple[str, ...]:
    """Split a path into its steps: non-empty lines, without their "Step k:" prefixes.

    A text of one line is split at its "Step k:" marks, or, having none, into sentences.

    >>> split_steps("Step 1: 2 + 3 = 5\\n\\nStep 2: The answer is 5.")
    ('2 + 3 = 5', 'The answer is 5.')
    >>> split_steps("Mr. Li has 3.5 pies. The answer is 3.5.")
    ('Mr. Li has 3.5 pies.', 'The answer is 3.5.')
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) == 1:
        parts = _INLINE.split(lines[0])
        lines = parts if len(parts) > 1 or _PREFIX.match(lines[0]) else _sentences(lines[0])
    return tuple(step for line in lines if (step := strip_number(line)))


def strip_number(line: str) -> str:
    """A step without its number.

    >>> strip_number("Step 2: 2 + 3 = 5")
    '2 + 3 = 5'
    """
    return _PREFIX.sub("", line, count=1).strip()


def number_steps(steps: Sequence[str], first: int = 1) -> str:
    """Steps as a text, one a line, numbered from `first`.

    >>> number_steps(["2 + 3 = 5", "The answer is 5."])
    'Step 1: 2 + 3 = 5\\nStep 2: The answer is 5.'
    """
    return "\n".join(f"Step {first + index}: {step}" for index, step in enumerate(steps))


def first_difference(path: Sequence[str], other: Sequence[str]) -> int | None:
    """The first step of a path, from 1, that another path does not have in its place, white space apart; None when it
    has all of them.

    >>> first_difference(["2 + 3 = 6", "The answer is 6."], ["2 + 3 = 5", "The answer is 5."])
    1
    """
    words = [[step.split() for step in steps] for steps in (path, other)]
    places = (place for place, step in enumerate(words[0]) if words[1][place : place + 1] != [step])
    return next((place + 1 for place in places), None)


def _sentences(line: str) -> list[str]:
    sentences, start = [], 0
    for boundary in _BOUNDARY.finditer(line):
        if _abbreviated(line[: boundary.start()]) and line[boundary.start()] == ".":
            continue
        sentences.append(line[start : boundary.end()].strip())
        start = boundary.end()
    sentences.append(line[start:].strip())
    return sentences


def _abbreviated(before: str) -> bool:
    """Does the text end in an abbreviation, "Mr" or "U.S", or in an initial, "J"?"""
    found = _LAST_WORD.search(before)
    word = found.group() if found else ""
    initials = all(len(letter) == 1 and letter.isupper() for letter in word.split("."))
    return bool(word) and (word.lower() in _ABBREVIATIONS or initials)
