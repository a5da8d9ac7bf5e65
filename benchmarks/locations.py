"""How often a locator finds the first incorrect step: of real wrong paths with a teacher's label, and of right ones
that were spoilt by program, where the step is known.

    python benchmarks/locations.py [FOLDER] [--student N]

FOLDER holds mistakes/gsm8k_train_mistakes.jsonl and gsm8k/train.jsonl (../shared/data). `reference` is tried on all
of them; with --student, SmolLM2 too, on N of each, blind, with the prompt `locate_gsm8k`.
"""

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from lema.engine.files import home
from lema.inject import inject
from lema.models import Model
from lema.models.reference import reference
from lema.params import Run
from lema.plan.yaml import load
from lema.recipe import PROGRAM_ERRORS, LocationsSpec, Prompt
from lema.rows import Grade, Question, Sample
from lema.stages import Generate
from lema.stages.locations import locations
from lema.steps import number, split
from lema.tasks.gsm8k import gsm8k

ROOT = Path(__file__).resolve().parents[1]
INJECTED = 500


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
        found = inject(question.text, split(question.rationale or ""), kinds, draw, is_wrong)
        if found:
            pairs.append((question, wrong(question, found.steps, found.incorrect_step, found.kind)))
    return pairs


def wrong(question: Question, path: Sequence[str], step: int, kind: str) -> Sample:
    return Sample(
        f"{question.id}/p/0", question.id, "p", 0, number(path), "stop", None, "", "", "", 0, 0, None, kind, step
    )


def prompt(name: str) -> Prompt:
    file = ROOT / "recipes" / "prompts" / f"{name}.yaml"
    return Prompt.model_validate_json(json.dumps(load(file, file.name).plain()))


def table(title: str, pairs: Sequence[tuple[Question, Sample]], spec: LocationsSpec, generate: Generate) -> None:
    """One line for all paths and one for every kind of error: the very step, it or a neighbour, none named."""
    grades = [Grade(sample.id, sample.question_id, "p", "incorrect", None) for _, sample in pairs]
    questions, samples = [question for question, _ in pairs], [sample for _, sample in pairs]
    model = Model("m", "m", "m")
    made = {
        row.id: row.incorrect_step
        for row in locations(questions, model, samples, grades, spec=spec, models={"m": model}, generate=generate)
    }
    counts: Counter[tuple[str, str]] = Counter()
    for sample in samples:
        found, real = made[sample.id], sample.incorrect_step or 0
        for kind in ("all", sample.error_type or ""):
            counts[kind, "n"] += 1
            counts[kind, "exact"] += found == real
            counts[kind, "near"] += found is not None and abs(found - real) <= 1
            counts[kind, "none"] += found is None
    print(f"\n{title}\n| kind of error | paths | the step | it or a neighbour | none named |\n|---|---|---|---|---|")
    for kind in sorted({kind for kind, _ in counts}, key=lambda kind: (kind != "all", -counts[kind, "n"])):
        n = counts[kind, "n"]
        shares = " | ".join(f"{100 * counts[kind, what] / n:.0f} %" for what in ("exact", "near", "none"))
        print(f"| {kind} | {n} | {shares} |")


def student() -> Generate:
    """SmolLM2 as `make setup` fetches it."""
    from lema.models.transformers import transformers
    from lema.train import embedded

    worker = transformers(Model("student", "transformers", "student", folder=str(embedded.ensure(home()))), Run())

    def generate(requests):  # type: ignore[no-untyped-def]
        return iter(worker(list(requests)))

    return generate


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--student", type=int, default=0, metavar="N")
    given = parser.parse_args(arguments)
    sets: dict[str, Callable[[], list[tuple[Question, Sample]]]] = {
        "real mistakes": lambda: labelled(given.folder / "mistakes" / "gsm8k_train_mistakes.jsonl"),
        "injected mistakes": lambda: spoilt(given.folder / "gsm8k" / "train.jsonl"),
    }
    hinted = LocationsSpec(model="m", prompt=prompt("correct_reference"), hint="rationale", known=False)
    blind = LocationsSpec(model="m", prompt=prompt("locate_gsm8k"), known=False, max_tokens=12, stop=("\n",))
    programme = reference(Model("m", "m", "m"), Run())
    for name, read in sets.items():
        pairs = read()
        table(f"reference, {name}", pairs, hinted, lambda requests: iter(programme(list(requests))))
        if given.student:
            table(f"SmolLM2-135M, {name}", pairs[: given.student], blind, student())


if __name__ == "__main__":
    main(sys.argv[1:])
