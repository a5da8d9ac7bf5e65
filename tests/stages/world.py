"""A small whole world of rows, from questions to scores, made without a model: for tests of what reads them all."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from lema.filters.contamination import contamination
from lema.recipe import part_loader
from lema.recipe.training_schema import ScoresSpec
from lema.rows import Answer, Correction, Example, Grade, Message, Question, Sample, Stratum
from lema.stages.answers import majority_answer
from lema.stages.scores import scores
from lema.stages.verdicts import verdicts
from lema.tasks.word_problems import generate, word_problems

KINDS = ("arithmetic slip", "wrong operand", "wrong operation", "missing step")
FILTERS = (
    "has_fields", "answer_matches", "changed", "consistent_prefix", "arithmetic", "duplicate", "max_tokens", "length",
)  # fmt: skip
ARMS = {"base": 0.55, "cot": 0.62, "lema": 0.72, "cot-more": 0.66}
MODEL, PROMPT = "base " + "ab" * 32, "cd" * 32


def chance(*names: object) -> float:
    """A number in [0, 1) that depends on the names only."""
    return int.from_bytes(hashlib.sha256(repr(names).encode()).digest()[:6]) / 2**48


def world(
    train: int = 60, test: int = 80, arms: dict[str, float] = ARMS, seeds: int = 1, others: int = 0, votes: int = 0
) -> dict[str, Any]:
    """Everything that `report` reads, by the names of its parameters; `others` is the size of a transfer set and of
    the dev split."""
    questions = make_questions("train", train) + make_questions("test", test)
    for split in ("harder", "dev") if others else ():
        questions += [
            replace(row, id=f"{split}-{row.id}", split=split) for row in make_questions("test", test + others)[test:]
        ]
    asked = {row.id: row for row in questions}
    samples = [path(q, name, at) for q in questions[:train] for name in ("other", "small") for at in range(2)]
    grades = [graded(row, asked[row.question_id]) for row in samples]
    wrong = {row.id for row in grades if row.outcome == "incorrect"}
    corrections = [corrected(row, asked[row.question_id]) for row in samples if row.id in wrong]
    options: dict[str, dict[str, Any]] = {"max_tokens": {"limit": 90}, "length": {"of": "ratio", "most": 1.5}}
    filters = {name: bound(part_loader.load_part("filters", name), options.get(name, {})) for name in FILTERS}
    filters["contamination"] = bound(contamination, {"questions": questions, "read_file": None})
    judged = list(verdicts(questions, samples, corrections, task=word_problems, filters=filters))
    accepted = [row.id for row in judged if row.accepted]
    right = [row.id for row in grades if row.outcome == "correct"]
    extra = {"lema": ("correction", accepted), "cot-more": ("cot", right)}
    mix = {arm: examples(arm, questions[:train], *extra.get(arm, ("cot", []))) for arm in arms if arm != "base"}
    answers = [
        row
        for arm, skill in arms.items()
        for seed in range(1 if arm == "base" else seeds)
        for question in questions[train:]
        for row in answered(question, arm, skill, seed, votes)
    ]
    return {
        "plan": {
            "recipe": "toy",
            "description": "A world made for tests.",
            "verdicts": {"filters": [*({"use": name, "options": options.get(name, {})} for name in FILTERS)]},
            "samples": {"samplers": {"small": {"model": "base", "paths": 2, "temperature": 0.7}}, "prompt": PROMPT},
            "adapter": {"rank": 16, "lr": 1e-3, "targets": "all-linear", "note": "line\n" * 9},
        },
        "questions": questions,
        "samples": samples,
        "grades": grades,
        "locations": [],
        "corrections": corrections,
        "verdicts": judged,
        "evolved": [],
        "mix": mix,
        "adapters": {arm: trained(arm, len(rows)) for arm, rows in mix.items()},
        "answers": answers,
        "scores": scores(questions, answers, [], spec=ScoresSpec(resamples=500), arms=list(arms)),
    }


def bound(part: Any, options: dict[str, Any]) -> Any:
    return lambda candidates: part(candidates, **options)


def make_questions(split: str, count: int) -> list[Question]:
    records = (record for side, record in generate(seed=5) if side == split)
    made = []
    for at, one in enumerate(islice(records, count)):
        strata = (Stratum("steps", str(one["steps"])),)
        made.append(Question(f"toy-{split}-{at:05d}", split, one["question"], one["answer"], one["rationale"], strata))
    return made


def path(question: Question, sampler: str, index: int) -> Sample:
    """A path, in half of the cases with a slip in one line and all that follows from it."""
    name = f"{question.id}/{sampler}/{index}"
    lines = str(question.rationale).split("\n")
    last = question.gold
    if (luck := chance(name)) < 0.5:
        at = int(luck * 2 * len(lines))
        slip = str(int(re.findall(r"= (\d+)", lines[at])[0]) + 1 + int(luck * 100) % 9)
        lines[at] = re.sub(r"= \d+", f"= {slip}", lines[at])
        last = slip if at == len(lines) - 1 else str(int(last) + 3)
    steps = [*lines, f"The answer is {last}."] if luck < 0.9 else lines
    text = "\n".join(f"Step {at}: {step}" for at, step in enumerate(steps, 1))
    return Sample(name, question.id, sampler, index, text, "stop", None, MODEL, PROMPT, "", 60, 30 + len(text) // 4)


def graded(sample: Sample, question: Question) -> Grade:
    answer = word_problems.extract(sample.text)
    right = answer is not None and word_problems.equal(answer, question.gold)
    outcome = "correct" if right else "unparsed" if answer is None else "incorrect"
    return Grade(sample.id, question.id, sample.sampler, outcome, answer)  # type: ignore[arg-type]


def corrected(sample: Sample, question: Question) -> Correction:
    luck = chance("correct", sample.id)
    gold, given = str(question.rationale).split("\n"), sample.text.split("\n")
    at = next((k for k, line in enumerate(gold, 1) if not given[k - 1].endswith(line)), len(gold))
    steps = [*gold[at - 1 :], f"The answer is {question.gold if luck < 0.8 else '1'}."]
    solution = "\n".join(["...", *steps] if at > 1 else steps)
    row = Correction(
        id=f"{sample.id}/c0", sample_id=sample.id, question_id=question.id, index=0, status="parsed", reason=None,
        reply=solution, incorrect_step=at, error_type=KINDS[int(luck * 97) % 4],
        explanation=f"Step {at} computes wrongly; {gold[at - 1].rstrip('.')} is what follows from the question.",
        solution=solution, answer=question.gold if luck < 0.8 else "1", model="reference", prompt=PROMPT, completion="",
        prompt_tokens=120, completion_tokens=int(40 + 60 * luck),
    )  # fmt: skip
    if luck < 0.93:
        return row
    nothing = dict.fromkeys(("incorrect_step", "error_type", "explanation", "solution", "answer"))
    return replace(row, status="malformed", reason="`Explanation:` is missing", **nothing)  # type: ignore[arg-type]


def examples(arm: str, questions: list[Question], kind: str, more: list[str]) -> list[Example]:
    rows = [("cot", row.id, row.id) for row in questions] + [(kind, name.split("/")[0], name) for name in more]
    prompt = (Message("user", "Question"),)
    return [
        Example(f"{arm}/{at:06d}", arm, kind, question, source, prompt, "So.")  # type: ignore[arg-type]
        for at, (kind, question, source) in enumerate(rows)
    ]


def trained(arm: str, rows: int) -> dict[str, Any]:
    curve = [
        {"step": at, "loss": round(0.3 + 1.2 / (1 + at / 6) + 0.1 * chance(arm, at), 4), "lr": 1e-3, "grad_norm": 1.0}
        for at in range(1, 5 + rows // 2, 2)
    ]
    versions = {"torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.0"}
    return {"examples": rows, "tokens": rows * 81, "too_long": 2, "steps": 40, "versions": versions, "curve": curve}


def answered(question: Question, arm: str, skill: float, seed: int, votes: int) -> Iterator[Answer]:
    """A single answer, and with votes these and their majority."""
    ease = chance(question.id) if question.split == "test" else 0.8 * chance(question.id) + 0.2

    def answer(kind: Any, index: int) -> Answer:
        name = f"{question.id}/{arm}/{seed}/{kind}{index}"
        luck = (ease * 2 + chance(name) + (0.2 * chance(arm, seed) - 0.1 if seed else 0)) / 3
        last = question.gold if luck < skill else str(int(question.gold) + 7)
        return Answer(
            id=name, question_id=question.id, arm=arm, seed=None if arm == "base" else seed, kind=kind, index=index,
            text=f"{question.rationale}\nThe answer is {last}.", finish="stop", error=None,
            outcome="correct" if last == question.gold else "incorrect", answer=last, completion="",
            prompt_tokens=50, completion_tokens=30,
        )  # fmt: skip

    yield answer("single", 0)
    drawn = [answer("vote", index) for index in range(votes)]
    yield from drawn
    if drawn:
        yield majority_answer(drawn, word_problems)
