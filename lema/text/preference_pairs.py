"""Preference pairs of accepted corrections: the corrected solution over the wrong path, and the first corrected step
over the incorrect step (Step-DPO, arXiv 2406.18629).

A Step-DPO pair begins alike in `chosen` and `rejected`, with the `prefix` of kept steps: in DPO's loss what is the same
in both cancels out, and so a chat template needs to know of no turn that is half finished.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, get_args

from lema.recipe.basic_types import Prompt
from lema.recipe.prompt import render
from lema.rows import Correction, Grade, Message, Question, Sample
from lema.text.joins import SortedLookup
from lema.text.render import expand_correction, render_solution, split_last_step
from lema.text.steps import split_steps

PairKind = Literal["full", "step"]
PAIR_KINDS: tuple[PairKind, ...] = get_args(PairKind)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two completions of one prompt, the better one `chosen`; `source_id` is the correction. Both begin with
    `prefix`, the steps that are kept: empty in a pair of whole solutions."""

    source_id: str
    prompt: tuple[Message, ...]
    prefix: str
    chosen: str
    rejected: str


def preference_pairs(
    questions: Iterable[Question],
    samples: Iterable[Sample],
    grades: Iterable[Grade],
    corrections: Iterable[Correction],
    cot: Prompt,
    kind: PairKind,
) -> Iterator[Pair]:
    """Preference pairs of accepted corrections, each once, in a CoT format. There is none of a step where the corrector
    named no incorrect step or did not keep the steps before it, or where both texts are the same."""
    asked, paths, graded = SortedLookup(questions), SortedLookup(samples), SortedLookup(grades)
    for question_id, rows in groupby(corrections, key=lambda row: row.question_id):
        question, seen = asked[question_id], set[tuple[str, str]]()
        prompt = render(cot, {"question": question.text})
        for row in rows:
            sample, wrong = paths[row.sample_id], graded[row.sample_id].answer or ""
            path, solution, at = split_steps(sample.text), expand_correction(row, sample), row.incorrect_step
            if kind == "full":
                better = render_solution(cot, question, solution, question.gold)
                texts = "", better, render_solution(cot, question, path, wrong)
            elif at and path[: at - 1] == solution[: at - 1] and len(path) >= at <= len(solution):
                prefix, step = split_last_step(cot, question, solution[:at], question.gold)
                texts = prefix, prefix + step, prefix + split_last_step(cot, question, path[:at], wrong)[1]
            else:
                continue
            if texts[1] != texts[2] and texts[1:] not in seen:
                seen.add(texts[1:])
                yield Pair(row.id, prompt, *texts)
