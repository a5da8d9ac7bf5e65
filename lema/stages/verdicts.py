"""`verdicts`: which corrections may be learnt from. The paper keeps those with the right final answer."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from lema.errors import RunError
from lema.filters import Candidate, Filter
from lema.rows import Correction, Finding, Question, Sample, Verdict
from lema.tasks import Task, Undecided


def verdicts(
    questions: Iterable[Question],
    samples: Iterable[Sample],
    corrections: Iterable[Correction],
    *,
    task: Task,
    filters: Mapping[str, Filter],
) -> Iterator[Verdict]:
    """One row a correction, accepted or not. Every filter measures every row, so that its threshold can be chosen and
    a drop matrix shown; what a filter needs beyond its candidates is bound to it already.

    RunError if a filter leaves some out, or yields something else than findings.
    """
    asked = {question.id: question for question in questions}
    rows = list(corrections)
    mended = {row.sample_id for row in rows}
    paths = {sample.id: sample for sample in samples if sample.id in mended}
    candidates = [_candidate(asked[row.question_id], paths[row.sample_id], row, task) for row in rows]
    columns = [_column(name, judge, candidates) for name, judge in filters.items()]
    for place, candidate in enumerate(candidates):
        yield _verdict(candidate.correction, [column[place] for column in columns])


def _column(name: str, judge: Filter, candidates: Sequence[Candidate]) -> list[Finding]:
    """What one filter finds of all candidates, with its name."""
    found: list[Finding] = []
    for finding in judge(candidates):
        if not isinstance(finding, Finding):
            raise RunError(f"verdicts: filter {name} yielded a {type(finding).__name__}, not a Finding")
        value = None if finding.value is None or not math.isfinite(finding.value) else float(finding.value)
        found.append(replace(finding, filter=name, value=value))
    if len(found) != len(candidates):
        raise RunError(f"verdicts: filter {name} judged {len(found)} of {len(candidates)} corrections")
    return found


def _candidate(question: Question, sample: Sample, correction: Correction, task: Task) -> Candidate:
    answer = correction.answer
    equal = Undecided.UNPARSED if answer is None else task.equal(answer, question.gold)
    return Candidate(question, sample, correction, None if isinstance(equal, Undecided) else bool(equal))


def _verdict(correction: Correction, findings: Sequence[Finding]) -> Verdict:
    first = next((finding for finding in findings if finding.reason is not None), None)
    return Verdict(
        id=correction.id,
        sample_id=correction.sample_id,
        question_id=correction.question_id,
        accepted=first is None,
        dropped_by=first.filter if first else None,
        reason=first.reason if first else None,
        findings=tuple(findings),
    )
