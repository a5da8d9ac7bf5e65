"""Merge joins of artifacts: rows lie sorted by id, and the id of a row begins with the id of the row it was made of
(question `q`, sample `q/s/0`, correction `q/s/0/c0`). So a join is one pass over each stream and holds a row or two.

Ids that are prefixes of one another need care: "q" comes before "q-1" and yet "q-1/s/0" before "q/s/0".
"""

from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from lema.errors import RunError
from lema.rows import Correction, Verdict


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


class _OfQuestion(_HasId, Protocol):
    @property
    def question_id(self) -> str: ...


JoinedRow = TypeVar("JoinedRow", bound=_HasId)
Child = TypeVar("Child", bound=_OfQuestion)


class SortedLookup(Generic[JoinedRow]):
    """Rows by id, out of an iterable sorted by id. Ids must be looked up in ascending order, or in the order of the
    rows that were made of them; the same id may be looked up again before the next one."""

    def __init__(self, rows: Iterable[JoinedRow]) -> None:
        self._rows = iter(rows)
        self._ahead = next(self._rows, None)
        self._passed: list[JoinedRow] = []  # whose ids are prefixes of the latest one: they may still be looked up

    def get(self, name: str) -> JoinedRow | None:
        """The row with this id, or None."""
        if self._passed and self._passed[-1].id == name:
            return self._passed[-1]
        self._passed = [row for row in self._passed if name.startswith(row.id)]
        while self._ahead is not None and self._ahead.id <= name:
            if name.startswith(self._ahead.id):
                self._passed.append(self._ahead)
            self._ahead = next(self._rows, None)
        return next((row for row in self._passed if row.id == name), None)

    def __getitem__(self, name: str) -> JoinedRow:
        """The row with this id. Raises RunError when there is none."""
        row = self.get(name)
        if row is None:
            raise RunError(f"an input has no row {name!r}, or its rows are not sorted by id; make it again")
        return row


class ChildRows(Generic[Child]):
    """The rows of one question after the other, out of an iterable sorted by id. Questions must be asked for in
    ascending order of their ids; those of questions that are skipped are dropped."""

    def __init__(self, rows: Iterable[Child]) -> None:
        self._rows = iter(rows)
        self._ahead = next(self._rows, None)
        self._early: dict[str, list[Child]] = {}  # of questions that come later, by their ids

    def of(self, question_id: str) -> list[Child]:
        """All rows of a question, in order."""
        self._early = {name: rows for name, rows in self._early.items() if name >= question_id}
        end = question_id + chr(ord("/") + 1)
        while self._ahead is not None and self._ahead.id < end:
            if self._ahead.question_id >= question_id:
                self._early.setdefault(self._ahead.question_id, []).append(self._ahead)
            self._ahead = next(self._rows, None)
        return self._early.pop(question_id, [])


def accepted(corrections: Iterable[Correction], verdicts: Iterable[Verdict]) -> Iterator[Correction]:
    """The corrections that may be learnt from. Without the filter `has_fields`, replies that say nothing may have been
    accepted; they teach nothing."""
    judged = SortedLookup(verdicts)
    for row in corrections:
        verdict = judged.get(row.id)
        if verdict is not None and verdict.accepted and row.solution:
            yield row
