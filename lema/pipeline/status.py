"""Which artifacts of a recipe are up to date, and why the others are not: what `dvc repro` would run.

What a stage was made with stands in dvc.lock, or, for a recipe that DVC has not built, in the records that `lema make`
writes in the same form; else in the plan on the disk. A stage is stale when its output is missing, when its part of a
fresh plan differs from that, or when an input has changed since or will be made again.
"""

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lema.check.external_files import outside_files
from lema.compute.artifacts import BY_ARM, artifact_path, read_plan
from lema.compute.files import atomic, home
from lema.errors import RecipeError
from lema.pipeline.stage_runner import stage_signature
from lema.recipe.load import read_draft
from lema.recipe.yaml import read_yaml

# What stages call an input that is not one artifact.
PARTS = {"adapters": "adapter"}


def reads(artifact: str) -> list[str]:
    """The artifacts that a stage reads, by the names of its positional parameters."""
    return [PARTS.get(name, name) for name in stage_signature(artifact).inputs]


class Status:
    """What is known of the artifacts of a recipe before any of them is made. `plan` is a fresh one; `by_dvc` says who
    has built it, which is found out where it is not given."""

    def __init__(
        self, recipe: str, plan: Mapping[str, Any], arms: Sequence[str], *, by_dvc: bool | None = None
    ) -> None:
        self._recipe, self._plan, self._arms = recipe, _plain(plan), list(arms)
        self._made = _plain(read_plan(recipe))
        self._stages = {} if by_dvc is False else _dvc_stages()
        if by_dvc is None:
            by_dvc = any(name.partition("@")[2] == recipe for name in self._stages)
        outs = (out for stage in self._stages.values() for out in stage.get("outs") or ())
        self._digests = {out["path"]: out.get("md5") for out in outs} if by_dvc else None
        self._stages = self._stages if by_dvc else _recorded_stages(recipe)

    def why(self, artifact: str, again: Mapping[str, str]) -> list[str]:
        """Why an artifact is stale; nothing when it is up to date. `again` has, for the artifacts that will come out
        otherwise than they are, the reason for it."""
        if artifact not in BY_ARM:
            return self.why_arm(artifact, None, again)
        reasons = {arm: self.why_arm(artifact, arm, again) for arm in self._arms}
        first = next(iter(reasons.values()), [])
        shared = [reason for reason in first if all(reason in own for own in reasons.values())]
        return [*shared, *(f"{arm}: {why}" for arm, own in reasons.items() for why in own if why not in shared)]

    def why_arm(self, artifact: str, arm: str | None, again: Mapping[str, str]) -> list[str]:
        """The same of one arm, where an artifact is an arm's."""
        if not artifact_path(artifact, self._recipe, arm).exists():
            return ["not made yet"]
        stage = self._stages.get(_stage_name(artifact, self._recipe, arm), {})
        inputs = {path.as_posix(): name for name, path in input_paths(artifact, self._recipe, None, self._arms)}
        newer = dict.fromkeys(
            inputs.get(dep["path"], dep["path"]) for dep in stage.get("deps") or () if self._is_newer(dep)
        )
        reasons = [f"{name} {again[name]}" for name in dict.fromkeys(inputs.values()) if name in again]
        reasons += [f"{name} has changed since" for name in newer if name not in again and name != "plan"]
        if "plan" in inputs.values():  # depends on all of it
            return [*reasons, *["the plan has changed"] * (self._made != self._plan or "plan" in newer)]
        key, plan_path = _plan_key(artifact, arm), artifact_path("plan", self._recipe).as_posix()
        before = ((stage.get("params") or {}).get(plan_path) or {}).get(key, plan_part(self._made, artifact, arm))
        return [*_differences(before, plan_part(self._plan, artifact, arm)), *reasons]

    def _is_newer(self, dep: Mapping[str, str]) -> bool:
        """Whether an input has other bytes than the stage has read."""
        path, read = dep["path"], dep.get("md5")
        return (path_digest(Path(path)) if self._digests is None else self._digests.get(path, read)) != read


