"""Builds a recipe that params.yaml does not name: every artifact that is missing or stale, in the order of the flow.

Staleness is what `lema plan` shows (`lema.pipeline.status`): another plan, or an input with other bytes. What stages
were run with stands in a record under `.lema`, in the form of dvc.lock; it is this machine's, and nothing is versioned
or cached but completions.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lema.check.external_files import outside_files
from lema.compute.artifacts import ARTIFACTS, BY_ARM, artifact_path, read_plan
from lema.compute.files import atomic
from lema.errors import RunError, allowed
from lema.pipeline.status import Status, reads, record_path, recorded_stages, stage_name
from lema.recipe.load import load_recipe, read_draft


def build(
    recipe: str, make: Callable[[Sequence[str]], int], artifact: str | None = None, arm: str | None = None
) -> int:
    """Run `make`, which takes the arguments of `lema make`, for all that is missing or stale up to an artifact (None:
    of the whole recipe); returns the first exit code that is not 0. Raises RecipeError."""
    root = Path.cwd()
    path = root / "recipes" / f"{recipe}.yaml"
    if artifact is not None and artifact not in ARTIFACTS:
        raise RunError(f"unknown artifact {artifact!r}; {allowed(artifact, ARTIFACTS)}")
    arms = list(load_recipe(path, root).recipe.mix.arms)
    outside: dict[str, list[Path]] = {}
    for (section, *_), name, _ in outside_files(read_draft(path, root)):
        outside.setdefault("samples" if section == "models" else str(section), []).append(Path(name))
    record = BuildRecord(recipe, arms, outside)
    record.adopt()
    if code := make(["plan", recipe]):
        return code
    plan = read_plan(recipe)
    for one in needed(artifact):
        for own in ([arm] if arm and artifact in BY_ARM else arms) if one in BY_ARM else [None]:
            record.refresh()
            status = Status(recipe, plan, arms, record.stages)
            if not (reasons := status.why_arm(one, own, {})):
                continue
            target = f"{recipe}/{own}" if own else recipe
            print(f"{one} {target}: {'; '.join(reasons)}", file=sys.stderr)  # noqa: T201
            if code := make([one, target]):
                return code
            record.add(one, own, plan)
    return 0


def needed(artifact: str | None) -> list[str]:
    """An artifact and all that it is made from, in the order of the flow; everything for None. Without the plan."""
    found = set(ARTIFACTS) if artifact is None else {artifact}
    for one in reversed(list(ARTIFACTS)):
        if one in found and one != "plan":
            found.update(reads(one))
    return [one for one in ARTIFACTS if one in found and one != "plan"]


class BuildRecord:
    """What stages were run with: `stages`, in the form of dvc.lock. A file is read again when it looks changed."""

    def __init__(self, recipe: str, arms: Sequence[str], outside: dict[str, list[Path]]) -> None:
        self._recipe, self._arms, self._outside = recipe, arms, outside
        self.stages: dict[str, Any] = recorded_stages(recipe)
        self._digests: dict[Path, tuple[Any, str]] = {}

    def adopt(self) -> None:
        """Record what `lema make` has made by itself, with the plan that is there: it will be written anew."""
        plan = read_plan(self._recipe)
        for artifact in needed(None) if plan else ():
            for arm in self._arms if artifact in BY_ARM else [None]:
                there = artifact_path(artifact, self._recipe, arm).exists()
                if there and stage_name(artifact, self._recipe, arm) not in self.stages:
                    self.add(artifact, arm, plan)

    def add(self, artifact: str, arm: str | None, plan: Any) -> None:
        """Record an artifact that has just been made."""
        name = f"mix.{arm}" if artifact == "mix" else artifact
        part = (plan.get("mix") or {}).get(arm) if artifact == "mix" else plan.get(artifact)
        self.stages[stage_name(artifact, self._recipe, arm)] = {
            "params": {artifact_path("plan", self._recipe).as_posix(): {name: part}},
            "deps": [self._entry(path) for path in self._inputs(artifact, arm)],
            "outs": [self._entry(artifact_path(artifact, self._recipe, arm))],
        }
        with atomic(record_path(self._recipe)) as file:
            file.write_text(json.dumps(self.stages, indent=1), encoding="utf-8")

    def refresh(self) -> None:
        """See what was made, changed or edited beside us."""
        for stage in self.stages.values():
            stage["outs"] = [self._entry(Path(out["path"])) for out in stage["outs"] if Path(out["path"]).exists()]
        given = {path for paths in self._outside.values() for path in paths if path.exists()}
        plan = artifact_path("plan", self._recipe)
        self.stages["outside"] = {"outs": [self._entry(path) for path in sorted({*given, plan}) if path.exists()]}

    def _inputs(self, artifact: str, arm: str | None) -> Iterator[Path]:
        for name in reads(artifact):
            arms = [None] if name not in BY_ARM else [arm] if arm else self._arms
            yield from (artifact_path(name, self._recipe, one) for one in arms)
        yield from (path for path in self._outside.get(artifact, ()) if path.exists())

    def _entry(self, path: Path) -> dict[str, str]:
        files = sorted(file for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())
        stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        if path not in self._digests or self._digests[path][0] != stats:
            digest = hashlib.sha256()
            for file in files:
                with file.open("rb") as content:
                    digest.update(
                        f"{file.relative_to(path)} {hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode()
                    )
            self._digests[path] = stats, digest.hexdigest()
        return {"path": path.as_posix(), "md5": self._digests[path][1]}
