"""`verdicts`: which corrections may be learnt from. The paper keeps those with the right final answer."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from lema.errors import RunError
from lema.filters import Candidate, Filter
from lema.rows import Correction, Drop, Question, Sample, Verdict
from lema.tasks import Task, Undecided


def verdicts(
    questions: Iterable[Question],
    samples: Iterable[Sample],
    corrections: Iterable[Correction],
    *,
    task: Task,
    filters: Mapping[str, Filter],
) -> Iterator[Verdict]:
    """One row a correction, accepted or not. Every filter judges every row, so that a drop matrix can be shown.

    RunError if a filter leaves some out.
    """
    asked = {question.id: question for question in questions}
    paths = {sample.id: sample for sample in samples}
    candidates = [_candidate(asked[row.question_id], paths[row.sample_id], row, task) for row in corrections]
    reasons = {name: list(judge(candidates)) for name, judge in filters.items()}
    for name, column in reasons.items():
        if len(column) != len(candidates):
            raise RunError(f"verdicts: filter {name} judged {len(column)} of {len(candidates)} corrections")
    for place, candidate in enumerate(candidates):
        drops = tuple(Drop(name, reason) for name, column in reasons.items() if (reason := column[place]) is not None)
        yield _verdict(candidate.correction, drops)


def _candidate(question: Question, sample: Sample, correction: Correction, task: Task) -> Candidate:
    answer = correction.answer
    equal = Undecided.UNPARSED if answer is None else task.equal(answer, question.gold)
    return Candidate(question, sample, correction, None if isinstance(equal, Undecided) else bool(equal))


def _verdict(correction: Correction, drops: Sequence[Drop]) -> Verdict:
    return Verdict(
        id=correction.id,
        sample_id=correction.sample_id,
        question_id=correction.question_id,
        accepted=not drops,
        dropped_by=drops[0].filter if drops else None,
        reason=drops[0].reason if drops else None,
        drops=tuple(drops),
    )
