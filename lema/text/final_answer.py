"""Where a text states its final answer: the only module that knows the sentence "The answer is 12.".

Texts state it in four ways, the strongest first: "The answer is ...", GSM8K's "#### ...", `\\boxed{...}`, and a line
"Answer: ...". Of each kind the last one counts. What a statement says is for the task to read.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

StatementKind = Literal["sentence", "hashes", "box", "label"]


class Statement(NamedTuple):
    """One statement of the answer: its kind, and the text after it; of a box, what it holds."""

    kind: StatementKind
    text: str


_CONNECTIVE = r"(?:(?:so|thus|hence|therefore)[,\s]+)?"
# "The answer is correct." and "the answer is less than 9" are about the answer and do not state it.
_ABOUT = (
    r"(?![\s*_]+(?:(?:correct|right|wrong|incorrect|valid|reasonable)[*_]*(?=[.,;!\n]|\s+(?:and|as|because|since)\b|\s*$)"
    r"|(?:consistent\s+with|given\s+in|(?:less|more|greater)\s+than|at\s+(?:least|most))\b))"
)
_CORE = rf"(?:(?:final|correct|right)\s+)?answer\s+is\b{_ABOUT}"
_SENTENCE = re.compile(rf"\bthe\s+{_CORE}[\s:*_]*(?:(?<=\n)[-•]\s+)?", re.IGNORECASE)
# The sentence with all that follows it; at the beginning of a step it may do without "the".
_TAIL = re.compile(rf"(?:^\W*{_CONNECTIVE}|\s*\b{_CONNECTIVE}the\s+){_CORE}.*", re.IGNORECASE)
_ONLY = re.compile(
    rf"^{_CONNECTIVE}(?:the )?(?:(?:final|correct|right) )?answer (?:is|should be):? \S+(?: \w+)?\W*$", re.IGNORECASE
)
_HASHES = re.compile(r"^[ \t]*####[ \t]*(.+)$", re.MULTILINE)
_ANSWER_LABEL = re.compile(
    r"^[^\w\n]*(?:final[ \t]+)?answer[ \t]*[*_]*:[\s*_]*|<answer>\s*", re.IGNORECASE | re.MULTILINE
)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(\{|\s(\S))")
# The next turn or question that a model goes on to invent; the first line never is one, models may repeat theirs.
_NEXT_QUESTION = re.compile(
    r"\n[ \t#*_>]*(?:(?:question|q)[ \t]*\d*[ \t]*[*_]*:|question[ \t]+\d+[ \t]*\n|(?:human|user)[ \t]*:)"
    r"|<\|(?:im_end|eot_id|endoftext)\|>",
    re.IGNORECASE,
)


def answer_sentence(answer: str) -> str:
    """The last step of a path.

    >>> answer_sentence("12")
    'The answer is 12.'
    """
    return f"The answer is {answer}."


def states_answer(step: str) -> bool:
    """Whether a step states the answer, whatever else it says."""
    return _TAIL.search(step) is not None


def only_states_answer(step: str) -> bool:
    """Whether a step is "The answer is" or "should be" and at most two words."""
    return _ONLY.match(step) is not None


def strip_answers(steps: Iterable[str]) -> list[str]:
    """Steps without the sentence that states the answer and what follows it; a step of nothing else is left out.

    >>> strip_answers(["2 + 3 = 5. So the answer is 5.", "The answer is 5."])
    ['2 + 3 = 5.']
    """
    return [rest for step in steps if (rest := _TAIL.sub("", step).strip())]


def drop_answer_step(steps: Sequence[str]) -> tuple[str, ...]:
    """A path without a last step that begins with the answer."""
    stated = _TAIL.search(steps[-1]) if steps else None
    return tuple(steps[:-1] if stated and not re.search(r"\w", steps[-1][: stated.start()]) else steps)


def conclusion(text: str) -> str:
    """The part of a reply in which its answer is looked for: without reasoning between `<think>` tags, up to the next
    question or turn that the model went on to invent."""
    text = text.rpartition("</think>")[2].strip()
    found = _NEXT_QUESTION.search(text)
    return text[: found.start()] if found else text


def last_statement(text: str, *, hashes: bool = False) -> Statement | None:
    """The statement of the answer that counts, None where a text has none; "####" counts only with `hashes`."""
    sentences, marks = list(_SENTENCE.finditer(text)), _HASHES.findall(text) if hashes else []
    if sentences:
        return Statement("sentence", text[sentences[-1].end() :])
    if marks:
        return Statement("hashes", marks[-1])
    if (inner := boxed(text)) is not None:
        return Statement("box", inner)
    labels = list(_ANSWER_LABEL.finditer(text))
    return Statement("label", text[labels[-1].end() :]) if labels else None


def boxed(text: str) -> str | None:
    r"""What the last `\boxed{...}` or `\fbox{...}` holds, braces nested to any depth; None without a whole one."""
    # The last ones only: a reply that repeats an open box a thousand times would take minutes.
    for match in reversed(list(_BOX.finditer(text))[-20:]):
        if match[2]:
            return match[2].rstrip("$.")
        end = closing_brace(text, match.end() - 1)
        if end is not None:
            return text[match.end() : end].strip()
    return None


def unboxed(text: str) -> str:
    r"""A text with every `\boxed{...}` replaced by what it holds."""
    while match := re.search(r"\\(?:boxed|fbox)\s*\{", text):
        end = closing_brace(text, match.end() - 1)
        if end is None:
            break
        text = text[: match.start()] + text[match.end() : end] + text[end + 1 :]
    return re.sub(r"\\(?:boxed|fbox)\s+(?=\S)", "", text)


def closing_brace(text: str, at: int) -> int | None:
    """Where the brace that opens at a place of a text is closed; None where it is not."""
    depth = 0
    for place in range(at, len(text)):
        if text[place] in "{}" and (place == 0 or text[place - 1] != "\\"):
            depth += 1 if text[place] == "{" else -1
            if depth == 0:
                return place
    return None
