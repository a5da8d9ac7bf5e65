from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest

from lema.errors import RunError
from lema.filters import Candidate, Finding
from lema.filters.answer_matches import answer_matches
from lema.filters.has_fields import has_fields
from lema.rows import Verdict
from lema.stages import verdicts as verdicts_module
from lema.stages.verdicts import verdicts
from lema.tasks import Undecided
from tests.stages.rows import by_id, correction, question, sample, task

PATHS = [sample("q6", "The answer is 5.", index=index) for index in range(4)]
ROWS = [
    correction(PATHS[0], "The answer is 6."),
    correction(PATHS[1], "The answer is 7."),
    correction(PATHS[2], None, None, status="malformed", reason="`Explanation:` is empty", explanation=None),
    correction(PATHS[3], "6"),
]


def judged(**filters: object) -> list[Verdict]:
    return list(verdicts([question(6)], PATHS, ROWS, task=task(), filters=filters))  # type: ignore[arg-type]


def test_every_filter_judges_every_row() -> None:
    made = judged(has_fields=has_fields, answer_matches=answer_matches)
    assert [row.findings for row in made] == [
        (Finding(3, None, "has_fields"), Finding(1, None, "answer_matches")),
        (Finding(3, None, "has_fields"), Finding(0, "answer is 7, gold is 6", "answer_matches")),
        (
            Finding(0, "malformed: `Explanation:` is empty", "has_fields"),
            Finding(None, "no answer", "answer_matches"),
        ),
        (Finding(3, None, "has_fields"), Finding(None, "no answer", "answer_matches")),
    ]
    assert [len(row.drops) for row in made] == [0, 1, 2, 1]
    assert [row.accepted for row in made] == [True, False, False, False]
    assert [(row.id, row.sample_id, row.question_id) for row in made] == [
        (row.id, row.sample_id, row.question_id) for row in ROWS
    ]


@pytest.mark.parametrize("names", [("has_fields", "answer_matches"), ("answer_matches", "has_fields")])
def test_the_first_objection_is_the_reason(names: tuple[str, str]) -> None:
    known = {"has_fields": has_fields, "answer_matches": answer_matches}
    row = judged(**{name: known[name] for name in names})[2]
    assert (row.dropped_by, row.reason) == (names[0], row.drops[0].reason)


def test_without_filters_everything_is_accepted() -> None:
    assert [(row.accepted, row.dropped_by, row.reason) for row in judged()] == [(True, None, None)] * 4


@pytest.mark.parametrize(
    ("equal", "gold"),
    [(str.__eq__, [True, False, None, None]), (lambda *_: Undecided.TIMEOUT, [None] * 4)],
)
def test_a_candidate_tells_whether_its_answer_is_gold(equal: Any, gold: list[bool | None]) -> None:
    seen: list[bool | None] = []

    def look(candidates: Iterable[Candidate]) -> Iterator[Finding]:
        for one in candidates:
            assert one.sample.id == one.correction.sample_id
            seen.append(one.answer_is_gold)
            yield Finding(None)

    list(verdicts([question(6)], PATHS, ROWS, task=replace(task(), equal=equal), filters={"look": look}))
    assert seen == gold


@pytest.mark.parametrize(
    ("found", "message"),
    [([Finding(None)], "judged 1 of 4 corrections"), (["no", None, None, None], "yielded a str, not a Finding")],
)
def test_a_filter_that_judges_amiss_is_refused(found: list[Any], message: str) -> None:
    with pytest.raises(RunError, match=f"filter odd {message}"):
        judged(odd=lambda candidates: iter(found))


def test_what_is_no_number_is_no_measurement() -> None:
    values = (1, float("nan"), float("inf"), None)
    made = judged(odd=lambda candidates: map(Finding, values))
    assert [row.findings[0].value for row in made] == [1.0, None, None, None]
    assert all(row.accepted for row in made)


def test_filters_run_side_by_side_whatever_each_reads_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter that walks on costs one more pass over the inputs; the others share one."""
    monkeypatch.setattr(verdicts_module, "BLOCK", 3)
    paths = by_id(sample("q6", f"Path {number}.", index=number) for number in range(20))
    rows = Reads([correction(row, f"The answer is {number}.") for number, row in enumerate(paths)])

    def simple(candidates: Iterable[Candidate]) -> Iterator[Finding]:
        return (Finding(float(one.correction.answer or 0)) for one in candidates)

    def paired(candidates: Iterable[Candidate]) -> Iterator[Finding]:
        ahead = iter(candidates)
        for one in ahead:
            yield from (Finding(float(row.correction.answer or 0)) for row in (one, *islice(ahead, 1)))

    def greedy(candidates: Iterable[Candidate]) -> Iterator[Finding]:
        return iter([Finding(float(one.correction.answer or 0)) for one in candidates])

    def run(**filters: Any) -> int:
        rows.reads = 0
        made = list(verdicts([question(6)], paths, rows, task=task(), filters=filters))
        assert [[finding.value for finding in row.findings] for row in made] == [
            [float(number)] * len(filters) for number in range(20)
        ]
        return rows.reads

    assert run(simple=simple, paired=paired, again=simple) == 1
    assert run(simple=simple, greedy=greedy, paired=paired) == 2


class Reads(list[Any]):
    """Rows that count how often they are iterated over."""

    reads = 0

    def __iter__(self) -> Iterator[Any]:
        self.reads += 1
        return super().__iter__()
