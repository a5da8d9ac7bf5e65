"""`mix`: the training examples of one arm, chain of thought and corrections, shuffled (LEMA, sections 2.3 and 3.2).

What an arm takes is decided by small keys, 16 bytes of hash and a number of tokens a row; the rows themselves are made
anew in every pass over the artifacts. So memory does not grow with the texts.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from lema.models.types import Model
from lema.recipe.training_schema import CotRows, Fraction, MixSpec, Sized
from lema.rows import Correction, Example, Grade, Message, Question, Sample, Verdict
from lema.stages.common import shuffle_key
from lema.stages.mix_rows import MixInputs, MixRow

# Tokens of each completion, and of its prompt where prompts are given, as the base is trained on them.
CountTokens = Callable[[Model, Sequence[Sequence[Message]], Sequence[str]], list[int]]
Integers = npt.NDArray[np.int64]
MIX_BLOCK = 1000  # rows whose tokens are counted at once
KEY = 16  # bytes of a hash that rows are ordered by


def mix(
    questions: Iterable[Question],
    samples: Iterable[Sample],
    grades: Iterable[Grade],
    corrections: Iterable[Correction],
    verdicts: Iterable[Verdict],
    base: Model,
    *,
    spec: MixSpec,
    arm: str,
    count_tokens: CountTokens,
) -> Iterator[Example]:
    """Examples `<arm>/<place>`: sorted by id they are in training order. Choices are nested: a larger arm holds the
    rows of a smaller one.

    Tokens are those of the base, and are counted only for arms that are sized by them. An arm that wants more rows or
    tokens than there are gets those there are; the report shows both figures.
    """
    inputs = MixInputs(questions, samples, grades, corrections, verdicts)
    taken = _Arms(spec, inputs, partial(count_tokens, base)).taken(arm)
    keys = [part.training_keys() for part in taken]
    places = np.argsort(_order(np.concatenate(keys)))
    for part, own in zip(taken, np.split(places, np.cumsum([len(one) for one in keys])[:-1]), strict=True):
        for row, place in part.placed(own):
            completion, masked = row.completion()
            yield Example(
                id=f"{arm}/{place:06d}",
                arm=arm,
                kind=row.kind,
                question_id=row.question_id,
                source_id=row.source_id,
                prompt=row.messages(),
                completion=completion,
                masked=masked,
            )


@dataclass
class _Pool:
    """All rows of one kind that an arm can take; a row is known by its number in the order in which they are made."""

    rows: Callable[[], Iterator[MixRow]]
    spec: MixSpec
    count_tokens: Callable[[Sequence[Sequence[Message]], Sequence[str]], list[int]]

    def keys(self, name: Callable[[MixRow], str]) -> npt.NDArray[np.uint64]:
        """Sort keys of all rows, by their names and the seed: see `stable_shuffle`."""
        found = bytearray()
        for row in self.rows():
            found += shuffle_key(self.spec.seed, name(row))[:KEY]
        return np.frombuffer(found, ">u8").reshape(-1, 2)

    @cached_property
    def drawn(self) -> Integers:
        """The numbers of all rows in an order drawn by seed."""
        return _order(self.keys(lambda row: row.source_id))

    @cached_property
    def tokens(self) -> Integers:
        """Tokens of every row."""
        counts, rest = list[int](), self.rows()
        while block := list(islice(rest, MIX_BLOCK)):
            prompts = [row.messages() for row in block] if self.spec.tokens == "example" else []
            counts += self.count_tokens(prompts, [row.completion()[0] for row in block])
        return np.array(counts, np.int64)

    def repeated(self, wanted: int, size: int) -> Integers:
        """Rows of this size as often as it takes to come to another, each time in another order; a row that is taken
        for the n-th time again has n times the number of rows added to its number."""
        times = range(1, wanted // size + 1 if size else 1)
        orders = [_order(self.keys(lambda row, time=time: f"{time} {row.source_id}")) for time in times]  # type: ignore[misc]
        return np.concatenate(
            [self.drawn, *(order + time * len(order) for time, order in zip(times, orders, strict=True))]
        )


@dataclass(frozen=True)
class _Part:
    """What an arm takes of a pool, as `_Pool.repeated` numbers it."""

    pool: _Pool
    taken: Integers

    @property
    def tokens(self) -> Integers:
        return self.pool.tokens[self._numbers]

    @property
    def _numbers(self) -> Integers:
        return self.taken % max(1, len(self.pool.drawn))

    def training_keys(self) -> npt.NDArray[np.uint64]:
        """What decides the places of the rows in training."""
        numbers, times = self._numbers, self.taken // max(1, len(self.pool.drawn))
        found = np.zeros((len(numbers), 2), ">u8")
        for time in np.unique(times).tolist():
            own = times == time
            suffix = f":{time}" if time else ""
            keys = self.pool.keys(lambda row, suffix=suffix: f"order:{row.kind}:{row.source_id}{suffix}")  # type: ignore[misc]
            found[own] = keys[numbers[own]]
        return found

    def placed(self, places: Integers) -> Iterator[tuple[MixRow, int]]:
        """The rows with their places, in the order in which they are made."""
        numbers = self._numbers
        order = np.argsort(numbers, kind="stable")
        wanted = iter(zip(numbers[order].tolist(), places[order].tolist(), strict=True))
        number, place = next(wanted, (None, 0))
        for at, row in enumerate(self.pool.rows()):
            while at == number:
                yield row, place
                number, place = next(wanted, (None, 0))
            if number is None:
                return


def _order(keys: npt.NDArray[np.uint64]) -> Integers:
    return np.lexsort((keys[:, 1], keys[:, 0]))


class _Arms:
    """What each arm takes; a part sized by `match` fills its arm up to the size of the other arm."""

    def __init__(self, spec: MixSpec, inputs: MixInputs, count_tokens: Callable[..., list[int]]) -> None:
        self._spec, self._inputs, self._count_tokens = spec, inputs, count_tokens
        self._pools: dict[int, _Pool] = {}

    def taken(self, arm: str) -> list[_Part]:
        """The CoT rows and the correction rows of an arm."""
        arm_spec = self._spec.arms[arm]
        wanted = [part for part in (arm_spec.cot, arm_spec.corrections) if part]
        parts: dict[int, _Part] = {}
        # At most one of the two is sized by `match`, and then by how large the other is.
        for part in sorted(wanted, key=lambda part: part.match is not None):
            pool = self._pools.setdefault(id(part), self._pool(part))
            parts[id(part)] = _Part(pool, self._cut(part, pool, list(parts.values())))
        return [parts[id(part)] for part in wanted]

    def _pool(self, wanted: Sized) -> _Pool:
        make: Any = self._inputs.cot_rows if isinstance(wanted, CotRows) else self._inputs.correction_rows
        return _Pool(partial(make, wanted, self._spec), self._spec, self._count_tokens)

    def _cut(self, wanted: Sized, pool: _Pool, others: Sequence[_Part]) -> Integers:
        """As many of the rows as are wanted, `others` being the rest of the arm."""
        if wanted.match is not None:
            model = self.taken(wanted.match)
            if wanted.tokens is None:
                count = sum(len(part.taken) for part in model) - sum(len(part.taken) for part in others)
                return _first(wanted, pool, max(0, count))
            tokens = sum(int(part.tokens.sum()) for part in model) - sum(int(part.tokens.sum()) for part in others)
            return _nearest(wanted, pool, tokens)
        if isinstance(wanted.tokens, int):
            return _nearest(wanted, pool, wanted.tokens)
        if isinstance(wanted.rows, Fraction):
            return pool.drawn[: round(wanted.rows.fraction * len(pool.drawn))]
        return _first(wanted, pool, wanted.rows) if isinstance(wanted.rows, int) else pool.drawn


def _first(wanted: Sized, pool: _Pool, count: int) -> Integers:
    rows = pool.repeated(count, len(pool.drawn)) if _repeats(wanted) else pool.drawn
    return rows[:count]


def _nearest(wanted: Sized, pool: _Pool, tokens: int) -> Integers:
    """The first rows, as many as come nearest to so many tokens."""
    rows = pool.repeated(tokens, int(pool.tokens.sum())) if _repeats(wanted) else pool.drawn
    sizes = _Part(pool, rows).tokens
    beyond = 2 * np.cumsum(sizes) - sizes > 2 * tokens
    return rows[: int(beyond.argmax())] if beyond.any() else rows


def _repeats(wanted: Sized) -> bool:
    return isinstance(wanted, CotRows) and wanted.repeat
