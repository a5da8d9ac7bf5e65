"""MATH: 7,500 training and 5,000 test questions of competition mathematics (Hendrycks et al., arXiv 2103.03874).

A record holds `problem`, `solution` with the answer in `\\boxed{...}`, `level` and `type`, as at
https://github.com/hendrycks/math. Where it has an `answer` too, the one in the solution counts: published copies have
lost backslashes in theirs.
"""

import re
from collections.abc import Mapping
from typing import Any

from lema.tasks import Reading, Task
from lema.tasks.math.equality import equal_math
from lema.text.final_answer import boxed, conclusion, last_statement, unboxed
from lema.text.records import text_field

_MAX_CHARACTERS = 400  # characters of an answer; longer ones are prose
_INSTRUCTION = re.compile(r"\s*Let's think step by step and output the final answer within \\boxed\{\}\.\s*$")
_ASY_FIGURE = re.compile(r"\[asy\].*?\[/asy\]", re.DOTALL)
_DISPLAY = re.compile(r"\\\[.*?\\\]|\$\$.*?\$\$|\\begin\{(\w+\*?)\}.*?\\end\{\1\}", re.DOTALL)
_MATH = re.compile(r"\$\$(.+?)\$\$|(?<!\\)\$(.+?)(?<!\\)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)


def extract_math(text: str) -> str | None:
    r"""The final answer in a model's text, as LaTeX or words, or None.

    It stands after the last "The answer is", or in the last `\boxed{}` or `\fbox{}` where none comes after it;
    without either, after the last "Answer:". What follows an invented next "Question:" does not count.
    """
    found = last_statement(conclusion(text))
    if found is None:
        return None
    inner = found.text if found.kind == "box" else boxed(found.text)
    answer = _stated(found.text) if inner is None else inner
    return answer if answer and len(answer) <= _MAX_CHARACTERS else None


def _stated(rest: str) -> str | None:
    """The answer at the beginning of what follows "The answer is"."""
    if not rest.strip():
        return None
    rest = rest.strip()
    if rest.startswith(("\\[", "$$")):
        clause = rest[: match.end()] if (match := _MATH.match(rest)) else rest
    else:
        clause = _sentence(rest.partition("\n")[0])
    clause = clause.strip().strip("*_").strip()
    formulas = [str(next(filter(None, match.groups()))) for match in _MATH.finditer(clause)]
    # "$x = 2$ and $x = 3$", "$5$ dollars": formulas, and words that say nothing more.
    between = _MATH.sub(" ", clause)
    if formulas and re.fullmatch(r"(?:\s|,|;|\.|\band\b|\bor\b|\\?%)*", between):
        return ", ".join(one.strip() for one in formulas) + ("\\%" if "%" in between else "")
    if len(formulas) == 1 and clause.startswith(("$", "\\(")) and re.fullmatch(r"[\s.]*[a-z ]+[\s.]*", between):
        return formulas[0].strip()
    return clause.rstrip(".,; ") or None


def _sentence(line: str) -> str:
    """A line up to the full stop that ends its first sentence; those within formulas and numbers do not."""
    formulas = [match.span() for match in _MATH.finditer(line)]
    for match in re.finditer(r"[.!?;](?=[\s*]|$)|,\s+(?=(?:because|since|as|so|which|that|where|when)\b)", line):
        before = line[: match.start()]
        if before.count("{") <= before.count("}") and not any(start < match.start() < end for start, end in formulas):
            return before
    return line


def read_math(record: Mapping[str, Any]) -> Reading:
    problem, solution, answer = text_field(record, "problem"), record.get("solution"), record.get("answer")
    gold = boxed(solution) if isinstance(solution, str) else None
    if not gold and isinstance(answer, str | int | float) and not isinstance(answer, bool):
        gold = str(answer).strip()
    if not gold:
        raise ValueError("needs a `solution` with the answer in \\boxed{...}, or an `answer`")
    strata = {name: str(record[name]) for name in ("level", "type") if record.get(name)}
    rationale = _math_rationale(solution) if isinstance(solution, str) else None
    return Reading(_INSTRUCTION.sub("", problem).strip(), gold, rationale, strata)


def _math_rationale(solution: str) -> str | None:
    """A solution as steps, one a line: formulas that stand alone stay with the text before them, figures are left
    out, and so are the boxes, as the format of the training examples states the answer in its own way."""
    text = unboxed(_ASY_FIGURE.sub(" ", solution))
    text = _DISPLAY.sub(lambda match: " ".join(match[0].split()), text)
    text = re.sub(r"\s*\n\s*(?=\\\[|\$\$|\\begin)", " ", text)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return "\n".join(line for line in lines if line) or None


def counts_math(record: Mapping[str, Any]) -> bool:
    """A few published solutions end in an empty box: nothing can be compared with those."""
    solution = record.get("solution")
    return not isinstance(solution, str) or boxed(solution) != "" or bool(record.get("answer"))


def write_math(reading: Reading) -> dict[str, Any]:
    """A rationale may be a model's path with boxes of its own, so the answer stands apart from it."""
    record = {"problem": reading.text, "solution": unboxed(reading.rationale or ""), "answer": reading.gold}
    return {**record, **reading.strata}


math = Task("math", read_math, extract_math, equal_math, counts=counts_math, write=write_math)
