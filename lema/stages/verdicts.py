"""`verdicts`: which corrections may be learnt from. The paper keeps those with the right final answer."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

from lema.errors import RunError
from lema.filters import Candidate, Filter
from lema.rows import Correction, Finding, Question, Sample, Verdict
from lema.tasks import Task, Undecided
from lema.text.joins import SortedLookup

BLOCK = 1000  # candidates that are held at once


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

    Filters run side by side over one stream of candidates, a block at a time.

    RunError if a filter leaves some out, or yields something else than findings.
    """
    candidates = _Candidates(questions, samples, corrections, task)
    shared = _SharedBlock(candidates)
    columns = {name: iter(judge(shared)) for name, judge in filters.items()}
    blocks = chain(candidates.blocks(), [[]])
    block = next(blocks)
    for following in blocks:
        shared.advance(block, following)
        found = [_findings(name, column, shared) for name, column in columns.items()]
        yield from map(_verdict, block, zip(*found, strict=True) if found else [()] * len(block))
        block = following
    shared.advance((), ())
    for name, column in columns.items():
        if more := sum(1 for _ in column):
            raise _miscounted(name, shared.stop + more, shared.stop)


@dataclass(frozen=True)
class _Candidates:
    """All candidates in the order of the corrections, joined anew whenever they are iterated over."""

    questions: Iterable[Question]
    samples: Iterable[Sample]
    corrections: Iterable[Correction]
    task: Task

    def __iter__(self) -> Iterator[Candidate]:
        asked, paths = SortedLookup(self.questions), SortedLookup(self.samples)
        for row in self.corrections:
            yield _candidate(asked[row.question_id], paths[row.sample_id], row, self.task)

    def blocks(self) -> Iterator[list[Candidate]]:
        rest = iter(self)
        while block := list(islice(rest, BLOCK)):
            yield block


class _SharedBlock:
    """What filters iterate over: the block of candidates that is held for all of them, and the following one for those
    that look a little ahead. A filter that reads on beyond it, such as one that sends all candidates to a model first,
    goes on with a stream of its own; so none has to wait for another, and no more than two blocks are held."""

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        self.candidates = candidates
        self.block: Sequence[Candidate] = ()
        self.start = 0  # place of the first candidate of the block
        self._following: Sequence[Candidate] = ()
        self._ended = False

    @property
    def stop(self) -> int:
        """The place after the block."""
        return self.start + len(self.block)

    def advance(self, block: Sequence[Candidate], following: Sequence[Candidate]) -> None:
        """Hold the next block; no `following` one ends the stream."""
        self.start, self.block, self._following = self.stop, block, following
        self._ended = not following

    def __iter__(self) -> Iterator[Candidate]:
        place = 0
        while not (self._ended and place == self.stop):
            at = place - self.start
            if 0 <= at < len(self.block):
                yield self.block[at]
            elif 0 <= (at := at - len(self.block)) < len(self._following):
                yield self._following[at]
            else:
                yield from islice(self.candidates, place, None)
                return
            place += 1


def _findings(name: str, column: Iterator[Finding], shared: _SharedBlock) -> list[Finding]:
    """What one filter finds of a block, with its name."""
    found: list[Finding] = []
    for finding in islice(column, len(shared.block)):
        if not isinstance(finding, Finding):
            raise RunError(f"verdicts: filter {name} yielded a {type(finding).__name__}, not a Finding")
        value = None if finding.value is None or not math.isfinite(finding.value) else float(finding.value)
        found.append(replace(finding, filter=name, value=value))
    if len(found) < len(shared.block):
        total = sum(1 for _ in shared.candidates)
        raise _miscounted(name, shared.start + len(found), total)
    return found


def _miscounted(name: str, judged: int, total: int) -> RunError:
    return RunError(f"verdicts: filter {name} judged {judged} of {total} corrections")


def _candidate(question: Question, sample: Sample, correction: Correction, task: Task) -> Candidate:
    answer = correction.answer
    equal = Undecided.UNPARSED if answer is None else task.equal(answer, question.gold)
    return Candidate(question, sample, correction, None if isinstance(equal, Undecided) else bool(equal))


def _verdict(candidate: Candidate, findings: Sequence[Finding]) -> Verdict:
    correction = candidate.correction
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
