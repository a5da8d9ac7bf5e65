"""The dataset card of an export: what is in it, where it comes from and how to make it again, from the rows alone.

The header is the hub's metadata (https://huggingface.co/docs/hub/datasets-cards): `load_dataset(folder, name)` finds
its files there.
"""

from collections.abc import Mapping
from typing import Any, get_args

import yaml
from markupsafe import Markup

from lema.recipe.training_schema import ExportSpec
from lema.report.counts import Counts
from lema.report.markdown import render_template
from lema.rows import Outcome


def dataset_card(plan: Mapping[str, Any], counts: Counts, sizes: Mapping[str, int], spec: ExportSpec) -> str:
    """The README.md of an export. `plan` is the content of plan.yaml, `sizes` has the number of rows of each file by
    its name without ending."""
    arms = [arm for arm in counts.arms if f"chat/{arm}" in sizes]
    # What `load_dataset` loads without a name: the chats of the first arm with corrections, or of the first arm.
    usual = next((arm for arm in arms if counts.arms[arm]["correction"]), next(iter(arms), None))
    title = spec.title or f"LEMA: {plan['recipe']}"
    configs = [
        {"config_name": config_name(name), "data_files": [{"split": "train", "path": f"{name}.jsonl"}]}
        | ({"default": True} if name == f"chat/{usual}" else {})
        for name in sizes
    ]
    metadata = {
        "pretty_name": title,
        **({"license": spec.license} if spec.license else {}),
        "task_categories": ["text-generation"],
        "tags": ["lema", "mistake-correction", "synthetic"],
        **({"configs": configs} if configs else {}),
    }
    values = {
        "metadata": Markup(yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)),
        "title": title,
        "plan": plan,
        "counts": counts,
        "files": [(config_name(name), name, name.partition("/")[0], count) for name, count in sizes.items()],
        "outcomes": sorted(get_args(Outcome)),
        "spec": spec,
        "usual": usual,
        "ranked": "ranking/full" in sizes,
    }
    return render_template("card.md.j2", values)


def config_name(file: str) -> str:
    """The hub's name of a file: `chat/lema` is `chat-lema`."""
    return file.replace("/", "-")
