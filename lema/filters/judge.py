"""A model reads every correction and says yes or no."""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from lema.filters import Candidate, Finding
from lema.models.types import Completion, Model, Request, Sampling
from lema.recipe.basic_types import Prompt
from lema.recipe.prompt import digest, render
from lema.text.correction_format import number_solution
from lema.text.steps import number_steps

# "Yes", "**No.**", "Verdict: yes, because ..."
_YES_OR_NO = re.compile(r"\W*(?:(?:final )?(?:answer|verdict|judge?ment|decision)\W+)?(yes|no)\b", re.IGNORECASE)


def judge(
    candidates: Iterable[Candidate],
    *,
    model: str,
    prompt: Prompt,
    temperature: float = 0.0,
    max_tokens: int = 16,
    models: Mapping[str, Model],
    generate: Callable[[Iterable[Request]], Iterator[Completion]],
) -> Iterator[Finding]:
    """Measures 1 where a model of the recipe says yes to a prompt, else 0; drops 0, and replies that say neither.

    The word is the first of the reply's first or last line. Replies without a solution are not judged, nor paid for.
    The prompt knows `question`, `gold`, `rationale`, `path`, `steps`, `incorrect_step`, `explanation`, `solution` (a
    list of numbered steps) and `answer`.
    """
    sampling, origin = Sampling(temperature=temperature, max_tokens=max_tokens), digest(prompt)
    asked: deque[bool] = deque()  # of candidates read and not yet judged, which `generate` may read far ahead

    def requests() -> Iterator[Request]:
        for candidate in candidates:
            asked.append(bool(candidate.correction.solution))
            if asked[-1]:
                yield Request(models[model], render(prompt, judge_variables(candidate)), sampling, prompt=origin)

    for reply in generate(requests()):
        while not asked.popleft():
            yield Finding(None)
        yield _read_verdict(reply)
    yield from (Finding(None) for _ in asked)


def judge_variables(candidate: Candidate) -> dict[str, Any]:
    """The variables of a judge's prompt."""
    row, question = candidate.correction, candidate.question
    return {
        "question": question.text,
        "gold": question.gold,
        "rationale": question.rationale or "",
        "path": number_steps(candidate.path),
        "steps": list(candidate.path),
        "incorrect_step": row.incorrect_step or 0,
        "explanation": row.explanation or "",
        "solution": list(number_solution(candidate.solution, row.incorrect_step or 1)),
        "answer": row.answer or "",
    }


def _read_verdict(reply: Completion) -> Finding:
    if reply.finish in ("failed", "refused"):
        return Finding(None, f"the judge did not reply: {reply.error}")
    lines = [line for line in reply.text.splitlines() if line.strip()]
    words = {found[1].lower() for line in [*lines[:1], *lines[-1:]] if (found := _YES_OR_NO.match(line))}
    if len(words) != 1:
        return Finding(None, "the judge says neither yes nor no")
    return Finding(1) if words == {"yes"} else Finding(0, "the judge says no")
