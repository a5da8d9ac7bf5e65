"""The dataset card of an export: what is in it, where it comes from and how to make it again, from the rows alone.

The header is the hub's metadata (https://huggingface.co/docs/hub/datasets-cards): `load_dataset(folder, name)` finds
its files there.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import yaml

from lema.recipe.training_schema import ExportSpec
from lema.report.counts import Counts
from lema.report.markdown import escape_markdown, markdown_table
from lema.rows import Outcome

# What the files of each folder are for.
_FILES: Mapping[str, str] = {
    "chat": "chats: `messages`",
    "prompt_completion": "chats cut in two: `prompt` and `completion`",
    "pairs": "preference pairs: `prompt`, `chosen`, `rejected`, and the `prefix` that both begin with",
    "ranking": "the same pairs with single messages: `messages`, `chosen`, `rejected`",
}


def dataset_card(plan: Mapping[str, Any], counts: Counts, sizes: Mapping[str, int], spec: ExportSpec) -> str:
    """The README.md of an export. `plan` is the content of plan.yaml, `sizes` has the number of rows of each file by
    its name without ending."""
    title = spec.title or f"LEMA: {plan['recipe']}"
    sections = [
        _hub_metadata(title, counts, sizes, spec), _introduction(title, plan), _file_table(counts, sizes),
        _sources(spec), _model_table(counts), _count_table(counts), _filter_table(counts), _format_table(plan),
        _reproduction(plan), _usage(counts, sizes),
    ]  # fmt: skip
    return "\n\n".join("\n".join(lines) for section in sections if (lines := list(section))) + "\n"


def _hub_metadata(title: str, counts: Counts, sizes: Mapping[str, int], spec: ExportSpec) -> Iterator[str]:
    first = _default_file(counts, sizes)
    configs: list[dict[str, Any]] = [
        {"config_name": config_name(name), "data_files": [{"split": "train", "path": f"{name}.jsonl"}]}
        | ({"default": True} if name == first else {})
        for name in sizes
    ]
    facts = {
        "pretty_name": title,
        **({"license": spec.license} if spec.license else {}),
        "task_categories": ["text-generation"],
        "tags": ["lema", "mistake-correction", "synthetic"],
        **({"configs": configs} if configs else {}),
    }
    yield f"---\n{yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)}---"


def config_name(file: str) -> str:
    """The hub's name of a file: `chat/lema` is `chat-lema`."""
    return file.replace("/", "-")


def _default_file(counts: Counts, sizes: Mapping[str, int]) -> str | None:
    """The chats of the first arm with corrections, or of the first arm."""
    arms = [arm for arm in counts.arms if f"chat/{arm}" in sizes]
    corrected = [arm for arm in arms if counts.arms[arm]["correction"]]
    return next((f"chat/{arm}" for arm in [*corrected, *arms]), None)


def _introduction(title: str, plan: Mapping[str, Any]) -> Iterator[str]:
    yield f"# {escape_markdown(title)}\n"
    if plan.get("description"):
        yield f"{escape_markdown(plan['description'])}.\n"
    yield (
        "Wrong solutions of language models with corrections: which step is incorrect, why, and the solution from that "
        "step on, mixed with right solutions as the arms of a comparison. The method is LEMA (arXiv 2310.20689). "
        "Solutions and corrections were written by the models below. The filters below judged every correction; one "
        "that passed can still name the wrong step or explain it badly."
    )


def _file_table(counts: Counts, sizes: Mapping[str, int]) -> Iterator[str]:
    yield "## Files\n"
    yield from markdown_table(
        ("configuration", "file", "rows", "holds"),
        [
            (config_name(name), f"{name}.jsonl", count, _FILES[name.partition("/")[0]].replace("`", ""))
            for name, count in sizes.items()
        ],
    )
    yield "\nTrain on one arm at a time: arms share rows. `source_id` names the question, path or correction of a row."
    if any(kinds["masked"] for kinds in counts.arms.values()):
        yield "Some rows were made to be trained without loss on their incorrect step; these files do not say where."


