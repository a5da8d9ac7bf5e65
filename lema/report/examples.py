"""Rows to read: corrections beside their wrong paths, and test questions that two models answer differently."""

import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from lema.rows import Answer, Correction, Question, Sample, Verdict
from lema.text.correction_format import ELLIPSIS
from lema.text.joins import SortedLookup
from lema.text.steps import split_steps

Judged = tuple[Correction, Verdict]
Step = tuple[int, str, str]  # number, text, mark


def example_corrections(
    questions: Iterable[Question],
    samples: Iterable[Sample],
    corrections: Iterable[Correction],
    verdicts: Iterable[Verdict],
    count: int,
) -> list[dict[str, Any]]:
    """Up to `count` corrections in different error types, a quarter of them dropped ones where there are enough."""
    # Of each type the `count` smallest by hash are enough, whatever the sizes of the types turn out to be.
    smallest: dict[tuple[bool, str], list[tuple[int, str, Judged]]] = defaultdict(list)
    sizes: Counter[tuple[bool, str]] = Counter()
    judged = SortedLookup(verdicts)
    for row in corrections:
        verdict = judged.get(row.id)
        if verdict is not None and row.status == "parsed" and count:
            kind = verdict.accepted, row.error_type or ""
            sizes[kind] += 1
            heap, entry = smallest[kind], (-_hash(row.id), row.id, (row, verdict))
            (heapq.heappush if len(heap) < count else heapq.heappushpop)(heap, entry)
    dropped, kept = (
        _round_robin(
            [
                [judged for *_, judged in sorted(heap, key=lambda entry: -entry[0])]
                for kind, heap in sorted(smallest.items(), key=lambda entry: (-sizes[entry[0]], entry[0]))
                if kind[0] is accepted
            ]
        )
        for accepted in (False, True)
    )
    dropped = dropped[: count // 4]
    shown = [*kept[: count - len(dropped)], *dropped]
    asked = _by_id(questions, {row.question_id for row, _ in shown})
    paths = _by_id(samples, {row.sample_id for row, _ in shown})
    views = [correction_view(asked[row.question_id], paths[row.sample_id], row, verdict) for row, verdict in shown]
    return [{**view, "lines": side_by_side(view["path"], view["solution"])} for view in views]


def _round_robin(groups: list[list[Judged]]) -> list[Judged]:
    """The first of each group, then the second of each, and so on."""
    places = [(place, turn, judged) for turn, own in enumerate(groups) for place, judged in enumerate(own)]
    return [judged for _, _, judged in sorted(places, key=lambda entry: entry[:2])]


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest())


def _by_id(rows: Iterable[Any], ids: set[str]) -> dict[str, Any]:
    return {row.id: row for row in rows if row.id in ids}


def correction_view(question: Question, sample: Sample, row: Correction, verdict: Verdict | None) -> dict[str, Any]:
    """One correction for a reader: steps as (number, text, mark), marks "wrong", "new" or none. `kept` is how many
    steps of the path the solution leaves as they are."""
    at = row.incorrect_step or 0
    lines = (row.solution or "").splitlines()
    left_out = bool(lines) and lines[0] == ELLIPSIS
    steps = enumerate(lines[left_out:], at if left_out else 1)
    return {
        "id": row.id, "question": question.text, "gold": question.gold, "sampler": sample.sampler,
        "path": numbered_steps(sample.text, at),
        "incorrect_step": at, "error_type": row.error_type, "explanation": row.explanation or "",
        "kept": at - 1 if left_out else 0,
        "solution": [(place, step, "new" if place >= at else "") for place, step in steps],
        "accepted": verdict.accepted if verdict else None,
        "drops": [(drop.filter, drop.reason) for drop in verdict.drops] if verdict else [],
    }  # fmt: skip


def numbered_steps(text: str | None, wrong: int | None = None) -> list[Step]:
    """The steps of a path, the incorrect one marked."""
    return [(at, step, "wrong" if at == wrong else "") for at, step in enumerate(split_steps(text or ""), 1)]


def side_by_side(one: Iterable[Step], other: Iterable[Step]) -> list[tuple[int, str, str]]:
    """Two numbered lists of steps as the rows of a table."""
    left, right = ({number: text for number, text, _ in steps} for steps in (one, other))
    return [(at, left.get(at, ""), right.get(at, "")) for at in range(1, max([0, *left, *right]) + 1)]


def contrasts(
    questions: Iterable[Question], answers: Iterable[Answer], lead: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """Test questions that the two models of a comparison answer differently: up to two won and two lost. Of several
    trainings the first one counts."""
    if lead is None:
        return []
    arms = lead["arm"], lead["than"]
    tests = {row.id for row in questions if row.split == "test"}
    right: dict[str, dict[str, bool]] = {arm: {} for arm in arms}
    for row in answers:
        if row.arm in arms and row.kind == "single" and row.question_id in tests:
            right[row.arm].setdefault(row.question_id, row.outcome == "correct")
    ours, theirs = (right[arm] for arm in arms)
    shared = sorted(ours.keys() & theirs.keys(), key=_hash)
    picked = [
        (won, name)
        for won in (True, False)
        for name in [name for name in shared if ours[name] is won and theirs[name] is not won][:2]
    ]
    wanted = {name for _, name in picked}
    texts, found = _by_id(questions, wanted), dict[tuple[str, str], Answer]()
    for row in answers:
        if row.arm in arms and row.kind == "single" and row.question_id in wanted:
            found.setdefault((row.arm, row.question_id), row)
    shown = []
    for won, name in picked:
        both = [found[arm, name] for arm in arms]
        lines = side_by_side(*(numbered_steps(row.text) for row in both))
        question = texts[name]
        shown.append({"won": won, "question": question.text, "gold": question.gold, "answers": both, "lines": lines})
    return shown
