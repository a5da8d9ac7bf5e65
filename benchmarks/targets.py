"""How many requests a target saves against fixed numbers, in a world whose luck is seeded.

    python benchmarks/targets.py

2,000 questions and two samplers of 4 paths each: `careful` is wrong in 30 % of its paths, `hasty` in 55 %; every
question is harder or easier for both. The corrector is right in 70 %. 500 accepted corrections are needed.
"""

import hashlib
import time
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from lema.filters.answer_matches import answer_matches
from lema.filters.duplicate import duplicate
from lema.filters.has_fields import has_fields
from lema.filters.near_duplicate import near_duplicate
from lema.models.types import Completion, Model, Request
from lema.pipeline.providers import build_judge
from lema.recipe.sampler_schema import SamplesSpec
from lema.recipe.schema import CorrectionsSpec
from lema.rows import Correction, Grade, Question, Sample
from lema.stages.corrections import corrections
from lema.stages.grades import grade_text
from lema.stages.samples import samples
from lema.tasks.word_problems import word_problems

QUESTIONS, NEEDED = 2000, 500
WRONG = {"careful": 0.3, "hasty": 0.55}
RIGHT = 0.7
MODELS = {name: Model(name, "world", name) for name in (*WRONG, "corrector")}
FILTERS = {"has_fields": has_fields, "answer_matches": answer_matches, "duplicate": duplicate, "near": near_duplicate}
SAMPLERS = {name: {"model": name, "prompt": {"user": "{{ question }}"}} for name in WRONG}
CORRECTOR = {"model": "corrector", "prompt": {"user": "{{ question }}\n{{ path }}"}}
# Paths of each sampler, `samples.want` and the target of corrections.
PLANS: dict[str, tuple[int, dict[str, Any] | None, dict[str, Any]]] = {
    "all paths, all corrected": (4, None, {}),
    "one path of each sampler, all corrected": (1, None, {}),
    "one wrong path a question": (4, {"per_question": 1}, {}),
    "500 accepted": (4, None, {"want": NEEDED}),
    "both": (4, {"per_question": 1}, {"want": NEEDED}),
    "both, 1,000 wrong paths in all": (4, {"per_question": 1, "in_all": 1000}, {"want": NEEDED}),
    "both, 720 wrong paths in all": (4, {"per_question": 1, "in_all": 720}, {"want": NEEDED}),
}


def luck(*names: object) -> float:
    """A number of its own for everything, 0 to 1."""
    return int.from_bytes(hashlib.sha256(" ".join(map(str, names)).encode()).digest()[:4]) / 2**32


class World:
    """Replies by luck; counts requests and calls, each of which waits for all of its replies."""

    def __init__(self, questions: Iterable[Question]) -> None:
        self.gold = {question.text: int(question.gold) for question in questions}
        self.requests = self.calls = 0

    def __call__(self, requests: Iterable[Request]) -> Iterator[Completion]:
        asked = list(requests)
        self.requests += len(asked)
        self.calls += 1
        return map(self._reply, asked)

    def _reply(self, request: Request) -> Completion:
        name, content = request.model.label, request.messages[-1].content
        text = content.partition("\n")[0]
        own = luck(name, content, request.index)
        if name == "corrector":
            answer = self.gold[text] + (own >= RIGHT)
            steps = f"Step 1: It is {answer}.\nStep 2: The answer is {answer}."
            return Completion(f"Incorrect Step: Step 1.\nExplanation: No.\nCorrect Solution:\n{steps}", "stop")
        harder = 2 * luck(text)
        slip = 1 + int(9 * luck("slip", name, content, request.index))
        return Completion(f"The answer is {self.gold[text] + slip * (own < WRONG[name] * harder)}.", "stop")


def questions() -> list[Question]:
    """Word problems, each text once."""
    found: dict[str, Question] = {}
    assert word_problems.generate is not None
    for split, record in word_problems.generate(seed=1, steps=[1, 2, 3], largest=90):
        if split == "train":
            read = word_problems.read(record)
            found.setdefault(read.text, Question(f"q{len(found):05d}", "train", read.text, read.gold, read.rationale))
        if len(found) == QUESTIONS:
            return list(found.values())
    raise AssertionError("the generator ended")


@cache
def asked() -> tuple[Question, ...]:
    return tuple(questions())


def run(count: int, want: dict[str, Any] | None, target: dict[str, Any]) -> tuple[list[int], float]:
    """Paths, corrections, requests, accepted, calls; and processor seconds."""
    began, world, base = time.process_time(), World(asked()), Model("base", "world", "base")
    decide = build_judge(word_problems, lambda: FILTERS)
    samplers = {name: {**one, "paths": count} for name, one in SAMPLERS.items()}
    paths: list[Sample] = sorted(
        samples(
            asked(), base, spec=SamplesSpec.model_validate({"samplers": samplers, "want": want}), task=word_problems,
            models=MODELS, generate=world, read_file=lambda _: (), log=print,
        ),
        key=lambda row: row.id,
    )  # fmt: skip
    gold = {question.id: question.gold for question in asked()}
    grades = [
        Grade(
            row.id,
            row.question_id,
            row.sampler,
            *grade_text(row.text, row.finish, gold[row.question_id], word_problems),
        )
        for row in paths
    ]
    rows: list[Correction] = list(
        corrections(
            asked(), base, paths, grades, [], spec=CorrectionsSpec.model_validate({**CORRECTOR, **target}),
            task=word_problems, models=MODELS, generate=world, judge=decide, pmap=map, log=print,
        )
    )  # fmt: skip
    seconds = time.process_time() - began
    judged = list(decide(asked(), paths, sorted(rows, key=lambda row: row.id)))
    accepted = sum(row.accepted for row in judged)
    return [len(paths), len(rows), world.requests, accepted, world.calls], seconds


def main() -> None:
    print("| plan | paths | corrections | requests | accepted | calls | processor seconds |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name, plan in PLANS.items():
        counts, seconds = run(*plan)
        print(f"| {name} | {' | '.join(f'{count:,}' for count in counts)} | {seconds:.1f} |")


if __name__ == "__main__":
    main()
