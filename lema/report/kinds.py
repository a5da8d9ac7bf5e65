"""Mistakes and their corrections by sampler and by kind of question (LEMA, figure 10 and appendix D.6)."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lema.rows import Correction, Grade, Question, Verdict


def kinds(
    questions: Sequence[Question],
    grades: Sequence[Grade],
    corrections: Sequence[Correction],
    verdicts: Sequence[Verdict],
) -> list[dict[str, Any]]:
    """One table by sampler and one a stratum: rows of (value, wrong paths, corrections, accepted ones). Samplers come
    in the order of their paths, values of a stratum sorted."""
    strata = {row.id: {one.name: one.value for one in row.strata} for row in questions}
    sampled = {row.id: {"sampler": row.sampler, **strata[row.question_id]} for row in grades}
    counts: Counter[tuple[str, str, str]] = Counter()
    _count(counts, "wrong", (sampled[row.id] for row in grades if row.outcome == "incorrect"))
    _count(counts, "corrections", (sampled[row.sample_id] for row in corrections))
    _count(counts, "accepted", (sampled[row.sample_id] for row in verdicts if row.accepted))
    values: dict[str, dict[str, None]] = {}
    for of in sampled.values():
        for name, value in of.items():
            values.setdefault(name, {})[value] = None
    figures = ("wrong", "corrections", "accepted")
    return [
        {
            "name": name,
            "rows": [
                (value, *(counts[name, value, figure] for figure in figures))
                for value in (own if name == "sampler" else sorted(own))
            ],
        }
        for name, own in values.items()
    ]


def _count(counts: Counter[tuple[str, str, str]], figure: str, rows: Iterable[Mapping[str, str]]) -> None:
    counts.update((name, value, figure) for row in rows for name, value in row.items())
