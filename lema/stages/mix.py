"""`mix`: the training examples of one arm, chain of thought and corrections, shuffled (LEMA, sections 2.3 and 3.2)."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from lema.models.types import Model
from lema.recipe.basic_types import Prompt
from lema.recipe.prompt import render, reply
from lema.recipe.training_schema import CorrectionRows, CotRows, Fraction, MixSpec, Sized
from lema.rows import Correction, Example, Grade, Message, Question, Sample, Verdict
from lema.stages import chosen
from lema.text.render import accepted, bare, full, marked, parts
from lema.text.steps import split

# Tokens of each completion, and of its prompt where prompts are given, as the base is trained on them.
CountTokens = Callable[[Model, Sequence[Sequence[Message]], Sequence[str]], list[int]]
_FIGURE = re.compile(r"\d[\d.,]*")


@dataclass(frozen=True, slots=True)
class _Row:
    """What an example is made of, before it has a place in an arm."""

    kind: Literal["cot", "correction"]
    question_id: str
    source_id: str
    prompt: Prompt
    variables: Mapping[str, Any]
    masked: bool = False
    again: int = 0  # how often the row has been taken before

    def asked(self) -> tuple[Message, ...]:
        return render(self.prompt, self.variables)

    def written(self) -> tuple[str, tuple[tuple[int, int], ...]]:
        """The completion and its masked spans."""
        return marked(self.prompt, self.variables) if self.masked else (reply(self.prompt, self.variables), ())


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
    """Examples `<arm>/<place>` in training order. Choices are nested: a larger arm holds the rows of a smaller one.

    Tokens are those of the base, and are counted only for arms that are sized by them. An arm that wants more rows or
    tokens than there are gets those there are; the report shows both figures.
    """

    def count(rows: Sequence[_Row]) -> list[int]:
        prompts = [row.asked() for row in rows] if spec.tokens == "example" else []
        return count_tokens(base, prompts, [row.written()[0] for row in rows])

    pools = _Pools(list(questions), list(samples), list(grades), accepted(corrections, verdicts))
    rows = [row for part in _Arms(spec, pools, count).taken(arm) for row in part]
    for place, row in enumerate(chosen(rows, spec.seed, _in_order)):
        completion, masked = row.written()
        yield Example(
            id=f"{arm}/{place:06d}",
            arm=arm,
            kind=row.kind,
            question_id=row.question_id,
            source_id=row.source_id,
            prompt=row.asked(),
            completion=completion,
            masked=masked,
        )


def _in_order(row: _Row) -> str:
    return f"order:{row.kind}:{row.source_id}" + (f":{row.again}" if row.again else "")


@dataclass(frozen=True)
class _Pools:
    """The artifacts that examples are drawn from; only corrections that were accepted."""

    questions: Sequence[Question]
    samples: Sequence[Sample]
    grades: Sequence[Grade]
    corrections: Sequence[Correction]

    @cached_property
    def asked(self) -> dict[str, Question]:
        return {row.id: row for row in self.questions}

    @cached_property
    def paths(self) -> dict[str, Sample]:
        return {row.id: row for row in self.samples}


@dataclass(frozen=True, slots=True)
class _Arms:
    """What each arm takes; a part sized by `match` fills its arm up to the size of the other arm."""

    spec: MixSpec
    pools: _Pools
    count: Callable[[Sequence[_Row]], list[int]]

    def taken(self, arm: str) -> tuple[list[_Row], list[_Row]]:
        """CoT rows and correction rows of an arm."""
        wanted = self.spec.arms[arm]
        cot = _cot_rows(wanted.cot, self.spec, self.pools) if wanted.cot else []
        mended = _correction_rows(wanted.corrections, self.spec, self.pools) if wanted.corrections else []
        # At most one of the two is sized by `match`, and it needs to know how large the other is.
        if wanted.corrections and wanted.corrections.match is None:
            mended = self._cut(wanted.corrections, mended, [])
        if wanted.cot:
            cot = self._cut(wanted.cot, cot, mended)
        if wanted.corrections and wanted.corrections.match is not None:
            mended = self._cut(wanted.corrections, mended, cot)
        return cot, mended

    def _cut(self, wanted: Sized, rows: list[_Row], others: list[_Row]) -> list[_Row]:
        """As many of the rows as are wanted, `others` being the rest of the arm."""
        if wanted.match is not None:
            model = [row for part in self.taken(wanted.match) for row in part]
            if wanted.tokens is None:
                return self._first(wanted, rows, max(0, len(model) - len(others)))
            return self._budget(wanted, rows, sum(self.count(model)) - sum(self.count(others)))
        if isinstance(wanted.tokens, int):
            return self._budget(wanted, rows, wanted.tokens)
        if isinstance(wanted.rows, Fraction):
            return rows[: round(wanted.rows.fraction * len(rows))]
        return self._first(wanted, rows, wanted.rows) if isinstance(wanted.rows, int) else rows

    def _first(self, wanted: Sized, rows: list[_Row], count: int) -> list[_Row]:
        return (self._repeated(rows, count, len(rows)) if _repeats(wanted) else rows)[:count]

    def _budget(self, wanted: Sized, rows: list[_Row], tokens: int) -> list[_Row]:
        """The first rows, as many as come nearest to so many tokens."""
        if _repeats(wanted):
            rows = self._repeated(rows, tokens, sum(self.count(rows)))
        total = 0
        for place, more in enumerate(self.count(rows)):
            if total + more / 2 > tokens:
                return rows[:place]
            total += more
        return rows

    def _repeated(self, rows: list[_Row], wanted: int, size: int) -> list[_Row]:
        """Rows of this size as often as it takes to come to another, each time in another order."""
        made = list(rows)
        for time in range(1, wanted // size + 1 if size else 1):
            again = [replace(row, again=time) for row in rows]
            made += chosen(again, self.spec.seed, lambda row: f"{row.again} {row.source_id}")
        return made


def _repeats(wanted: Sized) -> bool:
    return isinstance(wanted, CotRows) and wanted.repeat


def _cot_rows(wanted: CotRows, spec: MixSpec, pools: _Pools) -> list[_Row]:
    """Gold rationales, right paths of the named samplers and corrected solutions, each text once a question."""
    train = [question for question in pools.questions if question.split == "train"]
    right = {row.id for row in pools.grades if row.outcome == "correct"}
    solutions: list[tuple[Question, str, Sequence[str]]] = [
        (question, question.id, split(question.rationale))
        for question in train
        if wanted.rationales and question.rationale
    ]
    solutions += [
        (pools.asked[sample.question_id], sample.id, split(sample.text))
        for sample in pools.samples
        if sample.sampler in wanted.samplers and sample.id in right
    ]
    solutions += [
        (pools.asked[row.question_id], row.id, full(row, pools.paths[row.sample_id]))
        for row in pools.corrections
        if wanted.corrected
    ]
    rows: dict[tuple[str, tuple[str, ...]], _Row] = {}
    for question, source_id, lines in solutions:
        steps = bare(lines)
        variables = {"question": question.text, "steps": steps, "answer": question.gold}
        row = _Row("cot", question.id, source_id, wanted.format or spec.cot, variables)
        rows.setdefault((question.id, tuple(steps)), row)
    found = chosen(rows.values(), spec.seed, lambda row: row.source_id)
    return found if wanted.per_question is None else _few(found, wanted.per_question)


def _few(rows: Sequence[_Row], limit: int) -> list[_Row]:
    """At most `limit` rows a question: the gold rationale, then those with figures that none before them has, then
    others. (Distinct equations are what rejection sampling gains by: RFT, arXiv 2308.01825, section 3.3.)"""
    seen: dict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    ranks: dict[str, list[tuple[bool, int, int]]] = defaultdict(list)
    for place, row in sorted(enumerate(rows), key=lambda entry: entry[1].source_id != entry[1].question_id):
        figures = tuple(_FIGURE.findall(" ".join(row.variables["steps"])))
        ranks[row.question_id].append((row.source_id != row.question_id, seen[row.question_id][figures], place))
        seen[row.question_id][figures] += 1
    kept = {place for own in ranks.values() for _, _, place in sorted(own)[:limit]}
    return [row for place, row in enumerate(rows) if place in kept]


def _correction_rows(wanted: CorrectionRows, spec: MixSpec, pools: _Pools) -> list[_Row]:
    """Accepted corrections of the named samplers' paths, each as the format writes it."""
    rows = [
        _Row(
            kind="correction",
            question_id=row.question_id,
            source_id=row.id,
            prompt=wanted.format or spec.correction,
            variables=parts(pools.asked[row.question_id], pools.paths[row.sample_id], row),
            masked=wanted.masked,
        )
        for row in pools.corrections
        if wanted.samplers is None or pools.paths[row.sample_id].sampler in wanted.samplers
    ]
    return chosen(rows, spec.seed, lambda row: row.source_id)
