"""One small world for all filters: question "2 and 3, then 4 more", wrong path of three steps."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from lema.filters import GIVEN, Candidate, Finding
from lema.models.types import Completion, Model, Request
from lema.recipe import part_loader
from lema.recipe.basic_types import Prompt
from lema.rows import Correction, Question, Sample
from tests.stages.rows import task

QUESTION = Question("q1", "train", "Ann has 2 and 3, then 4 more. How many?", "9", "2 + 3 = 5\n5 + 4 = 9")
PATH = "Step 1: 2 + 3 = 5\nStep 2: 5 + 4 = 8\nStep 3: The answer is 8."
SAMPLE = Sample("q1/s/0", "q1", "s", 0, PATH, "stop", None, "m", "p", "", 0, 0)
GOOD = Correction(
    id="q1/s/0/c0", sample_id="q1/s/0", question_id="q1", index=0, status="parsed", reason=None,
    reply="Incorrect Step: Step 2. and so on", incorrect_step=2, error_type="arithmetic slip",
    explanation="5 + 4 is 9, not 8.", solution="...\n5 + 4 = 9\nThe answer is 9.", answer="9",
    model="m", prompt="p", completion="k", prompt_tokens=10, completion_tokens=20,
)  # fmt: skip
NOTHING = dict.fromkeys(("incorrect_step", "error_type", "explanation", "solution", "answer"))
MALFORMED = replace(GOOD, status="malformed", reason="`Explanation:` is missing", **NOTHING)  # type: ignore[arg-type]
FAILED = replace(GOOD, status="failed", reason="HTTP 500", reply="", completion_tokens=0, **NOTHING)  # type: ignore[arg-type]
OPTIONS: dict[str, dict[str, Any]] = {
    "max_tokens": {"limit": 20},
    "judge": {"model": "strong", "prompt": Prompt(user="{{ question }} {{ solution | join(' ') }}")},
}


def generate(requests: Iterable[Request]) -> Iterator[Completion]:
    """A judge that says yes."""
    return (Completion("Yes.", "stop") for _ in requests)


WORLD: dict[str, Any] = {
    "questions": [QUESTION],
    "task": task(),
    "hint": "none",
    "read_file": lambda name: iter(()),
    "models": {"strong": Model("strong", "b", "strong")},
    "generate": generate,
}


def candidate(correction: Correction, path: str = PATH, question: Question = QUESTION) -> Candidate:
    matches = None if correction.answer is None else correction.answer == question.gold
    return Candidate(question, replace(SAMPLE, text=path), correction, matches)


def find(name: str, candidates: Iterable[Candidate], **options: Any) -> list[Finding]:
    """What a filter finds, given what the pipeline would give it."""
    part: Callable[..., Any] = part_loader.load_part("filters", name)
    asked = {one: WORLD[one] for one in GIVEN if one in inspect.signature(part).parameters}
    return list(part(candidates, **{**asked, **OPTIONS.get(name, {}), **options}))


def judge(name: str, *corrections: Correction, path: str = PATH, **options: Any) -> list[Finding]:
    return find(name, [candidate(one, path) for one in corrections], **options)
