"""Completions shared with a team through the DVC remote, and those that recipes need.

Push and pull only ever add packs, on both sides. The only module that uses DVC's Python interface.
"""

import os
import subprocess
import sys
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import Any

from lema.completions import packs
from lema.completions.store import Store, packs_folder
from lema.compute import files, parquet
from lema.compute.artifacts import ARTIFACTS, artifact_path
from lema.errors import LemaError, RunError
from lema.recipe.load import load_recipe
from lema.rows import Example

POINTER = Path("completions.dvc")


def push_packs(store: Store) -> int:
    """Seal, fetch what the team has, and send all packs to the DVC remote; returns how many there are.

    Raises:
        RunError: there is no remote, nothing to push, or DVC fails.
    """
    folder = _own_packs()
    _require_remote()
    store.seal()
    if POINTER.exists():
        # Else the packs of others would not be in the list that this side commits.
        pull_packs()
    names = packs.pack_paths(folder)
    if not names:
        raise RunError("no completions to push yet")
    _run_dvc("add", "--quiet", str(folder))
    _run_dvc("push", "--quiet", str(POINTER))
    return len(names)


def pull_packs() -> int:
    """Fetch the packs that `completions.dvc` lists and that are missing or damaged here; returns how many came. Packs
    that only this side has stay: `dvc pull` would refuse, or remove them.

    Raises:
        RunError: there is no list, no remote, or DVC fails.
    """
    folder = _own_packs()
    if not POINTER.exists():
        raise RunError(f"no {POINTER} here: somebody runs lema completions push and commits it, then git pull")
    from dvc.api import DVCFileSystem

    try:
        remote = DVCFileSystem(".")
        listed = {folder / Path(name).name: name for name in remote.find(str(folder), dvc_only=True)}
        missing = sorted(path for path in listed if not (path.exists() and packs.pack_digest(path) == path.stem))
        for path in missing:
            _fetch_pack(remote, listed[path], path)
    except LemaError:
        raise
    except Exception as error:
        _require_remote()
        # Every kind of remote has errors of its own.
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(f"the team's completions cannot be fetched: {why}") from None
    return len(missing)


def _fetch_pack(remote: Any, source: str, path: Path) -> None:
    """A pack from the team, in its place only when it is whole."""
    damaged = path.with_name(f".{path.name}.damaged")
    # DVC would copy what lies in its place.
    if path.exists():
        path.replace(damaged)
    try:
        with files.atomic(path) as partial:
            remote.get_file(source, str(partial))
            if packs.pack_digest(partial) != path.stem:
                raise RunError(f"the remote's copy of {path.name} is damaged: its bytes do not match its name")
    except BaseException:
        if damaged.exists():
            damaged.replace(path)
        raise
    damaged.unlink(missing_ok=True)


def _own_packs() -> Path:
    if os.environ.get("LEMA_HOME"):
        raise RunError(
            f"LEMA_HOME is set, so packs lie in {packs_folder()}: a folder that people share needs no push or pull"
        )
    return packs_folder()


def _require_remote() -> None:
    if not _run_dvc("remote", "list").strip():
        raise RunError("no DVC remote: dvc remote add --default team FOLDER-OR-URL, which all can reach")


def _run_dvc(*arguments: str) -> str:
    command = [str(Path(sys.executable).parent / "dvc"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise RunError(f"dvc {arguments[0]} failed: {lines[0].removeprefix('ERROR: ')}")
    return done.stdout


def needed_completions(recipes: Collection[str]) -> tuple[set[str], set[str]]:
    """Keys of the completions that rows of these recipes name, and labels of the models that judge, whose replies no
    row names.

    Raises:
        RunError: an artifact with such rows has not been made, so that nobody knows what it needs.
        RecipeError: a recipe cannot be read.
    """
    keys, labels = set[str](), set[str]()
    for name in recipes:
        recipe = load_recipe(Path("recipes") / f"{name}.yaml", Path.cwd()).recipe
        labels |= {
            value for part in recipe.verdicts.parts for value in part.options.values() if value in {*recipe.models}
        }
        for artifact, row_type in ARTIFACTS.items():
            columns = {field.name for field in fields(row_type)} & {"completion", "completions"} if row_type else set()
            if not columns or row_type is Example:
                continue
            rows: parquet.Rows[Any] = parquet.Rows(artifact_path(artifact, name), row_type)  # type: ignore[arg-type]
            for row in rows:
                keys |= {row.completion, *getattr(row, "completions", ())}
    return keys - {""}, labels
