"""Who was asked with which prompt, for those who tell readers of it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lema.report.filter_names import judging
from lema.rows import Correction, Evolved, Location, Sample, Verdict


class Asked(NamedTuple):
    """One model in one role with one prompt, by its SHA-256, empty where there was none. Replies and tokens are None
    where rows do not say: those of a judge stand in the completion store alone."""

    role: str
    model: str
    prompt: str
    replies: int | None
    prompt_tokens: int | None
    completion_tokens: int | None


def asked(
    samples: Iterable[Sample],
    locations: Iterable[Location],
    corrections: Iterable[Correction],
    verdicts: Sequence[Verdict],
    plan: Mapping[str, Any],
    evolved: Iterable[Evolved] = (),
) -> list[Asked]:
    """Everyone who was asked; judges, whom the plan alone names, come last. A mistake that was injected was located
    by nobody. The tokens of a new question are those of its writer and its solver together."""
    rows: list[tuple[str, str, int, Sample | Location | Correction | Evolved]] = [
        *((f"sampler {row.sampler}", row.model, 1, row) for row in samples),
        *(("locator", row.model, 1, row) for row in locations if row.model != "injected"),
        *(("corrector", row.model, 1, row) for row in corrections),
        *(("evolver", _pair(row), 1 + len(row.completions), row) for row in evolved),
    ]
    sums: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for role, model, replies, row in rows:
        counts = sums[role, model, row.prompt]
        for at, count in enumerate((replies, row.prompt_tokens, row.completion_tokens)):
            counts[at] += count
    judges = [
        Asked(f"filter {name}", options["model"], options.get("prompt", ""), None, None, None)
        for name, options in judging(verdicts, plan).items()
        if "model" in options
    ]
    return [*(Asked(*who, *counts) for who, counts in sums.items()), *judges]


def _pair(row: Evolved) -> str:
    return row.model if row.solver == row.model else f"{row.model}, solved by {row.solver}"


def counted(count: int | None) -> int | str:
    """A count for a table."""
    return "–" if count is None else count
