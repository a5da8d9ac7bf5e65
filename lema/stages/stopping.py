"""Enough wrong paths: which paths are asked for, and in which rounds.

All paths stand in an order that the recipe alone decides: one of each question, the questions drawn by seed, then a
second one of each, and so on; within a question by index, and for one index the samplers in an order drawn by seed, so
that none is favoured and all endpoints are busy. A path is asked for unless those before it brought its question, or
all questions, as many wrong ones as are wanted. Rounds only find that out: one asks for what must be asked for whatever
comes of the rest of it. So neither rounds nor the order of replies decide what is asked.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from lema.recipe.sampler_schema import WantSpec
from lema.rows import row_class
from lema.stages.common import stable_shuffle


@row_class
class PathKey:
    """A path that can be asked for."""

    question_id: str
    sampler: str
    index: int


def rounds(paths: Sequence[PathKey], want: WantSpec, wrong: Counter[str]) -> Iterator[Sequence[PathKey]]:
    """The paths to ask for in each round; none is empty. Before the next one, the caller adds the wrong paths of this
    round to `wrong`, by question. Those of samplers that do not stop are all in the first."""
    first = [path for path in paths if not want.counts(path.sampler)]
    most = want.per_question or len(paths)
    todo = _ordered([path for path in paths if want.counts(path.sampler)], want.seed)
    while True:
        room = len(todo) if want.in_all is None else want.in_all - wrong.total()
        due, todo = _due(todo, most, room, wrong, total=want.in_all is not None)
        if not first and not due:
            return
        yield [*first, *due]
        first = []


def _ordered(paths: Sequence[PathKey], seed: int) -> list[PathKey]:
    drawn = stable_shuffle(paths, seed, lambda path: f"{path.question_id}/{path.sampler}/{path.index}")
    place = {name: at for at, name in enumerate(stable_shuffle({path.question_id for path in paths}, seed, str))}
    before = Counter[str]()
    ranked = []
    for path in sorted(drawn, key=lambda path: path.index):
        ranked.append((before[path.question_id], place[path.question_id], path))
        before[path.question_id] += 1
    return [path for *_, path in sorted(ranked, key=lambda entry: entry[:2])]


def _due(
    todo: Sequence[PathKey], most: int, room: int, wrong: Counter[str], *, total: bool
) -> tuple[list[PathKey], list[PathKey]]:
    """The paths that must be asked for, `room` at most, and those that may have to be asked for after them. A `total`
    may be reached by a path that is not decided yet, so that none after it is."""
    due, rest = list[PathKey](), list[PathKey]()
    asked = Counter[str]()
    for at, path in enumerate(todo):
        name = path.question_id
        if wrong[name] >= most:
            continue
        undecided = wrong[name] + asked[name] >= most
        if len(due) >= room or (undecided and total):
            return due, [*rest, *todo[at:]]
        (rest if undecided else due).append(path)
        asked[name] += not undecided
    return due, rest
