"""Rows with as little in them as a test of one stage needs, and a `generate` that is a function."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from lema.models.types import Completion, Model, Request
from lema.rows import Correction, Grade, Location, Question, Sample, Verdict
from lema.tasks import Reading, Task

BASE = Model("base", "transformers", "transformers sha256:0")
ORIGIN: dict[str, Any] = {"model": "m", "prompt": "", "completion": "", "prompt_tokens": 1, "completion_tokens": 1}


def by_id(rows: Iterable[Any]) -> list[Any]:
    """As stages get and write them."""
    return sorted(rows, key=lambda row: row.id)


def read(record: Any) -> Reading:
    if "q" not in record:
        raise ValueError("needs a text in `q`")
    return Reading(record["q"], record["gold"], record.get("why"), record.get("strata", {}))


def extract(text: str) -> str | None:
    found = text.rpartition("The answer is ")[1:]
    return found[1].rstrip(".") if found[0] else None


def task(generate: Callable[..., Any] | None = None) -> Task:
    """A task whose answers are compared as texts."""
    return Task("toy", read, extract, str.__eq__, generate)


def question(number: int, split: Any = "train", **more: Any) -> Question:
    fields = {"text": f"Question {number}?", "gold": str(number), "rationale": f"{number} + 0 = {number}."}
    return Question(f"q{number}", split, **{**fields, **more})


def sample(question: str, text: str, sampler: str = "s", index: int = 0, **more: Any) -> Sample:
    fields: dict[str, Any] = {"finish": "stop", "error": None, **ORIGIN}
    return Sample(f"{question}/{sampler}/{index}", question, sampler, index, text, **{**fields, **more})


def graded(row: Sample, outcome: Any, answer: str | None = None) -> Grade:
    return Grade(row.id, row.question_id, row.sampler, outcome, answer)


def correction(row: Sample, solution: str | None, at: int | None = 1, **more: Any) -> Correction:
    fields: dict[str, Any] = {
        "index": 0, "status": "parsed", "reason": None, "reply": "", "error_type": None, "explanation": "Because.",
        "answer": None if solution is None else extract(solution), **ORIGIN,
    }  # fmt: skip
    return Correction(
        f"{row.id}/c0", row.id, row.question_id, incorrect_step=at, solution=solution, **{**fields, **more}
    )


def located(sample: str, **more: Any) -> Location:
    """Tokens are 2 and 3."""
    fields: dict[str, Any] = {"status": "parsed", "reason": None, "reply": "Step 1", "incorrect_step": 1}
    origin = {"model": "m", "prompt": "12" * 32, "completion": "", "prompt_tokens": 2, "completion_tokens": 3}
    return Location(sample, *sample.split("/")[:2], **{**fields, **origin, **more})


def accepted(row: Correction, yes: bool = True) -> Verdict:
    reason = None if yes else "no"
    return Verdict(row.id, row.sample_id, row.question_id, yes, reason, reason, ())


class Script:
    """A `generate` that answers by a function, or with one and the same completion, and remembers what was asked."""

    def __init__(self, reply: Callable[[Request], Completion] | Completion | str) -> None:
        self.reply = reply
        self.asked: list[Request] = []

    def __call__(self, requests: Iterable[Request]) -> Iterator[Completion]:
        new = list(requests)
        self.asked += new
        for request in new:
            if isinstance(self.reply, str):
                yield Completion(self.reply, "stop")
            else:
                yield self.reply if isinstance(self.reply, Completion) else self.reply(request)
