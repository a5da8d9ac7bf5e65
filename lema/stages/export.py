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
from lema.report.card import config_name, dataset_card
from lema.report.counts import count_rows
from lema.rows import Correction, Example, Grade, Location, Message, Question, Sample, Verdict
from lema.text.joins import accepted
from lema.text.preference_pairs import PAIR_KINDS, Pair, preference_pairs


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

    def write(name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        if count := _write_lines(folder / f"{name}.jsonl", rows):
            sizes[name] = count

    for arm, examples in mix.items():
        write(f"chat/{arm}", map(_chat, examples))
        write(f"prompt_completion/{arm}", map(_prompt_completion, examples))
    for kind in PAIR_KINDS:
        for layout, convert in (("pairs", _preference), ("ranking", _ranking)):
            found = preference_pairs(questions, samples, grades, accepted(corrections, verdicts), cot, kind)
            write(f"{layout}/{kind}", map(convert, found))
    index = json.dumps(_dataset_info(sizes), indent=2) + "\n"
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


def _dataset_info(files: Iterable[str]) -> dict[str, Any]:
    """LLaMA-Factory's dataset_info.json: chats and ranked chats, in the roles of OpenAI's format
    (https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md)."""
    roles = {f"{role}_tag": role for role in ("user", "assistant", "system")}
    tags = {"role_tag": "role", "content_tag": "content", **roles}
    columns: dict[str, dict[str, Any]] = {
        "chat": {"columns": {"messages": "messages"}},
        "ranking": {"columns": {name: name for name in ("messages", "chosen", "rejected")}, "ranking": True},
    }
    return {
        config_name(name): {"file_name": f"{name}.jsonl", "formatting": "sharegpt", **columns[kind], "tags": tags}
        for name in files
        if (kind := name.partition("/")[0]) in columns
    }


def _chat(row: Example) -> dict[str, Any]:
    turns = [*_turns(row.prompt), _assistant(row.completion)]
    return {"id": row.id, "kind": row.kind, "source_id": row.source_id, "messages": turns}


def _prompt_completion(row: Example) -> dict[str, Any]:
    sides = {"prompt": _turns(row.prompt), "completion": [_assistant(row.completion)]}
    return {"id": row.id, "kind": row.kind, "source_id": row.source_id, **sides}


def _preference(row: Pair) -> dict[str, Any]:
    texts = {"chosen": [_assistant(row.chosen)], "rejected": [_assistant(row.rejected)]}
    return {"source_id": row.source_id, "prompt": _turns(row.prompt), "prefix": row.prefix, **texts}


def _ranking(row: Pair) -> dict[str, Any]:
    texts = {"chosen": _assistant(row.chosen), "rejected": _assistant(row.rejected)}
    return {"source_id": row.source_id, "messages": _turns(row.prompt), **texts}


def _turns(messages: Iterable[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
