"""The plan of a recipe: for every artifact, all that decides its bytes and stands in no file that it reads.

Each artifact has a key of its own, and its DVC stage depends on that key alone, so that one edit reruns what it
concerns. A key holds the settings with defaults, prompts as the SHA-256 of their templates, the models and the task
that are used, and `code`, the fingerprint of the stage and of its parts. A prompt's text never stands in a plan:
dvc.lock repeats it.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from lema.pipeline.fingerprint import OWN, fingerprint
from lema.recipe.basic_types import Prompt
from lema.recipe.load import Loaded
from lema.recipe.part_loader import Kind, module_name
from lema.recipe.prompt import digest
from lema.recipe.sampler_schema import ModelSampler
from lema.recipe.schema import Recipe
from lema.recipe.training_schema import Arm, MixSpec
from lema.recipe.yaml import reads_as_text

LOCAL = "lema.models.transformers"
TOKENS = "lema.models.tokenize"  # how messages become tokens
# How a base can come about; each is of concern only to the bases that come about so.
MAKERS = {"embedded": "lema.train.embedded", "pretrain": "lema.train.pretrain"}


def make_plan(loaded: Loaded, root: Path) -> dict[str, Any]:
    """Plain values: `recipe` and `description` for readers, then one key an artifact; `mix` has one key an arm."""
    made = {artifact: key() for artifact, key in _keys(loaded, root).items()}
    return {"recipe": loaded.name, "description": loaded.recipe.description or "", **made}


def plan_key(artifact: str, loaded: Loaded, root: Path) -> dict[str, Any]:
    """The key of one artifact; reads only the code that it depends on."""
    return _keys(loaded, root)[artifact]()


def _keys(loaded: Loaded, root: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    """What makes the key of each artifact."""
    recipe = loaded.recipe
    task = _module("tasks", recipe.questions.task)
    tested = sorted({_module("tasks", name) for name in recipe.questions.tasks.values()})
    transfer = {name: one.source for name, one in recipe.questions.transfer.items()}
    sampled = [one.model for one in recipe.samples.samplers.values() if isinstance(one, ModelSampler)]
    corrector = [recipe.corrections.model]
    judges = [part.options["model"] for part in recipe.verdicts.filters if "model" in part.options]
    locator = [recipe.locations.model] if recipe.locations else []
    evolvers = [recipe.evolved.write.model, recipe.evolved.solve.model] if recipe.evolved else []

    def key(artifact: str, *modules: str, without: Iterable[str] = (), **more: Any) -> dict[str, Any]:
        if getattr(recipe, artifact) is None:
            return {}  # an artifact that the recipe does without: nothing changes it
        code = fingerprint([f"lema.stages.{artifact}", *modules], root, without)
        return {**plain(getattr(recipe, artifact)), **more, "code": code}

    source, base = recipe.source, recipe.base
    made = [module for origin, module in MAKERS.items() if getattr(base, origin)]
    others = [module for module in MAKERS.values() if module not in made]
    if base.pretrain:
        made.append(_module("tasks", base.pretrain.task))
    generators = {_module("tasks", one.generator) for one in (source, *transfer.values()) if one.generator}
    graded = {"task": recipe.questions.task}
    probed = {"prompt": digest(recipe.answers.prompt), "format": digest(recipe.mix.cot)}
    # Which paths are right matters only to samplers that begin with those of others, and to those that stop.
    judged = recipe.samples.derived or recipe.samples.want is not None

    def verdicts() -> dict[str, Any]:
        return key(
            "verdicts",
            task,
            *(_module("filters", part.use) for part in recipe.verdicts.parts),
            *_backends(recipe, judges),
            models=_models(recipe, judges),
            hint=recipe.corrections.hint,
            **graded,
        )

    def corrections() -> dict[str, Any]:
        # Verdicts decide how many corrections are asked for only where enough are enough.
        target = {"verdicts": _digest(verdicts())} if recipe.corrections.want else {}
        used = _backends(recipe, corrector)
        return key("corrections", task, *used, models=_models(recipe, corrector), **graded, **target)

    def mix() -> dict[str, Any]:
        code = fingerprint(["lema.stages.mix", TOKENS], root)
        return {name: {**arm_settings(recipe.mix, name), "code": code} for name in recipe.mix.arms}

    arms = list(recipe.mix.arms)  # the folder of an arm that has left the recipe stays where it is
    return {
        "source": lambda: key("source", *sorted(generators), transfer=plain(transfer)),
        "questions": lambda: key("questions", *tested, contamination=plain(recipe.verdicts.contamination)),
        "base": lambda: key("base", "lema.train.base", *made, without=others),
        "samples": lambda: key(
            "samples",
            *_backends(recipe, sampled),
            *([task] if judged else []),
            models=_models(recipe, sampled),
            **(graded if judged else {}),
        ),
        "grades": lambda: key("grades", task, **graded),
        "locations": lambda: key("locations", *_backends(recipe, locator), models=_models(recipe, locator)),
        "corrections": corrections,
        "verdicts": verdicts,
        "evolved": lambda: key(
            "evolved", task, *_backends(recipe, evolvers), models=_models(recipe, evolvers), **graded
        ),
        "mix": mix,
        "export": lambda: key("export", cot=digest(recipe.mix.cot)),
        "adapter": lambda: key("adapter", "lema.train.lora", without=MAKERS.values()),
        "answers": lambda: key("answers", *tested, LOCAL, tasks=recipe.questions.tasks, arms=arms),
        "probe": lambda: key(
            "probe", LOCAL, "lema.train.likelihood", arms=arms, **(probed if recipe.probe.questions else {})
        ),
        "scores": lambda: key("scores", arms=arms),
        "report": lambda: key("report", templates=_templates()),
    }


def plan_text(plan: Mapping[str, Any]) -> str:
    """A plan as YAML that YAML 1.1 and 1.2 read alike; equal plans make equal bytes."""
    return yaml.dump(dict(plan), Dumper=_Dumper, sort_keys=True, allow_unicode=True, width=10_000)


def plain(value: Any) -> Any:
    """Settings as plain values: prompts as digests, absent settings left out, tuples as lists."""
    if isinstance(value, Prompt):
        return digest(value)
    if isinstance(value, BaseModel):
        fields = ((field.alias or name, getattr(value, name)) for name, field in type(value).model_fields.items())
        return {name: plain(child) for name, child in fields if child is not None}
    if isinstance(value, Mapping):
        return {key: plain(child) for key, child in value.items()}
    if isinstance(value, tuple | list):
        return [plain(child) for child in value]
    return value


def arm_settings(mix: MixSpec, name: str) -> dict[str, Any]:
    """All that decides the rows of one arm: itself, the formats that it uses, and the arms that it is sized by."""
    arm = mix.arms[name]
    return {
        **_formatted(mix, arm),
        "matched": {other: _formatted(mix, mix.arms[other]) for other in _matched(mix, arm) if other != name},
        "tokens": mix.tokens,
        "seed": mix.seed,
    }


def _formatted(mix: MixSpec, arm: Arm) -> dict[str, Any]:
    formats = {
        kind: digest(rows.format or usual)
        for kind, rows, usual in (("cot", arm.cot, mix.cot), ("correction", arm.corrections, mix.correction))
        if rows
    }
    return {**plain(arm), "formats": formats}


def _matched(mix: MixSpec, arm: Arm) -> list[str]:
    """The arms that size an arm, and those that size them."""
    found: list[str] = []
    todo = [arm]
    while todo:
        one = todo.pop()
        for rows in (one.cot, one.corrections):
            other = rows.match if rows else None
            if other in mix.arms and other not in found:
                found.append(other)
                todo.append(mix.arms[other])
    return sorted(found)


def _digest(part: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:16]


def _module(kind: Kind, name: str) -> str:
    return module_name(kind, name)


def _templates() -> str:
    """The page's templates decide its bytes, and are no Python."""
    texts = [path.read_bytes() for path in sorted((OWN / "report" / "templates").glob("*.j2"))]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()[:16]


def _models(recipe: Recipe, names: Iterable[str]) -> dict[str, Any]:
    return {name: plain(recipe.models[name]) for name in names if name in recipe.models}


def _backends(recipe: Recipe, names: Iterable[str]) -> list[str]:
    """The modules of the backends of models; the base is asked by the local backend."""
    return [_module("models", recipe.models[name].backend) if name in recipe.models else LOCAL for name in names]


class _Dumper(yaml.SafeDumper):
    """Quotes every text that some reader of YAML takes for something else."""

    def ignore_aliases(self, *_: Any) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    bare = reads_as_text(text) and "\n" not in text
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if bare else '"')


_Dumper.add_representer(str, _text)
