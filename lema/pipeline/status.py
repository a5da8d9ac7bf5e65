"""Which artifacts of a recipe are up to date, and why the others are not: what `dvc repro` would run.

What a stage was made with stands in dvc.lock, or, when `lema make` made it without DVC, in the plan on the disk. A
stage is stale when its output is missing, when its part of a fresh plan differs from that, or when an input has
changed since or will be made again.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lema.compute.artifacts import BY_ARM, DATA, artifact_path, read_plan
from lema.compute.files import home
from lema.errors import RecipeError
from lema.pipeline.stage_runner import stage_signature
from lema.recipe.yaml import read_yaml

# What stages call an input that is not one artifact.
PARTS = {"adapters": "adapter"}


def reads(artifact: str) -> list[str]:
    """The artifacts that a stage reads, by the names of its positional parameters."""
    return [PARTS.get(name, name) for name in stage_signature(artifact).inputs]


class Status:
    """What is known of the artifacts of a recipe before any of them is made. `plan` is a fresh one; `stages` are what
    was built last, as dvc.lock has it, which is read when they are not given."""

    def __init__(
        self, recipe: str, plan: Mapping[str, Any], arms: Sequence[str], stages: Mapping[str, Any] | None = None
    ) -> None:
        self._recipe, self._plan, self._arms = recipe, _plain(plan), list(arms)
        self._stages = locked_stages(recipe) if stages is None else stages
        self._made = _plain(read_plan(recipe))
        outs = (out for stage in self._stages.values() for out in stage.get("outs") or ())
        self._outs = {out["path"]: out.get("md5") for out in outs}

    def why(self, artifact: str, again: Mapping[str, str]) -> list[str]:
        """Why an artifact is stale; nothing when it is up to date. `again` has, for the artifacts that will come out
        otherwise than they are, the reason for it."""
        if artifact in BY_ARM:
            reasons = {arm: self.why_arm(artifact, arm, again) for arm in self._arms}
            first = next(iter(reasons.values()), [])
            shared = [reason for reason in first if all(reason in own for own in reasons.values())]
            return [*shared, *(f"{arm}: {why}" for arm, own in reasons.items() for why in own if why not in shared)]
        return self.why_arm(artifact, None, again)

    def why_arm(self, artifact: str, arm: str | None, again: Mapping[str, str]) -> list[str]:
        """The same of one arm, where an artifact is an arm's."""
        if not artifact_path(artifact, self._recipe, arm).exists():
            return ["not made yet"]
        stage = self._stages.get(stage_name(artifact, self._recipe, arm), {})
        inputs = [name for name in reads(artifact) if name != "plan"]
        reasons = [f"{name} {again[name]}" for name in inputs if name in again]
        reasons += [f"{name} has changed since" for name in inputs if name not in again and self._newer(name, stage)]
        outside = [dep for dep in stage.get("deps") or () if not dep["path"].startswith(f"{DATA}/{self._recipe}/")]
        reasons += [
            f"{dep['path']} has changed since"
            for dep in outside
            if self._outs.get(dep["path"], dep.get("md5")) != dep.get("md5")
        ]
        if "plan" in reads(artifact):  # depends on all of it
            return [*reasons, *["the plan has changed"] * (self._made != self._plan or self._newer("plan", stage))]
        before, now = self._before(artifact, arm, stage), self._plan[artifact]
        return [*_differences(before, now[arm] if artifact == "mix" and arm else now), *reasons]

    def _before(self, artifact: str, arm: str | None, stage: Mapping[str, Any]) -> Any:
        """The part of the plan that an artifact was made with, None when it is not known."""
        name = f"mix.{arm}" if artifact == "mix" and arm else artifact
        params = (stage.get("params") or {}).get(artifact_path("plan", self._recipe).as_posix())
        if params and name in params:
            return params[name]
        before = self._made.get(artifact)
        return (before or {}).get(arm) if artifact == "mix" and arm else before

    def _newer(self, artifact: str, stage: Mapping[str, Any]) -> bool:
        """Whether an input has been built with other bytes than the stage has read."""
        read = {dep["path"]: dep.get("md5") for dep in stage.get("deps") or ()}
        arms = self._arms if artifact in BY_ARM else [None]
        paths = [artifact_path(artifact, self._recipe, arm).as_posix() for arm in arms]
        return any(path in read and read[path] != self._outs.get(path, read[path]) for path in paths)


def stage_name(artifact: str, recipe: str, arm: str | None) -> str:
    """A stage as DVC calls it."""
    return f"{artifact}@{recipe}-{arm}" if arm else f"{artifact}@{recipe}"


def locked_stages(recipe: str) -> Mapping[str, Any]:
    """What was built last: by DVC, or else by `lema.pipeline.build`."""
    stages: Mapping[str, Any] = _yaml(Path("dvc.lock")).get("stages") or {}
    of_dvc = any(name.partition("@")[2] == recipe for name in stages)
    return stages if of_dvc else recorded_stages(recipe)


def recorded_stages(recipe: str) -> dict[str, Any]:
    """What `lema.pipeline.build` has recorded."""
    return _yaml(record_path(recipe))


def record_path(recipe: str) -> Path:
    """Where `lema.pipeline.build` records the stages of a recipe, in the form of dvc.lock."""
    return home() / "built" / f"{recipe}.json"


def _yaml(path: Path) -> dict[str, Any]:
    """A YAML file that DVC or lema wrote, empty when there is none."""
    try:
        found = _plain(read_yaml(path, path.name).plain())
    except (OSError, RecipeError):
        return {}
    return found if isinstance(found, dict) else {}


def _plain(value: Any) -> Any:
    """With lists for tuples: readers of YAML disagree on them."""
    return json.loads(json.dumps(value))


def _differences(before: Any, now: Any) -> list[str]:
    """What differs between two parts of a plan, in the words of a recipe."""
    if before is None:
        return ["made with an unknown plan"]
    found = sorted(_walk(before, now, ()))
    return [text for path, text in found if path != ("code",)] + [text for path, text in found if path == ("code",)]


def _walk(before: Any, now: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in sorted({*before, *now}, key=str):
            yield from _walk(before.get(key), now.get(key), (*path, str(key)))
    elif before != now:
        yield path, _setting_change(".".join(path), before, now)


def _setting_change(name: str, before: Any, now: Any) -> str:
    if name == "code":
        return "the code has changed"
    if _is_digest(before) or _is_digest(now):
        return "the prompt has changed" if name == "prompt" else f"{name}: the prompt has changed"
    shown = [f"{value}" if isinstance(value, str | int | float) else "" for value in (before, now)]
    if all(shown) and sum(map(len, shown)) < 80:
        return f"{name}: {shown[0]} -> {shown[1]}"
    return f"{name} {'is new' if before is None else 'is gone' if now is None else 'has changed'}"


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")
