"""Corrections by `reference` on one processor and on all: paths a second, and how many times as fast.

    python benchmarks/reference.py [--paths 4000] [--times 3]

Wrong paths are gold rationales of `word_problems` with a slip. They go through `Generate` and the store, in this
process (`run.executor: local`) and on Ray's workers. Counted are the paths whose replies were stored between the first
and the last block, so the start of Ray and of its workers is left out. Beside it the processor time that this process
takes for a path: on Ray that of the driver, which limits how many processors can be of use, and which says something
on a busy machine, too.
"""

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from scale import chance, slipped

from lema.completions.generate import Generate
from lema.completions.store import Store
from lema.compute.factory import make_executor
from lema.models.types import Model, Request, Sampling
from lema.recipe.basic_types import Prompt
from lema.recipe.params import Run
from lema.recipe.prompt import render
from lema.tasks.word_problems import word_problems
from lema.text.steps import number_steps

ROOT = Path(__file__).resolve().parents[1]


def requests(count: int) -> Iterator[Request]:
    """What the corrector is asked about so many wrong paths."""
    assert word_problems.generate is not None
    text = (ROOT / "recipes/prompts/correct_reference.yaml").read_text(encoding="utf-8")
    prompt = Prompt.model_validate(yaml.safe_load(text))
    model = Model("reference", "reference", "reference benchmark")
    for number, (_, record) in enumerate(itertools.islice(word_problems.generate(steps=[3, 6]), count)):
        reading = word_problems.read(record)
        path = [*slipped(reading.rationale or "", chance(number))[0], "The answer is -1."]
        given = {"question": reading.text, "rationale": reading.rationale, "gold": reading.gold}
        yield Request(model, render(prompt, {**given, "path": number_steps(path)}), Sampling(max_tokens=512))


class TimedStore(Store):
    """A store that notes when replies were kept."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "journal", folder / "completions")
        self.kept: list[tuple[float, float, int]] = []

    def add(self, pairs: Any, *, model: str) -> None:
        """See `Store.add`."""
        super().add(pairs, model=model)
        self.kept.append((time.perf_counter(), time.process_time(), len(pairs)))

    def figures(self) -> tuple[float, float]:
        """After the first block, replies a second and processor seconds a reply."""
        count = sum(one[2] for one in self.kept[1:])
        wall, processor = (self.kept[-1][at] - self.kept[0][at] for at in (0, 1))
        return count / wall, processor / count


def measure(executor: str, count: int) -> tuple[float, float]:
    run = Run(executor=executor, max_failures=1.0)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder, make_executor(run) as where:
        store = TimedStore(Path(folder))
        for _ in Generate(store, where, run)(requests(count)):
            pass
        return store.figures()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--paths", type=int, default=4000)
    parser.add_argument("--times", type=int, default=3)
    given = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {"local": [], "ray": []}
    for _ in range(given.times):
        for executor, figures in found.items():
            figures.append(measure(executor, given.paths))
    for executor, figures in found.items():
        rates = ", ".join(f"{rate:.0f}" for rate, _ in figures)
        spent = statistics.median(spent for _, spent in figures)
        print(f"{executor:<6} {rates} paths a second, {spent * 1000:.2f} ms of this process a path")
    one, all_ = (statistics.median(rate for rate, _ in figures) for figures in found.values())
    print(f"{all_ / one:.2f} times as fast on {os.cpu_count()} processors")


if __name__ == "__main__":
    main()
