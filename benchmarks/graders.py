"""Speed and agreement of our grading of MATH against bare math-verify, both on one core and on the same texts.

    python benchmarks/graders.py [FILE]

FILE is MATH as JSON lines (`problem`, `solution`, `answer`). For every question there is one text with the gold answer
in another form and one with a wrong answer; which form, and which wrong answer, is drawn with a fixed seed. Writes the
table to benchmarks/results/graders.md, and prints every text on which the two do not agree.
"""

import json
import logging
import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from math_verify import parse, verify

from lema.tasks.math import extract_math, math, symbolic
from lema.tasks.math.latex import canonical_latex

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared/data/math/train_2000.jsonl"
RESULT = ROOT / "benchmarks/results/graders.md"


@dataclass(frozen=True)
class Case:
    """A model's text with an answer, and whether that is the gold one."""

    text: str
    gold: str
    right: bool


def forms(gold: str) -> list[str]:
    """Ways in which models write this answer; all mean the same."""
    found = [gold, gold.replace("\\frac", "\\dfrac")]
    if "\\left" not in gold and "\\!" not in gold and "{,}" not in gold:
        found.append(gold.replace(",", ", "))
        if gold.count("(") == gold.count(")"):
            found.append(gold.replace("(", "\\left(").replace(")", "\\right)"))
    if re.fullmatch(r"-?\d+", gold):
        found += [f"{gold}.0", f"x = {gold}", f"{gold}\\text{{ units}}", f"{int(gold):,}"]
    if fraction := re.fullmatch(r"(-?)\\frac\{(\d+)\}\{(\d+)\}", gold):
        value = Fraction(int(fraction[2]), int(fraction[3]))
        found += [
            f"{fraction[1]}{fraction[2]}/{fraction[3]}",
            f"{fraction[1]}\\frac{{{2 * value.numerator}}}{{{2 * value.denominator}}}",
        ]
        if 10**6 % value.denominator == 0:
            found.append(f"{fraction[1]}{float(value)}")
    return found


def wrong(gold: str, others: Sequence[str], rng: random.Random) -> str:
    """An answer near the gold one, or that of another question."""
    if re.fullmatch(r"-?\d+", gold):
        return rng.choice([str(int(gold) + 1), str(10 * int(gold) + 1), f"\\frac{{{gold}}}{{7}}" if int(gold) else "5"])
    return rng.choice(
        [other for other in rng.sample(others, 5) if canonical_latex(other)[0] != canonical_latex(gold)[0]]
    )


def cases(golds: Sequence[str]) -> Iterator[Case]:
    rng = random.Random("graders 0")
    frames = (
        "So we are done.\nThe answer is ${}$.",
        "Thus the result is $\\boxed{{{}}}$.",
        "Step 3: The answer is ${}$",
    )
    for gold in golds:
        yield Case(rng.choice(frames).format(rng.choice(forms(gold))), gold, True)
        yield Case(rng.choice(frames).format(wrong(gold, golds, rng)), gold, False)


def ours(case: Case) -> bool | str:
    answer = extract_math(case.text)
    same = False if answer is None else math.equal(answer, case.gold)
    return same if isinstance(same, bool) else same.value


def bare(case: Case) -> bool:
    return bool(verify(parse(f"${case.gold}$"), parse(case.text)))


def processor_seconds() -> float:
    """Of this process and of the one that compares for us; time on the clock would count other people's work too."""
    ticks = 0
    for process in symbolic._idle:
        fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def measured(grade: Callable[[Case], bool | str], todo: Sequence[Case]) -> tuple[list[bool | str], float]:
    """The grades, and the seconds that they took."""
    start = processor_seconds()
    found = [grade(case) for case in todo]
    return found, processor_seconds() - start


def _errors(found: Sequence[bool | str], todo: Sequence[Case]) -> int:
    return sum(grade != case.right for grade, case in zip(found, todo, strict=True))


def main() -> None:
    logging.disable(logging.CRITICAL)
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else DATA
    records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    records = [record for record in records if math.counts is None or math.counts(record)]
    golds = [math.read(record).gold for record in records]
    lines = ["| texts | number | ours, a second | math-verify, a second | ratio | our errors | its errors |"]
    lines.append("|---|---|---|---|---|---|---|")
    everything = list(cases(golds))
    groups = {"gold answer in another form": everything[::2], "wrong answer": everything[1::2]}
    for grade in (ours, bare):  # imports, and the start of our process
        for case in everything[:40]:
            grade(case)
    rows = []
    for name, todo in groups.items():
        (own, seconds), (other, more) = measured(ours, todo), measured(bare, todo)
        rows.append((name, len(todo), seconds, more, _errors(own, todo), _errors(other, todo)))
        for one, two, case in zip(own, other, todo, strict=True):
            if one != two or one != case.right:
                print(f"gold {case.gold!r}, right {case.right}, ours {one}, math-verify {two}: {case.text!r}")
    rows.append(("all", *(sum(column) for column in list(zip(*rows, strict=True))[1:])))
    for name, number, seconds, more, errors, others in rows:
        speeds = f"{number / seconds:.0f} | {number / more:.0f} | {more / seconds:.1f}"
        lines.append(f"| {name} | {number} | {speeds} | {errors} | {others} |")
    same = sum(math.equal(str(record["answer"]), gold) is True for record, gold in zip(records, golds, strict=True))
    solved = sum(extract_math(record["solution"]) == gold for record, gold in zip(records, golds, strict=True))
    lines += ["", f"Seconds of one core. {len(records)} questions: the answer found in the gold solution is the gold"]
    lines.append(
        f"answer in {solved}; the field `answer` of this copy, which has lost backslashes, equals it in {same}."
    )
    lines += ["", "Rules were changed after looking at these very texts: the errors are no estimate for others."]
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text("# Grading MATH\n\n" + "\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
