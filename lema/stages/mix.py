"""`mix`: the training examples of one arm, chain of thought and corrections, shuffled (LEMA, sections 2.3 and 3.2)."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lema.prompt import render, reply
from lema.recipe import CorrectionRows, CotRows, Fraction, Match, MixSpec, Prompt, Size
from lema.reply import elide, expand, numbered
from lema.rows import Correction, Example, Grade, Question, Sample, Verdict
from lema.stages import chosen
from lema.steps import number, split

# The sentence of a path that states the answer; the format of CoT rows states it again in its own way.
_ANSWER = re.compile(
    r"\s*\b(?:(?:so|thus|hence|therefore)[,\s]+)?the\s+(?:(?:final|correct|right)\s+)?answer\s+is\b.*", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class _Row:
    """What an example is made of, before it has a place in an arm."""

    kind: Literal["cot", "correction"]
    question_id: str
    source_id: str
    prompt: Prompt
    variables: dict[str, Any]


def mix(
    questions: Iterable[Question],
    samples: Iterable[Sample],
    grades: Iterable[Grade],
    corrections: Iterable[Correction],
    verdicts: Iterable[Verdict],
    *,
    spec: MixSpec,
    arm: str,
) -> Iterator[Example]:
    """Examples `<arm>/<place>` in training order. Choices are nested: a larger arm holds the rows of a smaller one.

    An arm that wants more rows than there are gets those there are; the report shows both figures.
    """
    pools = _Pools(list(questions), list(samples), list(grades), list(corrections), list(verdicts))
    cot, correction = _taken(spec, arm, pools)
    rows = chosen([*cot, *correction], spec.seed, lambda row: f"order:{row.kind}:{row.source_id}")
    for place, row in enumerate(rows):
        yield Example(
            id=f"{arm}/{place:06d}",
            arm=arm,
            kind=row.kind,
            question_id=row.question_id,
            source_id=row.source_id,
            prompt=render(row.prompt, row.variables),
            completion=reply(row.prompt, row.variables),
        )


@dataclass(frozen=True, slots=True)
class _Pools:
    """The artifacts that examples are drawn from."""

    questions: Sequence[Question]
    samples: Sequence[Sample]
    grades: Sequence[Grade]
    corrections: Sequence[Correction]
    verdicts: Sequence[Verdict]


def _taken(spec: MixSpec, arm: str, pools: _Pools) -> tuple[list[_Row], list[_Row]]:
    """CoT rows and correction rows of an arm. A part sized by `match` fills the arm up to the size of the other."""
    parts = spec.arms[arm]
    cot = _cot_rows(spec, parts.cot, pools) if parts.cot else []
    fixed = _correction_rows(spec, parts.corrections, pools) if parts.corrections else []
    if parts.cot and not isinstance(parts.cot.rows, Match):
        cot = cot[: _size(parts.cot.rows, len(cot))]
    if parts.corrections and not isinstance(parts.corrections.rows, Match):
        fixed = fixed[: _size(parts.corrections.rows, len(fixed))]
    if parts.cot and isinstance(parts.cot.rows, Match):
        cot = cot[: max(0, _total(spec, parts.cot.rows, pools) - len(fixed))]
    if parts.corrections and isinstance(parts.corrections.rows, Match):
        fixed = fixed[: max(0, _total(spec, parts.corrections.rows, pools) - len(cot))]
    return cot, fixed


def _total(spec: MixSpec, match: Match, pools: _Pools) -> int:
    return sum(len(rows) for rows in _taken(spec, match.match, pools))


def _size(size: Size, available: int) -> int:
    if isinstance(size, Fraction):
        return round(size.fraction * available)
    return size if isinstance(size, int) else available


def _cot_rows(spec: MixSpec, cot: CotRows, pools: _Pools) -> list[_Row]:
    """Gold rationales and right paths of the named samplers, each text once a question."""
    asked = {question.id: question for question in pools.questions if question.split == "train"}
    right = {row.id for row in pools.grades if row.outcome == "correct"}
    solutions = [
        (question, question.id, question.rationale)
        for question in asked.values()
        if cot.rationales and question.rationale
    ] + [
        (asked[sample.question_id], sample.id, sample.text)
        for sample in pools.samples
        if sample.sampler in cot.samplers and sample.id in right
    ]
    rows: dict[tuple[str, tuple[str, ...]], _Row] = {}
    for question, source_id, text in solutions:
        steps = tuple(bare for step in split(text) if (bare := _ANSWER.sub("", step).strip()))
        variables = {"question": question.text, "steps": list(steps), "answer": question.gold}
        rows.setdefault((question.id, steps), _Row("cot", question.id, source_id, spec.cot, variables))
    return chosen(rows.values(), spec.seed, lambda row: row.source_id)


def _correction_rows(spec: MixSpec, wanted: CorrectionRows, pools: _Pools) -> list[_Row]:
    """Accepted corrections; the input is the question and the wrong path, the output what the corrector wrote."""
    asked = {question.id: question for question in pools.questions}
    paths = {sample.id: split(sample.text) for sample in pools.samples}
    accepted = {row.id for row in pools.verdicts if row.accepted}
    rows = [
        _Row("correction", row.question_id, row.id, spec.correction, variables)
        for row in pools.corrections
        # Without the filter `has_fields`, replies that say nothing may have been accepted.
        if row.id in accepted and row.solution
        for variables in [
            _correction(row, row.incorrect_step, row.solution, asked[row.question_id], paths[row.sample_id], wanted)
        ]
    ]
    return chosen(rows, spec.seed, lambda row: row.source_id)


def _correction(
    row: Correction, at: int | None, text: str, question: Question, path: tuple[str, ...], wanted: CorrectionRows
) -> dict[str, Any]:
    """Variables of the correction format, the untouched steps as `...` or in full."""
    solution = (elide if wanted.ellipsis else expand)(text.split("\n"), at, path)
    return {
        "question": question.text,
        "path": number(path),
        "steps": list(path),
        "incorrect_step": at,
        "explanation": row.explanation or "",
        "solution": list(numbered(solution, at)),
        "answer": question.gold,
    }
