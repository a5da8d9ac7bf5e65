"""Two arms of a recipe of docs/study.md, compared on the test questions of one kind: those that need an operation, and
those that do not.

    python benchmarks/study.py laptop-study-fresh corrected cot-tokens '*'

It reads what `lema repro` has made. Figures are per cent; intervals and p are those of `lema.stages.scores`, without
correction for several comparisons.
"""

import sys
from collections.abc import Sequence

import numpy as np

from lema.artifacts import place
from lema.engine import parquet
from lema.rows import Answer, Question
from lema.stages._statistics import difference

CONFIDENCE = 0.95


def compared(recipe: str, arms: Sequence[str], operation: str) -> None:
    """Print accuracies and their difference, the first arm's less the second's."""
    questions = [row for row in parquet.read(place("questions", recipe), Question) if row.split == "test"]
    answers = [row for row in parquet.read(place("answers", recipe), Answer) if row.kind == "single"]
    for needs in (True, False):
        names = sorted(row.id for row in questions if (operation in (row.rationale or "")) == needs)
        right, others = (_right(answers, arm, names) for arm in arms)
        found = difference(right, others)
        low, high = found.interval(CONFIDENCE)
        print(
            f"{'with' if needs else 'without'} {operation}, {len(names)} questions: "
            f"{arms[0]} {right.mean():.1%}, {arms[1]} {others.mean():.1%}, "
            f"difference {100 * found.value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}), p {found.p():.4f}"
        )


def _right(answers: Sequence[Answer], arm: str, names: Sequence[str]) -> np.ndarray:
    """Which answers are right, (questions, seeds)."""
    own = {(row.question_id, row.seed): row.outcome == "correct" for row in answers if row.arm == arm}
    seeds = sorted({seed for _, seed in own}, key=lambda seed: seed or 0)
    if not own:
        sys.exit(f"no answers of {arm!r}")
    return np.array([[float(own[name, seed]) for seed in seeds] for name in names])


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(f"{(__doc__ or '').strip()}")
    compared(sys.argv[1], sys.argv[2:4], sys.argv[4])
