"""`lema repro`: builds what is out of date, with one Ray for the whole run.

What params.yaml names is DVC's: `dvc repro` runs its stages one after another, and here several adapters at a time,
each in a DVC of its own, which holds since they do not feed one another. Each of these decides for itself whether its
stage has to run. A recipe that params.yaml does not name is built by `lema.pipeline.build`.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import yaml

from lema.compute.artifacts import load_yaml
from lema.compute.ray_head import lazy_head
from lema.errors import RunError

LAST = ("export", "report")  # the artifacts that no stage reads
BINARIES = Path(sys.executable).parent


def repro(arguments: Sequence[str]) -> int:
    """Run `dvc repro` with these arguments; returns its exit code.

    An argument that is the name of a recipe stands for all of it, in params.yaml or not. Without arguments, so many
    arms of a recipe as `run.trainings` says are trained at a time.

    Raises:
        RecipeError: there is no params.yaml, or a recipe outside it has errors.
        RunError: a recipe is not in params.yaml, and the other arguments are DVC's.
    """
    params = _plain_params()
    known = params.get("recipes") or {}
    own = [name for name in arguments if name not in known and _is_recipe(name)]
    if own and len(own) < len(arguments):
        raise RunError(f"{own[0]} is not in params.yaml, so DVC does not build it: lema repro {' '.join(own)}")
    targets = [
        target
        for name in arguments
        for target in ([f"{artifact}@{name}" for artifact in LAST] if name in known and _is_recipe(name) else [name])
    ]
    with _environment(params) as environment:
        if own:
            return next((code for name in own if (code := _build(name, environment))), 0)
        trainings = (params.get("run") or {}).get("trainings", 1)
        if not targets and isinstance(trainings, int) and trainings > 1:
            for group in groups(params):
                mixes = [f"mix@{name}" for name in group]
                if code := _dvc(environment, "repro", *mixes) or _train_arms(group, trainings, environment):
                    return code
        return _dvc(environment, "repro", *targets)


def make_with_inputs(artifact: str, recipe: str, arm: str | None, *, offline: bool = False) -> int:
    """Make one artifact and, before it, what is missing or stale of what it is made from; returns an exit code.

    Raises:
        RecipeError: there is no params.yaml, or the recipe has errors.
        RunError: params.yaml names the recipe, but not this arm of it.
    """
    params = _plain_params()
    with _environment(params) as environment:
        if recipe not in (params.get("recipes") or {}):
            return _build(recipe, environment, artifact, arm, options=["--offline"] * offline)
        if offline:
            message = f"params.yaml names {recipe}, so DVC builds it: make its artifacts one by one with --offline"
            raise RunError(message)
        runs = (params.get("runs") or {}).items()
        name = next((name for name, run in runs if run == {"recipe": recipe, "arm": arm}), "") if arm else recipe
        if not name:
            raise RunError(f"params.yaml has no run of {recipe}/{arm}")
        return _dvc(environment, "repro", f"{artifact}@{name}")


def _plain_params() -> dict[str, Any]:
    """What params.yaml says, unchecked: each stage checks it, and a check here would take as long as a no-op of DVC."""
    path = Path("params.yaml")
    try:
        made = load_yaml(path)
        if all(isinstance(made.get(key) or {}, dict) for key in ("recipes", "runs", "run")):
            return dict(made)
    except (OSError, yaml.YAMLError, UnicodeDecodeError, AttributeError):
        pass
    from lema.recipe.load import load_params

    load_params(path)  # raises, with what is wrong and where
    raise RunError(f"{path} cannot be read")


def groups(params: Mapping[str, Any]) -> Iterator[list[str]]:
    """The runs of each recipe that has several, in the order of the recipes."""
    for recipe in params.get("recipes") or {}:
        runs = [name for name, run in (params.get("runs") or {}).items() if run["recipe"] == recipe]
        if len(runs) > 1:
            yield runs


def _is_recipe(name: str) -> bool:
    return not name.startswith("-") and "@" not in name and Path("recipes", f"{name}.yaml").is_file()


def _environment(params: Mapping[str, Any]) -> AbstractContextManager[dict[str, str]]:
    """The environment of child processes: ours, with the programs of this Python first, and a Ray to ask for."""
    ours = {**os.environ, "PATH": f"{BINARIES}{os.pathsep}{os.environ.get('PATH', '')}"}
    if (params.get("run") or {}).get("executor") == "local" or "RAY_ADDRESS" in os.environ:
        return nullcontext(ours)
    return lazy_head(ours)


def _dvc(environment: Mapping[str, str], *arguments: str) -> int:
    return _run([str(BINARIES / "dvc"), *arguments], environment)


def _build(recipe: str, environment: Mapping[str, str], *wish: str | None, options: Sequence[str] = ()) -> int:
    """Each `lema make` in a process of its own, as DVC does it: nothing of one stage is left for the next."""
    from lema.pipeline.build import build

    command = [str(BINARIES / "lema"), "make", *options]
    return build(recipe, lambda arguments: _run([*command, *arguments], environment), *wish)


def _run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    return subprocess.run(command, env=environment, check=False).returncode


def _train_arms(runs: Sequence[str], at_once: int, environment: Mapping[str, str]) -> int:
    """Bring the adapters of some runs up to date, each in a DVC of its own, none after a failure; returns the first
    exit code that is not 0.

    A DVC locks the project while it looks around, not while its stage runs; the others wait for it.
    """
    codes: list[int] = []

    def train(name: str) -> None:
        if not any(codes):
            codes.append(_dvc(environment, "--wait-for-lock", "repro", "--single-item", f"adapter@{name}"))

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(train, runs))
    return next((code for code in codes if code), 0)