def _sources(spec: ExportSpec) -> Iterator[str]:
    yield "## Sources and licences\n"
    if spec.sources:
        lines = [(one.name, one.license, one.url or "–") for one in spec.sources]
        yield from markdown_table(("source", "licence", "where"), lines)
        yield ""
    else:
        yield "The recipe states no source."
    yield (
        f"Licence of this dataset: {escape_markdown(spec.license)}."
        if spec.license
        else "It states no licence for the whole."
    )


def _model_table(counts: Counts) -> Iterator[str]:
    yield "## Models\n"
    yield from markdown_table(
        ("role", "model", "SHA-256 of its prompt", "replies", "tokens written"),
        [
            (one.role, one.model, one.prompt or "–", _or_dash(one.replies), _or_dash(one.completion_tokens))
            for one in counts.asked
        ],
    )


def _or_dash(count: int | None) -> int | str:
    return "–" if count is None else count


def _count_table(counts: Counts) -> Iterator[str]:
    outcomes = [(outcome, counts.total(outcome)) for outcome in sorted(get_args(Outcome))]
    words = (("cot", "chain of thought"), ("correction", "corrections"))
    lines: list[tuple[str, int]] = [
        ("training questions", counts.questions),
        ("paths", counts.total("paths")),
        *((f"paths that are {outcome}", count) for outcome, count in outcomes if count),
        ("corrections asked for", counts.corrections),
        ("corrections that could be read", counts.parsed),
        ("corrections accepted", counts.filters.accepted),
    ]
    for arm, kinds in counts.arms.items():
        lines += [(f"rows of {arm}: {word}", kinds[kind]) for kind, word in words if kinds[kind]]
    yield "## Counts\n"
    yield from markdown_table(("what", "count"), lines)


def _filter_table(counts: Counts) -> Iterator[str]:
    filters = counts.filters
    yield "## Filters\n"
    lines = [
        (name, json.dumps(options) if options else "–", filters.both[name, name], filters.first[name])
        for name, options in filters.options.items()
    ]
    if lines:
        yield from markdown_table(("filter", "options", "corrections dropped", "first to drop"), lines)
    else:
        yield "None: every correction was accepted."
    if filters.unchecked:
        yield "\nContamination is off: nobody checked whether corrections hold questions of the test set."


def _format_table(plan: Mapping[str, Any]) -> Iterator[str]:
    lines = [(arm, kind, digest) for arm, own in plan["mix"].items() for kind, digest in own["formats"].items()]
    yield "## Formats\n"
    yield from markdown_table(("arm", "rows", "SHA-256 of the format"), lines)


def _reproduction(plan: Mapping[str, Any]) -> Iterator[str]:
    name = plan["recipe"]
    yield "## Make it again\n"
    yield f"With lema, in a project that has the recipe `{name}` and its completions:\n"
    yield f"```sh\nlema repro export@{name}\n```\n"
    yield f"Equal recipe, code and completions make equal bytes. Code: export `{plan['export']['code']}`."


def _usage(counts: Counts, sizes: Mapping[str, int]) -> Iterator[str]:
    first = _default_file(counts, sizes)
    yield "## Use it\n"
    if first is None:
        yield "There is nothing to load yet."
        return
    arm = first.partition("/")[2]
    yield "```python\nfrom datasets import load_dataset\n"
    yield f'chats = load_dataset("path/to/this/folder", "{config_name(first)}", split="train")\n```\n'
    yield (
        f"TRL: `SFTTrainer` takes `{config_name(first)}`, or `prompt_completion-{arm}` for the loss on completions "
        "alone; `DPOTrainer` takes `pairs-full` and `pairs-step`. LLaMA-Factory: give this folder as `dataset_dir`; "
        "the names are in `dataset_info.json`. Axolotl:\n"
    )
    yield f"```yaml\ndatasets:\n  - path: {first}.jsonl\n    ds_type: json\n    type: chat_template"
    yield "    field_messages: messages\n    roles_to_train: [assistant]\n```"
    if "ranking/full" in sizes:
        yield "\n```yaml\nrl: dpo\ndatasets:\n  - path: ranking/full.jsonl\n    ds_type: json\n    split: train"
        yield "    type: chat_template.default\n    field_messages: messages\n    field_chosen: chosen"
        yield "    field_rejected: rejected\n```"
