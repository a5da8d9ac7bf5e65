"""Enough wrong paths: which paths are asked for, and in which rounds.

The paths of a question have an order that the recipe alone decides: by index, and for one index the samplers in an
order drawn by seed, so that none is favoured and all endpoints are busy. A question gets the shortest run of them that
holds as many wrong paths as are wanted; and with a number for all questions together, as few questions are begun, in
an order drawn by seed, as can reach it. Rounds only find that out: one asks for as many paths of a question as it still
lacks, and each of them brings one wrong path at most. So neither rounds nor the order of replies decide what is asked.
"""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

from lema.recipe import WantSpec
from lema.rows import Question
from lema.stages import chosen


class _Path(Protocol):
    """A path that can be asked for."""

    @property
    def question(self) -> Question: ...
    @property
    def sampler(self) -> str: ...
    @property
    def index(self) -> int: ...


Path = TypeVar("Path", bound=_Path)


def rounds(paths: Sequence[Path], want: WantSpec | None, wrong: Counter[str]) -> Iterator[Sequence[Path]]:
    """The paths to ask for in each round; none is empty. Before the next one, the caller adds the wrong paths of this
    round to `wrong`, by question. Those of samplers that do not stop are all in the first."""
    if want is None:
        if paths:
            yield paths
        return
    first = [path for path in paths if not want.counts(path.sampler)]
    left: dict[str, deque[Path]] = {}
    drawn = chosen(
        [path for path in paths if want.counts(path.sampler)],
        want.seed,
        lambda path: f"{path.question.id}/{path.sampler}/{path.index}",
    )
    for path in sorted(drawn, key=lambda path: path.index):
        left.setdefault(path.question.id, deque()).append(path)
    waiting, begun = deque(chosen(left, want.seed, str)), list[str]()

    def lacking(question: str) -> int:
        there = len(left[question])
        return there if want.per_question is None else min(there, max(0, want.per_question - wrong[question]))

    while True:
        possible = wrong.total() + sum(map(lacking, begun))
        while waiting and (want.in_all is None or possible < want.in_all):
            begun.append(waiting.popleft())
            possible += lacking(begun[-1])
        due = [left[question].popleft() for question in begun for _ in range(lacking(question))]
        if not first and not due:
            return
        yield [*first, *due]
        first = []
        begun = [question for question in begun if lacking(question)]
