"""How often a locator finds the first incorrect step: of real wrong paths with a teacher's label, and of right ones
that were spoilt by program, where the step is known.

    python benchmarks/locations.py [FOLDER] [--student N] [--model FOLDER]

FOLDER holds mistakes/gsm8k_train_mistakes.jsonl and gsm8k/train.jsonl (../shared/data). `reference` is tried on all
of them; with --student, a local model too, on N real ones, blind: with the prompt of the corrector, `correct_gsm8k`,
of whose reply only the step is waited for, and with that of the locator, `locate_gsm8k`. The model is SmolLM2, or the
one in the folder that --model names. Writes benchmarks/results/locations.md.
"""

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean

from lema.compute.files import home
from lema.correctors.inject import inject
from lema.models.reference import reference
from lema.models.types import Completion, Model, Request, Worker
from lema.recipe.basic_types import Prompt
from lema.recipe.params import Run
from lema.recipe.sampler_schema import PROGRAM_ERRORS
from lema.recipe.schema import LocationsSpec
from lema.recipe.yaml import read_yaml
from lema.report.statistics import wilson
from lema.rows import Grade, Question, Sample
from lema.stages.common import GenerateFn
from lema.stages.locations import locations
from lema.tasks.gsm8k import gsm8k
from lema.text.steps import number_steps, split_steps
from lema.train import embedded

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "locations.md"
INJECTED = 500
Pairs = Sequence[tuple[Question, Sample]]


