"""`export`: the dataset of a recipe as files that other trainers and the hub read, with a card.

Each arm is there as chats and as prompt and completion, and the accepted corrections as preference pairs
(`lema.text.preference_pairs`). Pairs are no training data of an arm, which learns from completions alone.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lema.recipe.basic_types import Prompt
from lema.recipe.training_schema import ExportSpec
from lema.report.card import dataset_card
from lema.report.counts import count_rows
from lema.report.export_formats import (
    chat_line,
    llama_factory,
    preference_line,
    prompt_completion_line,
    ranking_line,
)
from lema.rows import Correction, Example, Grade, Location, Question, Sample, Verdict
from lema.text.joins import accepted
from lema.text.preference_pairs import PAIR_KINDS, preference_pairs


def export(
    plan: Mapping[str, Any],
    questions: Iterable[Question],
    samples: Iterable[Sample],
    grades: Iterable[Grade],
    locations: Iterable[Location],
    corrections: Iterable[Correction],
    verdicts: Iterable[Verdict],
    mix: Mapping[str, Iterable[Example]],
    *,
    spec: ExportSpec,
    cot: Prompt,
    folder: Path,
) -> None:
    """Write the files into an existing folder; a file without rows is left out, since nothing could load it.

    `plan` is the content of plan.yaml, `mix` is by arm, `cot` the format in which solutions of pairs are written.
    """
    sizes: dict[str, int] = {}
    for arm, examples in mix.items():
        sizes[f"chat/{arm}"] = _write_lines(folder / f"chat/{arm}.jsonl", map(chat_line, examples))
        lines = map(prompt_completion_line, examples)
        sizes[f"prompt_completion/{arm}"] = _write_lines(folder / f"prompt_completion/{arm}.jsonl", lines)
    for kind in PAIR_KINDS:
        for layout, convert in (("pairs", preference_line), ("ranking", ranking_line)):
            found = preference_pairs(questions, samples, grades, accepted(corrections, verdicts), cot, kind)
            sizes[f"{layout}/{kind}"] = _write_lines(folder / f"{layout}/{kind}.jsonl", map(convert, found))
    sizes = {name: size for name, size in sizes.items() if size}
    index = json.dumps(llama_factory(sizes), indent=2) + "\n"
    (folder / "dataset_info.json").write_text(index, encoding="utf-8")
    counts = count_rows(plan, questions, samples, grades, locations, corrections, verdicts, mix)
    (folder / "README.md").write_text(dataset_card(plan, counts, sizes, spec), encoding="utf-8")


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Rows as JSON Lines, and their number; no file where there are none."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if (first := next(lines, None)) is None:
        return 0
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(first)
        return 1 + sum(1 for line in lines if file.write(line))
