"""The completions of a project: what goes to the team and comes from it, and what its recipes need.

Packs go to the DVC remote and come from there, and both sides keep what they have. The only module that uses DVC's
Python interface.
"""

import os
import subprocess
import sys
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import Any

from lema.artifacts import ARTIFACTS, place
from lema.engine import packs, parquet
from lema.engine.store import Store, packs_folder
from lema.errors import RunError
from lema.plan import load_recipe
from lema.rows import Example

POINTER = Path("completions.dvc")
PARTIAL = ".pull.partial"


def push(store: Store) -> int:
    """Seal, unite with what the team has, and send all packs to the DVC remote; returns how many there are.

    Raises:
        RunError: there is no remote, nothing to push, or DVC fails.
    """
    folder = _folder()
    _remote()
    store.seal()
    if POINTER.exists():
        # Else the packs of others would not be in the list that this side commits.
        pull()
    names = packs.paths(folder)
    if not names:
        raise RunError("no completions to push yet")
    _dvc("add", "--quiet", str(folder))
    _dvc("push", "--quiet", str(POINTER))
    return len(names)


def pull() -> int:
    """Fetch the packs that `completions.dvc` lists and that are missing or damaged here; returns how many came. Packs
    that only this side has stay: `dvc pull` would refuse, or remove them.

    Raises:
        RunError: there is no list, no remote, or DVC fails.
    """
    folder = _folder()
    if not POINTER.exists():
        raise RunError(f"no {POINTER} here: somebody runs lema completions push and commits it, then git pull")
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException

    try:
        there = DVCFileSystem(".")
        listed = {Path(name).name: name for name in there.find(str(folder), dvc_only=True)}
        missing = sorted(name for name in listed if not _is_here(folder / name))
        if missing:
            _remote()
            folder.mkdir(parents=True, exist_ok=True)
        for name in missing:
            partial = folder / PARTIAL
            partial.unlink(missing_ok=True)
            there.get_file(listed[name], str(partial))
            if packs.digest(partial) != Path(name).stem:
                partial.unlink()
                raise RunError(f"the remote's copy of {name} is damaged: its bytes do not match its name")
            partial.replace(folder / name)
    except (DvcException, OSError) as error:
        raise RunError(f"the team's completions cannot be fetched: {str(error).splitlines()[0]}") from None
    return len(missing)


def _is_here(path: Path) -> bool:
    return path.exists() and packs.digest(path) == path.stem


def _folder() -> Path:
    if os.environ.get("LEMA_HOME"):
        raise RunError(
            f"LEMA_HOME is set, so packs lie in {packs_folder()}: a folder that people share needs no push or pull"
        )
    return packs_folder()


def _remote() -> None:
    if not _dvc("remote", "list").strip():
        raise RunError("no DVC remote: dvc remote add --default team FOLDER-OR-URL, which all can reach")


def _dvc(*arguments: str) -> str:
    command = [str(Path(sys.executable).parent / "dvc"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise RunError(f"dvc {arguments[0]} failed: {lines[0].removeprefix('ERROR: ')}")
    return done.stdout


def needed(recipes: Collection[str]) -> tuple[set[str], set[str]]:
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
            rows: list[Any] = parquet.read(place(artifact, name), row_type)  # type: ignore[arg-type]
            for row in rows:
                keys |= {row.completion, *getattr(row, "completions", ())}
    return keys - {""}, labels
