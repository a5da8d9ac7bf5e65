"""Rows to read: corrections beside their wrong paths, and test questions that two models answer differently."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lema.rows import Answer, Correction, Question, Sample, Verdict
from lema.text.correction_format import ELLIPSIS
from lema.text.steps import split_steps


def examples_to_read(
    questions: Sequence[Question],
    samples: Sequence[Sample],
    corrections: Sequence[Correction],
    judged: Sequence[Verdict],
    count: int,
) -> list[dict[str, Any]]:
    """Corrections spread over error types, chosen by a hash; a quarter of them dropped ones, where there are enough."""
    verdicts = {row.id: row for row in judged}
    parsed = [row for row in corrections if row.status == "parsed" and row.id in verdicts]
    dropped = _spread([row for row in parsed if not verdicts[row.id].accepted])[: count // 4]
    kept = _spread([row for row in parsed if verdicts[row.id].accepted])[: count - len(dropped)]
    asked = {row.id: row for row in questions}
    paths = {row.id: row for row in samples}
    return [
        correction(asked[row.question_id], paths[row.sample_id], row, verdicts[row.id]) for row in [*kept, *dropped]
    ]


def correction(question: Question, sample: Sample, row: Correction, verdict: Verdict | None) -> dict[str, Any]:
    """One correction as a reader wants it: steps as (number, text, mark), marks "wrong", "new" or none."""
    at = row.incorrect_step or 0
    lines = (row.solution or "").splitlines()
    left_out = bool(lines) and lines[0] == ELLIPSIS
    first = at if left_out else 1
    steps = [(first + place, line) for place, line in enumerate(lines[left_out:])]
    return {
        "id": row.id, "question": question.text, "gold": question.gold, "sampler": sample.sampler,
        "path": [(n, step, "wrong" if n == at else "") for n, step in enumerate(split_steps(sample.text), 1)],
        "incorrect_step": at, "error_type": row.error_type, "explanation": row.explanation or "",
        "kept": at - 1 if left_out else 0,
        "solution": [(place, step, "new" if place >= at else "") for place, step in steps],
        "accepted": verdict.accepted if verdict else None,
        "drops": [(drop.filter, drop.reason) for drop in verdict.drops] if verdict else [],
    }  # fmt: skip


def _spread(corrections: Iterable[Correction]) -> list[Correction]:
    """One of each error type, the commonest first, then a second one of each, and so on; in the order of a hash."""
    kinds: dict[str, list[Correction]] = defaultdict(list)
    for row in sorted(corrections, key=lambda row: _digest(row.id)):
        kinds[row.error_type or ""].append(row)
    turns = sorted(kinds.items(), key=lambda kind: (-len(kind[1]), kind[0]))
    places = [(place, turn, row) for turn, (_, own) in enumerate(turns) for place, row in enumerate(own)]
    return [row for _, _, row in sorted(places, key=lambda entry: entry[:2])]


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def contrasts(
    questions: Sequence[Question], answers: Sequence[Answer], lead: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """Test questions that the two models of a comparison answer differently: up to two won and two lost."""
    if lead is None:
        return []
    texts = {row.id: row for row in questions if row.split == "test"}
    by_arm: dict[str, dict[str, Answer]] = defaultdict(dict)
    for row in answers:
        if row.kind == "single" and row.question_id in texts:
            by_arm[row.arm].setdefault(row.question_id, row)  # of several trainings the first one's
    ours, theirs = by_arm[lead["arm"]], by_arm[lead["than"]]
    shared = sorted(ours.keys() & theirs.keys(), key=_digest)
    picked = []
    for right, other in ((ours, theirs), (theirs, ours)):
        found = [q for q in shared if right[q].outcome == "correct" != other[q].outcome]
        picked += [
            {"won": right is ours, "question": texts[q].text, "gold": texts[q].gold,
             "answers": [(lead["arm"], ours[q]), (lead["than"], theirs[q])]}
            for q in found[:2]
        ]  # fmt: skip
    return picked