def labelled(file: Path) -> list[tuple[Question, Sample]]:
    """Real wrong paths; the step that the teacher named is the sample's `incorrect_step`."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    pairs = []
    for place, row in enumerate(rows):
        *rationale, gold = [line for line in row["reference_solution"].splitlines() if line.strip()]
        question = Question(f"real-{place:03d}", "train", row["question"], gold.strip(), "\n".join(rationale))
        path = [" ".join(step.split()) for step in row["steps"]]
        pairs.append((question, wrong(question, path, row["first_error_step"] + 1, row["error_category"])))
    return pairs


def spoilt(file: Path) -> list[tuple[Question, Sample]]:
    """Gold rationales with one mistake put in."""
    pairs = []
    for place, line in enumerate(file.read_text(encoding="utf-8").splitlines()[:INJECTED]):
        reading = gsm8k.read(json.loads(line))
        question = Question(f"spoilt-{place:03d}", "train", reading.text, reading.gold, reading.rationale)
        draw = random.Random(place)

        def is_wrong(text: str, gold: str = reading.gold) -> bool:
            answer = gsm8k.extract(text)
            return answer is not None and not gsm8k.equal(answer, gold)

        kinds = draw.sample(PROGRAM_ERRORS, len(PROGRAM_ERRORS))
        found = inject(question.text, split_steps(question.rationale or ""), kinds, draw, is_wrong)
        if found:
            pairs.append((question, wrong(question, found.steps, found.incorrect_step, found.kind)))
    return pairs


def wrong(question: Question, path: Sequence[str], step: int, kind: str) -> Sample:
    return Sample(
        f"{question.id}/p/0", question.id, "p", 0, number_steps(path), "stop", None, "", "", "", 0, 0, None, kind, step
    )


def prompt(name: str) -> Prompt:
    file = ROOT / "recipes" / "prompts" / f"{name}.yaml"
    return Prompt.model_validate_json(json.dumps(read_yaml(file, file.name).plain()))


def found(pairs: Pairs, spec: LocationsSpec, generate: GenerateFn) -> list[int | None]:
    """The step that the locator names of each path, None where it names none."""
    grades = [Grade(sample.id, sample.question_id, "p", "incorrect", None) for _, sample in pairs]
    questions, samples = [question for question, _ in pairs], [sample for _, sample in pairs]
    model = Model("m", "m", "m")
    rows = locations(questions, model, samples, grades, spec=spec, models={"m": model}, generate=generate)
    made = {row.id: row.incorrect_step for row in rows}
    return [made[sample.id] for sample in samples]


def table(title: str, pairs: Pairs, made: Sequence[int | None]) -> Iterator[str]:
    """One line for all paths and one for every kind of error: the very step, it or a neighbour, none named."""
    counts: Counter[tuple[str, str]] = Counter()
    for (_, sample), step in zip(pairs, made, strict=True):
        real = sample.incorrect_step or 0
        for kind in ("all", sample.error_type or ""):
            counts[kind, "n"] += 1
            counts[kind, "exact"] += step == real
            counts[kind, "near"] += step is not None and abs(step - real) <= 1
            counts[kind, "none"] += step is None
    yield f"\n## {title}\n"
    yield "| kind of error | paths | the step | 95 % interval | it or a neighbour | none named |"
    yield "|---|--:|--:|--:|--:|--:|"
    for kind in sorted({kind for kind, _ in counts}, key=lambda kind: (kind != "all", -counts[kind, "n"])):
        n = counts[kind, "n"]
        exact, near, none = (f"{100 * counts[kind, what] / n:.0f} %" for what in ("exact", "near", "none"))
        low, high = wilson(counts[kind, "exact"], n, 0.95)
        yield f"| {kind} | {n} | {exact} | {100 * low:.0f} to {100 * high:.0f} | {near} | {none} |"


def chance(pairs: Pairs) -> str:
    """What naming any step at random, or always the same one, comes to."""
    lengths = [len(split_steps(sample.text)) for _, sample in pairs]
    steps = [sample.incorrect_step or 0 for _, sample in pairs]
    near = [sum(1 for at in (step - 1, step, step + 1) if 1 <= at <= n) for step, n in zip(steps, lengths, strict=True)]
    exact, beside = (fmean(x / n for x, n in zip(hits, lengths, strict=True)) for hits in ([1] * len(steps), near))
    same = {step: sum(real == step for real in steps) / len(steps) for step in set(steps)}
    best = max(same, key=lambda step: (same[step], -step))
    return (
        f"\nOn these {len(pairs)}, a step at random is right in {100 * exact:.0f} %, it or a neighbour in "
        f"{100 * beside:.0f} %; always step {best} in {100 * same[best]:.0f} %."
    )


def student(folder: Path) -> GenerateFn:
    """A local model, by its folder."""
    from lema.models.transformers import transformers

    return asking(transformers(Model("student", "transformers", "student", folder=str(folder)), Run()))


def asking(worker: Worker) -> GenerateFn:
    def generate(requests: Iterable[Request], /) -> Iterator[Completion]:
        replies = worker(list(requests))
        assert isinstance(replies, list), "it answers at once"
        return iter(replies)

    return generate


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument(
        "--student", type=int, default=0, metavar="N", help="Real wrong paths that a model is asked about."
    )
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="Of a model; SmolLM2 when absent.")
    given = parser.parse_args(arguments)
    sets: dict[str, Callable[[], list[tuple[Question, Sample]]]] = {
        "real mistakes": lambda: labelled(given.folder / "mistakes" / "gsm8k_train_mistakes.jsonl"),
        "injected mistakes": lambda: spoilt(given.folder / "gsm8k" / "train.jsonl"),
    }
    hinted = LocationsSpec(model="m", prompt=prompt("correct_reference"), hint="rationale", known=False)
    programme = asking(reference(Model("m", "m", "m"), Run()))
    lines = ["# Finding the incorrect step"]

    def told(more: Iterable[str]) -> None:
        lines.extend(more)
        print("\n".join(more), flush=True)
        RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")

    for name, read in sets.items():
        pairs = read()
        made = found(pairs, hinted, programme)
        told([*table(f"`reference`, shown the gold rationale: {name}", pairs, made), chance(pairs)])
    few = sets["real mistakes"]()[: given.student]
    folder = given.model or (embedded.ensure_embedded(home()) if few else Path())
    for asked in ("correct_gsm8k", "locate_gsm8k") if few else ():
        blind = LocationsSpec(model="m", prompt=prompt(asked), known=False, max_tokens=12, stop=("\n",))
        made = found(few, blind, student(folder))
        title = f"`{folder.name}` with the prompt `{asked}`, blind: real mistakes"
        told([*table(title, few, made), chance(few)])


if __name__ == "__main__":
    main(sys.argv[1:])
