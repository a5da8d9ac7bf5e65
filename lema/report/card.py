"""The dataset card of an export: what is in it, where it comes from and how to make it again, from the rows alone.

The header is the hub's metadata (https://huggingface.co/docs/hub/datasets-cards): `load_dataset(folder, name)` finds
its files there.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import yaml

from lema.recipe.training_schema import ExportSpec
from lema.report.asked import asked, counted
from lema.report.filter_names import judging, unchecked
from lema.report.markdown import escaped, table
from lema.rows import Correction, Example, Grade, Location, Question, Sample, Verdict

# What the files of each folder are for.
_FILES: Mapping[str, str] = {
    "chat": "chats: `messages`",
    "prompt_completion": "chats cut in two: `prompt` and `completion`",
    "pairs": "preference pairs: `prompt`, `chosen`, `rejected`, and the `prefix` that both begin with",
    "ranking": "the same pairs with single messages: `messages`, `chosen`, `rejected`",
}

_KINDS: tuple[tuple[Literal["cot", "correction"], str], ...] = (
    ("cot", "chain of thought"),
    ("correction", "corrections"),
)


class Dataset(NamedTuple):
    """What a card is about; `mix` is by arm, `sizes` says how many rows each file has, by its name without ending."""

    plan: Mapping[str, Any]
    questions: Sequence[Question]
    samples: Sequence[Sample]
    grades: Sequence[Grade]
    locations: Sequence[Location]
    corrections: Sequence[Correction]
    verdicts: Sequence[Verdict]
    mix: Mapping[str, Sequence[Example]]
    sizes: Mapping[str, int]


def card(rows: Dataset, spec: ExportSpec) -> str:
    """The README.md of the folder."""
    sections = [
        _header(rows, spec), _opening(rows, spec), _contents(rows), _origins(spec), _models(rows), _counts(rows),
        _filters(rows), _prompts(rows), _again(rows), _use(rows),
    ]  # fmt: skip
    return "\n\n".join("\n".join(lines) for section in sections if (lines := list(section))) + "\n"


def _header(rows: Dataset, spec: ExportSpec) -> Iterator[str]:
    configs: list[dict[str, Any]] = [
        {"config_name": config(name), "data_files": [{"split": "train", "path": f"{name}.jsonl"}]}
        for name in rows.sizes
    ]
    if (first := _default(rows)) is not None:
        next(one for one in configs if one["config_name"] == config(first))["default"] = True
    facts = {
        "pretty_name": _title(rows, spec),
        **({"license": spec.license} if spec.license else {}),
        "task_categories": ["text-generation"],
        "tags": ["lema", "mistake-correction", "synthetic"],
        **({"configs": configs} if configs else {}),
    }
    yield f"---\n{yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)}---"


def config(name: str) -> str:
    """The hub's name of a file: `chat/lema` is `chat-lema`."""
    return name.replace("/", "-")


def _default(rows: Dataset) -> str | None:
    """The chats of the first arm with corrections, or of the first arm."""
    arms = [arm for arm in rows.mix if f"chat/{arm}" in rows.sizes]
    mended = [arm for arm in arms if any(row.kind == "correction" for row in rows.mix[arm])]
    return next((f"chat/{arm}" for arm in [*mended, *arms]), None)


def _title(rows: Dataset, spec: ExportSpec) -> str:
    return spec.title or f"LEMA: {rows.plan['recipe']}"


def _opening(rows: Dataset, spec: ExportSpec) -> Iterator[str]:
    yield f"# {escaped(_title(rows, spec))}\n"
    if rows.plan.get("description"):
        yield f"{escaped(rows.plan['description'])}.\n"
    yield (
        "Wrong solutions of language models with corrections: which step is incorrect, why, and the solution from that "
        "step on, mixed with right solutions as the arms of a comparison. The method is LEMA (arXiv 2310.20689). "
        "Solutions and corrections were written by the models below. The filters below judged every correction; one "
        "that passed can still name the wrong step or explain it badly."
    )


def _contents(rows: Dataset) -> Iterator[str]:
    yield "## Files\n"
    parts = ((name, name.partition("/")[0]) for name in rows.sizes)
    yield from table(
        ("configuration", "file", "rows", "holds"),
        [(config(name), f"{name}.jsonl", rows.sizes[name], _FILES[kind].replace("`", "")) for name, kind in parts],
    )
    yield "\nTrain on one arm at a time: arms share rows. `source_id` names the question, path or correction of a row."
    if any(row.masked for examples in rows.mix.values() for row in examples):
        yield "Some rows were made to be trained without loss on their incorrect step; these files do not say where."


