"""`export`: the dataset of a recipe as files that other trainers and the hub read, with a card.

Each arm is there as chats and as prompt and completion, and the accepted corrections as preference pairs: the corrected
solution over the wrong path, and the first corrected step over the incorrect step (Step-DPO, arXiv 2406.18629). A
Step-DPO pair begins alike in `chosen` and `rejected`, with the `prefix` of kept steps: in DPO's loss what is the same
in both cancels out, and so a chat template needs to know of no turn that is half finished. Pairs are no training data
of an arm, which learns from completions alone.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, get_args

from lema.recipe.basic_types import Prompt
from lema.recipe.prompt import render
from lema.recipe.training_schema import ExportSpec
from lema.report.card import config_name, dataset_card
from lema.report.counts import count_rows
from lema.rows import Correction, Example, Grade, Location, Message, Question, Sample, Verdict
from lema.text.joins import SortedLookup, accepted
from lema.text.render import expand_correction, render_solution, split_last_step
from lema.text.steps import split_steps

Kind = Literal["full", "step"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two completions of one prompt, the better one `chosen`; `source_id` is the correction. Both begin with
    `prefix`, the steps that are kept: empty in a pair of whole solutions."""

    source_id: str
    prompt: tuple[Message, ...]
    prefix: str
    chosen: str
    rejected: str


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
        sizes[f"chat/{arm}"] = _write_lines(folder / f"chat/{arm}.jsonl", map(_chat, examples))
        lines = map(_prompt_completion, examples)
        sizes[f"prompt_completion/{arm}"] = _write_lines(folder / f"prompt_completion/{arm}.jsonl", lines)
    for kind in KINDS:
        for layout, convert in (("pairs", _preference), ("ranking", _ranking)):
            found = pairs(questions, samples, grades, accepted(corrections, verdicts), cot, kind)
            sizes[f"{layout}/{kind}"] = _write_lines(folder / f"{layout}/{kind}.jsonl", map(convert, found))
    sizes = {name: size for name, size in sizes.items() if size}
    index = json.dumps(llama_factory(sizes), indent=2) + "\n"
    (folder / "dataset_info.json").write_text(index, encoding="utf-8")
    counts = count_rows(plan, questions, samples, grades, locations, corrections, verdicts, mix)
    (folder / "README.md").write_text(dataset_card(plan, counts, sizes, spec), encoding="utf-8")


def pairs(
    questions: Iterable[Question],
    samples: Iterable[Sample],
    grades: Iterable[Grade],
    corrections: Iterable[Correction],
    cot: Prompt,
    kind: Kind,
) -> Iterator[Pair]:
    """Preference pairs of accepted corrections, each once, in a CoT format. There is none of a step where the corrector
    named no incorrect step or did not keep the steps before it, or where both texts are the same."""
    asked, paths, graded = SortedLookup(questions), SortedLookup(samples), SortedLookup(grades)
    for question_id, rows in groupby(corrections, key=lambda row: row.question_id):
        question, seen = asked[question_id], set[tuple[str, str]]()
        prompt = render(cot, {"question": question.text})
        for row in rows:
            sample, wrong = paths[row.sample_id], graded[row.sample_id].answer or ""
            path, solution, at = split_steps(sample.text), expand_correction(row, sample), row.incorrect_step
            if kind == "full":
                texts = (
                    "",
                    render_solution(cot, question, solution, question.gold),
                    render_solution(cot, question, path, wrong),
                )
            elif at and path[: at - 1] == solution[: at - 1] and len(path) >= at <= len(solution):
                prefix, step = split_last_step(cot, question, solution[:at], question.gold)
                texts = prefix, prefix + step, prefix + split_last_step(cot, question, path[:at], wrong)[1]
            else:
                continue
            if texts[1] != texts[2] and texts[1:] not in seen:
                seen.add(texts[1:])
                yield Pair(row.id, prompt, *texts)


def llama_factory(files: Iterable[str]) -> dict[str, Any]:
    """LLaMA-Factory's dataset_info.json: chats and ranked chats, in the roles of OpenAI's format
    (https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md)."""
    tags = {
        "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
        "system_tag": "system",
    }  # fmt: skip
    found = {}
    for name in files:
        kind = name.partition("/")[0]
        about = {"file_name": f"{name}.jsonl", "formatting": "sharegpt", "columns": {"messages": "messages"}}
        if kind == "ranking":
            ranked = {"messages": "messages", "chosen": "chosen", "rejected": "rejected"}
            found[config_name(name)] = {**about, "ranking": True, "columns": ranked, "tags": tags}
        elif kind == "chat":
            found[config_name(name)] = {**about, "tags": tags}
    return found


def _chat(row: Example) -> dict[str, Any]:
    return {**_source(row), "messages": [*_turns(row.prompt), *_reply(row.completion)]}


def _prompt_completion(row: Example) -> dict[str, Any]:
    return {**_source(row), "prompt": _turns(row.prompt), "completion": _reply(row.completion)}


def _source(row: Example) -> dict[str, Any]:
    return {"id": row.id, "kind": row.kind, "source_id": row.source_id}


def _preference(row: Pair) -> dict[str, Any]:
    texts = {"chosen": _reply(row.chosen), "rejected": _reply(row.rejected)}
    return {"source_id": row.source_id, "prompt": _turns(row.prompt), "prefix": row.prefix, **texts}


def _ranking(row: Pair) -> dict[str, Any]:
    (chosen,), (rejected,) = _reply(row.chosen), _reply(row.rejected)
    return {"source_id": row.source_id, "messages": _turns(row.prompt), "chosen": chosen, "rejected": rejected}


def _turns(messages: Iterable[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _reply(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Rows as JSON Lines, and their number; no file where there are none."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if (first := next(lines, None)) is None:
        return 0
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(first)
        return 1 + sum(1 for line in lines if file.write(line))
