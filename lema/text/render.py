"""Solutions in the two shapes that formats want: the steps of a CoT format, and the parts of a correction.

The variables of a correction format, beside `question`, `path` and `steps` (the wrong path, numbered as a text and bare
as a list): `incorrect_step`, `explanation`, `answer`; `solution`, the corrected solution, its untouched steps as "...",
as in the paper, and `full`, nothing left out, both numbered; and for one trajectory, bare and without the sentence that
states the answer, `before`, the steps that are kept, `wrong`, the incorrect step, and `after`, the corrected ones.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lema.recipe.basic_types import Prompt
from lema.recipe.prompt import reply
from lema.rows import Correction, Question, Sample
from lema.text.correction_format import ELLIPSIS, elide_prefix, expand_ellipsis, number_solution
from lema.text.final_answer import strip_answers
from lema.text.steps import number_steps, split_steps

# Noncharacters (Unicode, 23.7): no text that is meant to be exchanged has them.
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"


def expand_correction(row: Correction, sample: Sample) -> tuple[str, ...]:
    """The whole corrected solution, step by step, the untouched steps from the wrong path."""
    return expand_ellipsis((row.solution or "").split("\n"), row.incorrect_step, split_steps(sample.text))


def correction_variables(question: Question, sample: Sample, row: Correction) -> dict[str, Any]:
    """The variables of a correction format. Where the corrector did not keep the steps before the incorrect one,
    `solution` and `after` are the whole of its solution: it began afresh. Where it named no step, as in questions
    that are not worked out in steps (LEMA, C.3), there is neither a number nor anything before, and a format that
    writes `incorrect_step` or `wrong` cannot be used; nor one that writes `rationale` where the question has none."""
    path, at, lines = split_steps(sample.text), row.incorrect_step, (row.solution or "").split("\n")
    gold = {"rationale": strip_answers(split_steps(question.rationale))} if question.rationale else {}
    return gold | solution_variables(question.text, question.gold, path, at, row.explanation or "", lines)


def solution_variables(
    question: str, gold: str, path: Sequence[str], at: int | None, explanation: str, lines: Sequence[str]
) -> dict[str, Any]:
    """The same of a correction that is no row: `lines` are its solution, with or without a first line "..."."""
    whole = expand_ellipsis(lines, at, path)
    solution = elide_prefix(whole, at, path)
    named = {"incorrect_step": at, "wrong": path[at - 1] if at <= len(path) else ""} if at else {}
    return {
        **named,
        "question": question,
        "path": number_steps(path),
        "steps": list(path),
        "explanation": explanation,
        "solution": list(number_solution(solution, at)),
        "full": list(number_solution(whole, at)),
        "before": strip_answers(path[: (at or 1) - 1]),
        "after": strip_answers(solution[solution[:1] == (ELLIPSIS,) :]),
        "answer": gold,
    }


def render_masked(prompt: Prompt, variables: Mapping[str, Any]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """A completion, and the spans of its characters that are the variable `wrong`."""
    if "wrong" not in variables:
        return reply(prompt, variables), ()
    text = reply(prompt, {**variables, "wrong": f"{_OPEN}{variables['wrong']}{_CLOSE}"})
    spans, start, plain = [], 0, ""
    for piece in re.split(f"([{_OPEN}{_CLOSE}])", text):
        if piece == _OPEN:
            start = len(plain)
        elif piece == _CLOSE:
            spans.append((start, len(plain)))
        else:
            plain += piece
    return plain, tuple(span for span in spans if span[0] < span[1])


def render_solution(prompt: Prompt, question: Question, steps: Sequence[str], answer: str) -> str:
    """A whole solution in a CoT format."""
    return reply(prompt, {"question": question.text, "steps": strip_answers(steps), "answer": answer})


def split_last_step(prompt: Prompt, question: Question, steps: Sequence[str], answer: str) -> tuple[str, str]:
    """A solution in a CoT format up to its last step: what comes before that step, and the step. Where the step only
    states the answer, it is what the format makes of the answer."""
    *before, last = steps
    kept, step = strip_answers(before), strip_answers([last])

    def filled(lines: Sequence[str]) -> str:
        return reply(prompt, {"question": question.text, "steps": list(lines), "answer": answer})

    if step:
        head, _, rest = filled([*kept, f"{_OPEN}{step[0]}{_CLOSE}"]).partition(_OPEN)
        return head, rest.partition(_CLOSE)[0]
    # The sentence of the answer begins where the texts without and with one more step part.
    text, more = filled(kept), filled([*kept, _OPEN])
    shared = next((at for at, (one, other) in enumerate(zip(text, more, strict=False)) if one != other), len(text))
    return text[:shared], text[shared:]
