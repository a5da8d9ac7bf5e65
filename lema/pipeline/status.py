"""Which artifacts of a recipe are up to date, and why the others are not: what `dvc repro` would run.

What a stage was made with stands in dvc.lock, or, when `lema make` made it without DVC, in the plan on the disk. A
stage is stale when its output is missing, when its part of a fresh plan differs from that, or when an input has
changed since or will be made again.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lema.compute.artifacts import BY_ARM, artifact_path
from lema.errors import RecipeError
from lema.pipeline.stage_runner import stage_signature
from lema.recipe.yaml import read_yaml

# What stages call an input that is not one artifact.
PARTS = {"adapters": "adapter"}


def reads(artifact: str) -> list[str]:
    """The artifacts that a stage reads, by the names of its positional parameters."""
    return [PARTS.get(name, name) for name in stage_signature(artifact).inputs]


class Status:
    """What is known of the artifacts of a recipe before any of them is made. `plan` is a fresh one."""

    def __init__(self, recipe: str, plan: Mapping[str, Any], arms: Sequence[str]) -> None:
        self._recipe, self._plan, self._arms = recipe, _plain(plan), list(arms)
        self._locked = _yaml(Path("dvc.lock")).get("stages") or {}
        self._made = _yaml(artifact_path("plan", recipe))
        self._outs = {out["path"]: out.get("md5") for stage in self._locked.values() for out in stage.get("outs") or ()}

    def why(self, artifact: str, again: Mapping[str, str]) -> list[str]:
        """Why an artifact is stale; nothing when it is up to date. `again` says of the artifacts that will come out
        otherwise than they are, why that is so."""
        if artifact in BY_ARM:
            told = {arm: self._why(artifact, arm, again) for arm in self._arms}
            shared = [reason for reason in next(iter(told.values()), []) if all(reason in own for own in told.values())]
            own = [f"{arm}: {why}" for arm, reasons in told.items() for why in reasons if why not in shared]
            return [*shared, *own]
        return self._why(artifact, None, again)

    def _why(self, artifact: str, arm: str | None, again: Mapping[str, str]) -> list[str]:
        if not artifact_path(artifact, self._recipe, arm).exists():
            return ["not made yet"]
        lock = self._locked.get(f"{artifact}@{self._recipe}-{arm}" if arm else f"{artifact}@{self._recipe}", {})
        inputs = [name for name in reads(artifact) if name != "plan"]
        reasons = [f"{name} {again[name]}" for name in inputs if name in again]
        reasons += [f"{name} has changed since" for name in inputs if name not in again and self._newer(name, lock)]
        if "plan" in reads(artifact):  # depends on all of it
            return [*reasons, *["the plan has changed"] * (self._made != self._plan)]
        before, now = self._before(artifact, arm, lock), self._plan[artifact]
        return [*_differences(before, now[arm] if artifact == "mix" and arm else now), *reasons]

    def _before(self, artifact: str, arm: str | None, lock: Mapping[str, Any]) -> Any:
        """The part of the plan that an artifact was made with, None when nobody knows."""
        name = f"mix.{arm}" if artifact == "mix" and arm else artifact
        params = (lock.get("params") or {}).get(artifact_path("plan", self._recipe).as_posix())
        if params and name in params:
            return params[name]
        before = self._made.get(artifact)
        return (before or {}).get(arm) if artifact == "mix" and arm else before

    def _newer(self, artifact: str, lock: Mapping[str, Any]) -> bool:
        """Whether DVC has seen an input with other bytes than the stage has read."""
        read = {dep["path"]: dep.get("md5") for dep in lock.get("deps") or ()}
        arms = self._arms if artifact in BY_ARM else [None]
        places = [artifact_path(artifact, self._recipe, arm).as_posix() for arm in arms]
        return any(path in read and read[path] != self._outs.get(path, read[path]) for path in places)


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
        yield path, _said(".".join(path), before, now)


def _said(name: str, before: Any, now: Any) -> str:
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
