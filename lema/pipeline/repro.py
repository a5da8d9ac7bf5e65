"""`lema repro`: `dvc repro` with one Ray for the whole run, and with arms that are trained at the same time.

DVC runs one stage after another, and several of its processes at once if their stages do not feed one another, which
holds for the adapters of a recipe. Each of these decides for itself whether its stage has to run.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from lema.recipe.load import load_params
from lema.recipe.params import Params


def repro(arguments: Sequence[str]) -> int:
    """Run `dvc repro` with one Ray for all of its stages; returns its exit code.

    Without arguments, so many arms of a recipe as `run.trainings` says are trained at a time.
    """
    from lema.compute.ray_head import head

    params = load_params(Path("params.yaml"))
    binaries = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}"}
    dvc = str(binaries / "dvc")
    alone = params.run.executor == "local" or "RAY_ADDRESS" in os.environ
    with nullcontext(dict[str, str]()) if alone else head() as ray:
        environment |= ray
        if not arguments and params.run.trainings > 1:
            for group in groups(params):
                code = _run([dvc, "repro", *(f"mix@{name}" for name in group)], environment)
                code = code or _adapters(dvc, group, params.run.trainings, environment)
                if code:
                    return code
        return _run([dvc, "repro", *arguments], environment)


def groups(params: Params) -> Iterator[list[str]]:
    """The runs of each recipe that has several, in the order of the recipes."""
    for recipe in params.recipes:
        runs = [name for name, run in params.runs.items() if run.recipe == recipe]
        if len(runs) > 1:
            yield runs


def _run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    return subprocess.run(command, env=environment, check=False).returncode


def _adapters(dvc: str, runs: Sequence[str], at_once: int, environment: Mapping[str, str]) -> int:
    """Bring the adapters of some runs up to date, each in a DVC of its own; returns the first exit code that is not 0.

    A DVC locks the project while it looks around, not while its stage runs; the others wait for it.
    """
    waiting, codes = iter(runs), list[int]()

    def work() -> None:
        for name in waiting:
            if not any(codes):
                command = [dvc, "--wait-for-lock", "repro", "--single-item", f"adapter@{name}"]
                codes.append(_run(command, environment))

    threads = [threading.Thread(target=work) for _ in range(min(at_once, len(runs)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return next((code for code in codes if code), 0)
