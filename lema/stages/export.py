"""`export`: the dataset of a recipe as files that other trainers and the hub read, with a card.

Each arm is there as chats and as prompt and completion, and the accepted corrections as preference pairs: the corrected
solution over the wrong path, and the first corrected step over the incorrect step (Step-DPO, arXiv 2406.18629). A
Step-DPO pair begins alike in `chosen` and `rejected`, with the `prefix` of kept steps: in DPO's loss what is the same
in both cancels out, and so a chat template needs to know of no turn that is half finished. Pairs are no training data
of an arm, which learns from completions alone.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from lema.recipe.basic_types import Prompt
from lema.recipe.prompt import render
from lema.recipe.training_schema import ExportSpec
from lema.report.card import Dataset, card, config
from lema.rows import Correction, Example, Grade, Location, Message, Question, Sample, Verdict
from lema.text.render import accepted, begun, full, solved
from lema.text.steps import split

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
    questions: Sequence[Question],
    samples: Sequence[Sample],
    grades: Sequence[Grade],
    locations: Sequence[Location],
    corrections: Sequence[Correction],
    verdicts: Sequence[Verdict],
    mix: Mapping[str, Sequence[Example]],
    *,
    spec: ExportSpec,
    cot: Prompt,
    folder: Path,
) -> None:
    """Write the files into an existing folder; a file without rows is left out, since nothing could load it.

    `plan` is the content of plan.yaml, `mix` is by arm, `cot` the format in which solutions of pairs are written.
    """
    files: dict[str, list[dict[str, Any]]] = {}
    for arm, examples in mix.items():
        files[f"chat/{arm}"] = [_chat(row) for row in examples]
        files[f"prompt_completion/{arm}"] = [_completion(row) for row in examples]
    for kind in KINDS:
        found = list(pairs(questions, samples, grades, accepted(corrections, verdicts), cot, kind))
        files[f"pairs/{kind}"] = [_preference(row) for row in found]
        files[f"ranking/{kind}"] = [_ranking(row) for row in found]
    files = {name: rows for name, rows in files.items() if rows}
    for name, rows in files.items():
        _write(folder / f"{name}.jsonl", rows)
    _write(folder / "dataset_info.json", llama_factory(files))
    sizes = {name: len(rows) for name, rows in files.items()}
    about = Dataset(plan, questions, samples, grades, locations, corrections, verdicts, mix, sizes)
    (folder / "README.md").write_text(card(about, spec), encoding="utf-8")


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
    asked = {row.id: row for row in questions}
    paths = {row.id: row for row in samples}
    answers = {row.id: row.answer for row in grades}
    seen = set[tuple[str, str, str]]()
    for row in corrections:
        question, sample = asked[row.question_id], paths[row.sample_id]
        path, solution, at = split(sample.text), full(row, sample), row.incorrect_step
        prompt = render(cot, {"question": question.text})
        wrong = answers[sample.id] or ""
        if kind == "full":
            texts = "", solved(cot, question, solution, question.gold), solved(cot, question, path, wrong)
        elif at and path[: at - 1] == solution[: at - 1] and len(path) >= at <= len(solution):
            prefix, step = begun(cot, question, solution[:at], question.gold)
            texts = prefix, prefix + step, prefix + begun(cot, question, path[:at], wrong)[1]
        else:
            continue
        if texts[1] != texts[2] and (question.id, *texts[1:]) not in seen:
            seen.add((question.id, *texts[1:]))
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
            found[config(name)] = {**about, "ranking": True, "columns": ranked, "tags": tags}
        elif kind == "chat":
            found[config(name)] = {**about, "tags": tags}
    return found


def _chat(row: Example) -> dict[str, Any]:
    return {**_source(row), "messages": [*_turns(row.prompt), *_reply(row.completion)]}


def _completion(row: Example) -> dict[str, Any]:
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


def _write(path: Path, content: Any) -> None:
    """JSON Lines of a list, JSON of a mapping."""
    path.parent.mkdir(exist_ok=True)
    if isinstance(content, list):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
    else:
        text = json.dumps(content, indent=2) + "\n"
    path.write_text(text, encoding="utf-8")