def input_paths(artifact: str, recipe: str, arm: str | None, arms: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """Where the inputs of a stage lie, each with the name of its artifact: of one arm, or of all."""
    for name in reads(artifact):
        for one in ([arm] if arm else arms) if name in BY_ARM else [None]:
            yield name, artifact_path(name, recipe, one)


def plan_part(plan: Mapping[str, Any], artifact: str, arm: str | None) -> Any:
    """What a plan holds of an artifact; None when it holds nothing."""
    part = plan.get(artifact)
    return (part or {}).get(arm) if artifact == "mix" and arm else part


def _plan_key(artifact: str, arm: str | None) -> str:
    return f"mix.{arm}" if artifact == "mix" and arm else artifact


def _stage_name(artifact: str, recipe: str, arm: str | None) -> str:
    """A stage as DVC calls it."""
    return f"{artifact}@{recipe}-{arm}" if arm else f"{artifact}@{recipe}"


def _dvc_stages() -> dict[str, Any]:
    """What DVC has built."""
    try:
        found = _plain(read_yaml(Path("dvc.lock"), "dvc.lock").plain())
    except (OSError, RecipeError):
        return {}
    return (found.get("stages") or {}) if isinstance(found, dict) else {}


def _recorded_stages(recipe: str) -> dict[str, Any]:
    """What `lema make` has recorded, one file a stage; before, it was one file a recipe."""
    folder = home() / "built"
    found: dict[str, Any] = {}
    for file in (folder / f"{recipe}.json", *sorted((folder / recipe).glob("*.json"))):
        if file.is_file():
            found |= json.loads(file.read_text(encoding="utf-8"))
    return found


def record_made(artifact: str, recipe: str, arm: str | None, plan: Any, *, again: bool = True) -> None:
    """Record what an artifact was made with: its part of the plan, and its inputs as they are; `again`: also where
    there is a record already."""
    root, name = Path.cwd(), _stage_name(artifact, recipe, arm)
    path = home() / "built" / recipe / f"{name}.json"
    if path.exists() and not again:
        return
    draft = read_draft(root / "recipes" / f"{recipe}.yaml", root)
    inputs = [one for _, one in input_paths(artifact, recipe, arm, draft.tree.keys("mix", "arms"))]
    for (section, *_), outside, _ in outside_files(draft):
        inputs += [Path(outside)] * (artifact == ("samples" if section == "models" else section))
    made = {
        "params": {artifact_path("plan", recipe).as_posix(): {_plan_key(artifact, arm): plan}},
        "deps": [{"path": one.as_posix(), "md5": path_digest(one)} for one in inputs],
    }
    with atomic(path) as file:
        file.write_text(json.dumps({name: made}, indent=1), encoding="utf-8")


def path_digest(path: Path) -> str | None:
    """The SHA-256 of a file, or of the names and contents of a folder; None when there is none. A file is read again
    when it looks changed."""
    if not path.exists():
        return None
    found = hashlib.sha256()
    for file in sorted(one for one in (path.rglob("*") if path.is_dir() else [path]) if one.is_file()):
        stat = file.stat()
        found.update(f"{file.relative_to(path)} {_content_digest(file, stat.st_size, stat.st_mtime_ns)}\n".encode())
    return found.hexdigest()


@functools.lru_cache(maxsize=4096)
def _content_digest(file: Path, _size: int, _changed: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _plain(value: Any) -> Any:
    """With lists for tuples: readers of YAML disagree on them."""
    return json.loads(json.dumps(value))


def _differences(before: Any, now: Any) -> list[str]:
    """What differs between two parts of a plan, in the words of a recipe; the code comes last."""
    if before is None:
        return ["made with an unknown plan"]
    return [text for _, text in sorted(_walk(before, now, ()), key=lambda one: (one[0] == ("code",), one))]


def _walk(before: Any, now: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in {*before, *now}:
            yield from _walk(before.get(key), now.get(key), (*path, str(key)))
    elif before != now:
        yield path, _setting_change(".".join(path), before, now)


def _setting_change(name: str, before: Any, now: Any) -> str:
    if name == "code":
        return "the code has changed"
    if any(isinstance(one, str) and re.fullmatch("[0-9a-f]{64}", one) for one in (before, now)):
        return "the prompt has changed" if name == "prompt" else f"{name}: the prompt has changed"
    shown = [f"{value}" if isinstance(value, str | int | float) else "" for value in (before, now)]
    if all(shown) and sum(map(len, shown)) < 80:
        return f"{name}: {shown[0]} -> {shown[1]}"
    return f"{name} {'is new' if before is None else 'is gone' if now is None else 'has changed'}"
