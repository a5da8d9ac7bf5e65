"""`adapter`: the base fine-tuned on the examples of one arm, as LoRA weights or as a whole model; or several times, by
seed."""

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from lema.recipe.training_schema import AdapterSpec
from lema.rows import Example


def adapter(
    mix: Iterable[Example], base: Any, *, spec: AdapterSpec, train: Callable[..., None], folder: Path, curve: Path
) -> None:
    """Writes the adapter's folder (safetensors, training.json) and its training curve (CSV, one line a logged step).

    With `seeds`, the folder has a folder of this kind for each of them, named after the seed and with a curve.csv of
    its own, and `curve` is the mean of these. Only what is in `mix` reaches the trainer: no test question can.
    """
    examples = list(mix)
    if not spec.seeds:
        train(examples, base, [(spec, folder, curve)])
        return
    jobs = [(one, folder / str(one.seed), folder / str(one.seed) / "curve.csv") for one in spec.trainings]
    for _, place, _ in jobs:
        place.mkdir()
    train(examples, base, jobs)
    _mean([one for _, _, one in jobs], curve)


def _mean(curves: Sequence[Path], target: Path) -> None:
    """Curves of equally many steps as one, every column a mean; a cell that is empty in one of them stays empty."""
    tables = [list(csv.reader(path.read_text(encoding="utf-8").splitlines())) for path in curves]
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(tables[0][0])
        for rows in zip(*(table[1:] for table in tables), strict=True):
            columns = zip(*rows, strict=True)
            table.writerow(f"{fmean(map(float, cells)):.6g}" if all(cells) else "" for cells in columns)