def _origins(spec: ExportSpec) -> Iterator[str]:
    yield "## Sources and licences\n"
    if spec.sources:
        lines = [(one.name, one.license, one.url or "–") for one in spec.sources]
        yield from table(("source", "licence", "where"), lines)
        yield ""
    else:
        yield "The recipe states no source."
    yield (
        f"Licence of this dataset: {escaped(spec.license)}." if spec.license else "It states no licence for the whole."
    )


def _models(rows: Dataset) -> Iterator[str]:
    found = asked(rows.samples, rows.locations, rows.corrections, rows.verdicts, rows.plan)
    yield "## Models\n"
    yield from table(
        ("role", "model", "SHA-256 of its prompt", "replies", "tokens written"),
        [
            (one.role, one.model, one.prompt or "–", counted(one.replies), counted(one.completion_tokens))
            for one in found
        ],
    )


def _counts(rows: Dataset) -> Iterator[str]:
    outcomes = Counter(row.outcome for row in rows.grades)
    lines: list[tuple[str, int]] = [
        ("training questions", sum(row.split == "train" for row in rows.questions)),
        ("paths", len(rows.samples)),
        *((f"paths that are {outcome}", count) for outcome, count in sorted(outcomes.items())),
        ("corrections asked for", len(rows.corrections)),
        ("corrections that could be read", sum(row.status == "parsed" for row in rows.corrections)),
        ("corrections accepted", sum(row.accepted for row in rows.verdicts)),
    ]
    for arm, examples in rows.mix.items():
        kinds = Counter(row.kind for row in examples)
        lines += [(f"rows of {arm}: {word}", kinds[kind]) for kind, word in _KINDS if kinds[kind]]
    yield "## Counts\n"
    yield from table(("what", "count"), lines)


def _filters(rows: Dataset) -> Iterator[str]:
    used = judging(rows.verdicts, rows.plan)
    dropped = Counter(drop.filter for row in rows.verdicts for drop in row.drops)
    first = Counter(row.dropped_by for row in rows.verdicts)
    yield "## Filters\n"
    lines = [(name, json.dumps(own) if own else "–", dropped[name], first[name]) for name, own in used.items()]
    if lines:
        yield from table(("filter", "options", "corrections dropped", "first to drop"), lines)
    else:
        yield "None: every correction was accepted."
    if unchecked(rows.plan):
        yield "\nContamination is off: nobody checked whether corrections hold questions of the test set."


def _prompts(rows: Dataset) -> Iterator[str]:
    arms = rows.plan["mix"]
    lines = [(arm, kind, digest) for arm in arms for kind, digest in arms[arm]["formats"].items()]
    yield "## Formats\n"
    yield from table(("arm", "rows", "SHA-256 of the format"), lines)


def _again(rows: Dataset) -> Iterator[str]:
    name = rows.plan["recipe"]
    yield "## Make it again\n"
    yield f"With lema, in a project that has the recipe `{name}` and its completions:\n"
    yield f"```sh\nlema repro export@{name}\n```\n"
    yield f"Equal recipe, code and completions make equal bytes. Code: export `{rows.plan['export']['code']}`."


def _use(rows: Dataset) -> Iterator[str]:
    first = _default(rows)
    yield "## Use it\n"
    if first is None:
        yield "There is nothing to load yet."
        return
    arm = first.partition("/")[2]
    yield "```python\nfrom datasets import load_dataset\n"
    yield f'chats = load_dataset("path/to/this/folder", "{config(first)}", split="train")\n```\n'
    yield (
        f"TRL: `SFTTrainer` takes `{config(first)}`, or `prompt_completion-{arm}` for the loss on completions alone; "
        "`DPOTrainer` takes `pairs-full` and `pairs-step`. LLaMA-Factory: give this folder as `dataset_dir`; the names "
        "are in `dataset_info.json`. Axolotl:\n"
    )
    yield f"```yaml\ndatasets:\n  - path: {first}.jsonl\n    ds_type: json\n    type: chat_template"
    yield "    field_messages: messages\n    roles_to_train: [assistant]\n```"
    if "ranking/full" in rows.sizes:
        yield "\n```yaml\nrl: dpo\ndatasets:\n  - path: ranking/full.jsonl\n    ds_type: json\n    split: train"
        yield "    type: chat_template.default\n    field_messages: messages\n    field_chosen: chosen"
        yield "    field_rejected: rejected\n```"
