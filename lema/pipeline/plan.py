"""The plan of a recipe: for every artifact, all that decides its bytes and stands in no file that it reads.

Each artifact has a key of its own, and its DVC stage depends on that key alone, so that one edit reruns what it
concerns. A key holds the settings with defaults, prompts as the SHA-256 of their templates, the models and the task
that are used, and `code`, the fingerprint of the stage and of its parts. A prompt's text never stands in a plan:
dvc.lock repeats it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from lema.compute.artifacts import ARTIFACTS
from lema.pipeline.fingerprint import OWN, CodeGraph
from lema.pipeline.stage_runner import stage_signature
from lema.recipe.basic_types import Prompt
from lema.recipe.load import Loaded
from lema.recipe.part_loader import PartKind, module_name
from lema.recipe.prompt import digest
from lema.recipe.sampler_schema import ModelSampler
from lema.recipe.schema import Recipe
from lema.recipe.training_schema import Arm, MixSpec
from lema.recipe.yaml import reads_as_text

LOCAL = "lema.models.transformers:transformers"
# How a base can come about; each is of concern only to the bases that come about so.
MAKERS = {"embedded": "lema.train.embedded", "pretrain": "lema.train.pretrain"}
# The code behind keyword parameters of stages that decides bytes; parts by name are added by `_code_roots`.
KEYWORD_CODE = {
    "build": "lema.train.base:write_base",
    "count_tokens": "lema.models.tokenize:count_tokens",
    "losses": "lema.train.likelihood:completion_losses",
    "read_file": "lema.text.record_files:read_file",
    "train": "lema.train.lora:train_adapter",
}
# Of how rows are written: their Arrow schema, and the layout of the file.
ROWS = tuple(f"lema.compute.parquet:{name}" for name in ("arrow_schema", "LAYOUT", "ROW_GROUP"))


def make_plan(loaded: Loaded, root: Path) -> dict[str, Any]:
    """Plain values: `recipe` and `description` for readers, then one key an artifact; `mix` has one key an arm."""
    graph = CodeGraph(root)
    made = {artifact: plan_key(artifact, loaded.recipe, graph) for artifact in ARTIFACTS if artifact != "plan"}
    return {"recipe": loaded.name, "description": loaded.recipe.description or "", **made}


def plan_key(artifact: str, recipe: Recipe, graph: CodeGraph) -> dict[str, Any]:
    """The key of one artifact: its settings, and the fingerprint of the code that it depends on."""
    settings = plan_settings(artifact, recipe)
    if not settings:
        return {}
    code = {"code": plan_code(artifact, recipe, graph)}
    return {arm: own | code for arm, own in settings.items()} if artifact == "mix" else settings | code


def plan_settings(artifact: str, recipe: Recipe) -> dict[str, Any]:
    """The key of one artifact without `code`: reads no file. Empty for an artifact that the recipe does without."""
    section = getattr(recipe, artifact) if artifact in Recipe.model_fields else {}  # `grades` has nothing to set
    if section is None:
        return {}
    if artifact == "mix":
        return {name: arm_settings(recipe.mix, name) for name in recipe.mix.arms}
    more: dict[str, Any] = {}
    if (asked := _asked(artifact, recipe)) is not None:
        more["models"] = {name: plain(recipe.models[name]) for name in asked if name in recipe.models}
    if _graded(artifact, recipe):
        more["task"] = recipe.questions.task
    if artifact in ("answers", "probe", "scores"):
        more["arms"] = list(recipe.mix.arms)  # the folder of an arm that has left the recipe stays where it is
    match artifact:
        case "source":
            more["transfer"] = plain({name: one.source for name, one in recipe.questions.transfer.items()})
        case "questions":
            more["contamination"] = plain(recipe.verdicts.contamination)
        case "corrections" if recipe.corrections.want:
            # Verdicts decide how many corrections are asked for only where enough are enough.
            more["verdicts"] = _settings_digest(plan_settings("verdicts", recipe))
        case "verdicts":
            more["hint"] = recipe.corrections.hint
        case "report":
            more["templates"] = _templates("report")
        case "export":
            more |= {"cot": digest(recipe.mix.cot), "templates": _templates("card")}
        case "answers":
            more["tasks"] = recipe.questions.tasks
        case "probe" if recipe.probe.questions:
            more |= {"prompt": digest(recipe.answers.prompt), "format": digest(recipe.mix.cot)}
    return {**plain(section), **more}


def _asked(artifact: str, recipe: Recipe) -> list[str] | None:
    """The models of the recipe that a stage asks, by name; None for a stage that asks none."""
    match artifact:
        case "samples":
            return [one.model for one in recipe.samples.samplers.values() if isinstance(one, ModelSampler)]
        case "locations" if recipe.locations:
            return [recipe.locations.model]
        case "corrections":
            return [recipe.corrections.model]
        case "verdicts":
            return [part.options["model"] for part in recipe.verdicts.filters if "model" in part.options]
        case "evolved" if recipe.evolved:
            return [recipe.evolved.write.model, recipe.evolved.solve.model]
    return None


def _graded(artifact: str, recipe: Recipe) -> bool:
    """Whether a stage compares answers with the task of the recipe. Which paths are right matters only to samplers that
    begin with those of others, and to those that stop."""
    if artifact == "samples":
        return recipe.samples.derived or recipe.samples.want is not None
    return artifact in ("grades", "corrections", "verdicts", "evolved")


def plan_code(artifact: str, recipe: Recipe, graph: CodeGraph) -> str:
    """The fingerprint of the code that an artifact depends on."""
    made = [module for origin, module in MAKERS.items() if getattr(recipe.base, origin)] if artifact == "base" else []
    return graph.fingerprint(_code_roots(artifact, recipe), without=[one for one in MAKERS.values() if one not in made])


def _code_roots(artifact: str, recipe: Recipe) -> Iterator[str]:
    """The code that an artifact depends on: its stage, what is behind the keywords of that, and parts by name."""
    yield f"lema.stages.{artifact}:{artifact}"
    yield from (KEYWORD_CODE[name] for name in stage_signature(artifact).keywords if name in KEYWORD_CODE)
    if row_type := ARTIFACTS[artifact]:
        yield from (*ROWS, f"{row_type.__module__}:{row_type.__name__}")
    for name in _asked(artifact, recipe) or ():
        yield _part("models", recipe.models[name].backend) if name in recipe.models else LOCAL
    if _graded(artifact, recipe):
        yield _part("tasks", recipe.questions.task)
    match artifact:
        case "source":
            sources = (recipe.source, *(one.source for one in recipe.questions.transfer.values()))
            yield from (_part("tasks", one.generator) for one in sources if one.generator)
        case "base" if recipe.base.pretrain:
            yield _part("tasks", recipe.base.pretrain.task)
        case "questions" | "answers":
            yield from (_part("tasks", name) for name in recipe.questions.tasks.values())
        case "corrections" if recipe.corrections.want:
            yield from _code_roots("verdicts", recipe)
        case "verdicts":
            yield from (_part("filters", part.use) for part in recipe.verdicts.parts)
    if artifact in ("answers", "probe"):
        yield LOCAL


def _part(kind: PartKind, name: str) -> str:
    return f"{module_name(kind, name)}:{name.rpartition(':')[2]}"


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
    found: dict[str, None] = {}
    todo = [arm]
    for one in todo:
        matches = [rows.match for rows in (one.cot, one.corrections) if rows and rows.match in mix.arms]
        todo += [mix.arms[name] for name in matches if name and name not in found]
        found |= dict.fromkeys(name for name in matches if name)
    return sorted(found)


def _settings_digest(part: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:16]


def _templates(name: str) -> str:
    """The templates of the report or the card decide its bytes, and are no Python."""
    texts = [path.read_bytes() for path in sorted((OWN / "report" / "templates").glob(f"{name}.*"))]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()[:16]


class _Dumper(yaml.SafeDumper):
    """Quotes every text that some reader of YAML takes for something else."""

    def ignore_aliases(self, *_: Any) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    bare = reads_as_text(text) and "\n" not in text
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if bare else '"')


_Dumper.add_representer(str, _text)
