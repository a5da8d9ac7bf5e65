"""The rows that an arm of `mix` can take, made of the artifacts one question at a time."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lema.recipe.basic_types import Prompt
from lema.recipe.prompt import render, reply
from lema.recipe.training_schema import CorrectionRows, CotRows, MixSpec
from lema.rows import Correction, Grade, Message, Question, Sample, Verdict
from lema.stages.common import shuffle_key
from lema.text.final_answer import strip_answers
from lema.text.joins import ChildRows, SortedLookup, accepted
from lema.text.render import correction_variables, expand_correction, render_masked
from lema.text.steps import split_steps

_FIGURE = re.compile(r"\d[\d.,]*")


@dataclass(frozen=True, slots=True)
class MixRow:
    """What an example is made of, before it has a place in an arm."""

    kind: Literal["cot", "correction"]
    question_id: str
    source_id: str
    prompt: Prompt
    variables: Mapping[str, Any]
    masked: bool = False

    def messages(self) -> tuple[Message, ...]:
        """The prompt of the example."""
        return render(self.prompt, self.variables)

    def completion(self) -> tuple[str, tuple[tuple[int, int], ...]]:
        """The completion and its masked spans."""
        return render_masked(self.prompt, self.variables) if self.masked else (reply(self.prompt, self.variables), ())


@dataclass(frozen=True, slots=True)
class MixInputs:
    """The artifacts that rows are made of, sorted by id; only corrections that were accepted count."""

    questions: Iterable[Question]
    samples: Iterable[Sample]
    grades: Iterable[Grade]
    corrections: Iterable[Correction]
    verdicts: Iterable[Verdict]

    def cot_rows(self, wanted: CotRows, spec: MixSpec) -> Iterator[MixRow]:
        """Gold rationales, right paths of the named samplers and corrected solutions, each text once a question."""
        right = ChildRows(self._right(wanted.samplers) if wanted.samplers else ())
        corrected = ChildRows(accepted(self.corrections, self.verdicts) if wanted.corrected else ())
        paths = SortedLookup(self.samples if wanted.corrected else ())
        for question in self.questions:
            if question.split != "train":
                continue
            solutions: list[tuple[str, Sequence[str]]] = []
            if wanted.rationales and question.rationale:
                solutions.append((question.id, split_steps(question.rationale)))
            solutions += [(sample.id, split_steps(sample.text)) for sample in right.of(question.id)]
            solutions += [(row.id, expand_correction(row, paths[row.sample_id])) for row in corrected.of(question.id)]
            rows: dict[tuple[str, ...], MixRow] = {}
            for source_id, lines in solutions:
                steps = strip_answers(lines)
                variables = {"question": question.text, "steps": steps, "answer": question.gold}
                row = MixRow("cot", question.id, source_id, wanted.format or spec.cot, variables)
                rows.setdefault(tuple(steps), row)
            own = list(rows.values())
            yield from own if wanted.per_question is None else _most_varied(own, wanted.per_question, spec.seed)

    def correction_rows(self, wanted: CorrectionRows, spec: MixSpec) -> Iterator[MixRow]:
        """Accepted corrections of the named samplers' paths, each as the format writes it."""
        asked, paths = SortedLookup(self.questions), SortedLookup(self.samples)
        for row in accepted(self.corrections, self.verdicts):
            sample = paths[row.sample_id]
            if wanted.samplers is None or sample.sampler in wanted.samplers:
                yield MixRow(
                    kind="correction",
                    question_id=row.question_id,
                    source_id=row.id,
                    prompt=wanted.format or spec.correction,
                    variables=correction_variables(asked[row.question_id], sample, row),
                    masked=wanted.masked,
                )

    def _right(self, samplers: Sequence[str]) -> Iterator[Sample]:
        graded = SortedLookup(self.grades)
        for sample in self.samples:
            if sample.sampler in samplers and graded[sample.id].outcome == "correct":
                yield sample


def _most_varied(rows: Sequence[MixRow], limit: int, seed: int) -> list[MixRow]:
    """At most `limit` rows of a question: the gold rationale, then those with figures that none before them has, then
    others. (Distinct equations are what rejection sampling gains by: RFT, arXiv 2308.01825, section 3.3.)"""
    drawn = sorted(rows, key=lambda row: (row.source_id != row.question_id, shuffle_key(seed, row.source_id)))
    seen: Counter[tuple[str, ...]] = Counter()
    ranked = []
    for place, row in enumerate(drawn):
        figures = tuple(_FIGURE.findall(" ".join(row.variables["steps"])))
        ranked.append((row.source_id != row.question_id, seen[figures], place))
        seen[figures] += 1
    return [drawn[place] for *_, place in sorted(ranked)[:limit]]
