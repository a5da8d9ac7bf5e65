"""Arms of a recipe of docs/study.md, each against one of them: on all test questions, on those that need one of some
operations, and on the others.

    python benchmarks/study.py laptop-study-factors cot-tokens '*'

It reads what `lema repro` has made, and prints a table: per cent right and differences in points. Intervals and p are
those of `lema.stages.scores`; p is corrected for the arms that are compared (Holm), in each column by itself.
"""

import sys
from collections.abc import Mapping, Sequence

import numpy as np

from lema.compute import parquet
from lema.compute.artifacts import artifact_path
from lema.errors import RunError
from lema.report.statistics import difference, holm
from lema.rows import Answer, Question

CONFIDENCE = 0.95


def compared(recipe: str, control: str, operations: str) -> str:
    """The table in Markdown, an arm a line, in the order of the answers.

    Raises SystemExit when there are no answers of `control`.
    """
    questions = [row for row in parquet.read_rows(artifact_path("questions", recipe), Question) if row.split == "test"]
    answers = [row for row in parquet.read_rows(artifact_path("answers", recipe), Answer) if row.kind == "single"]
    needing = {row.id for row in questions if any(sign in (row.rationale or "") for sign in operations)}
    kinds = {
        "all": sorted(row.id for row in questions),
        f"with {operations}": sorted(needing),
        "others": sorted({row.id for row in questions} - needing),
    }
    arms = [arm for arm in dict.fromkeys(row.arm for row in answers) if arm not in ("base", control)]
    columns = {kind: _column(answers, arms, control, names) for kind, names in kinds.items() if names}
    head = "| | " + " | ".join(f"{kind} ({len(kinds[kind])}) | minus `{control}`" for kind in columns) + " |"
    lines = [head, "|---" * (1 + 2 * len(columns)) + "|"]
    for arm in ("base", control, *arms):
        lines.append(f"| `{arm}` | " + " | ".join(column[arm] for column in columns.values()) + " |")
    return "\n".join(lines)


def _column(answers: Sequence[Answer], arms: Sequence[str], control: str, names: Sequence[str]) -> Mapping[str, str]:
    """Two cells an arm: right on the named questions, and the difference to the control."""
    right = {arm: _right(answers, arm, names) for arm in ("base", control, *arms)}
    found = {arm: difference(right[arm], right[control]) for arm in arms}
    ps = holm({arm: estimate.p() for arm, estimate in found.items()})
    cells = {arm: f"{100 * right[arm].mean():.1f} | " for arm in ("base", control)}
    for arm, estimate in found.items():
        low, high = estimate.interval(CONFIDENCE)
        said = f"{100 * estimate.value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}), {_p(ps[arm])}"
        cells[arm] = f"{100 * right[arm].mean():.1f} | {said}"
    return cells


def _p(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def _right(answers: Sequence[Answer], arm: str, names: Sequence[str]) -> np.ndarray:
    """Which answers are right, (questions, seeds)."""
    own = {(row.question_id, row.seed): row.outcome == "correct" for row in answers if row.arm == arm}
    seeds = sorted({seed for _, seed in own}, key=lambda seed: seed or 0)
    if not own:
        sys.exit(f"no answers of {arm!r}")
    return np.array([[float(own[name, seed]) for seed in seeds] for name in names])


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(f"{(__doc__ or '').strip()}")
    try:
        print(compared(*sys.argv[1:]))
    except RunError as error:
        sys.exit(str(error))
