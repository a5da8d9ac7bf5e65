"""Numbers of rows, outcomes and tokens, and who was asked with which prompt: for the report and for the dataset card.

All of it is counted in one pass over each artifact. What is kept grows with the number of kinds (samplers, filters,
models, reasons), beside a reference for each question that has strata and eight bytes for each finding of a filter.
"""

import re
from array import array
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lema.filters import distinct_names
from lema.rows import Correction, Evolved, Example, Grade, Location, Question, Sample, Verdict
from lema.text.joins import SortedLookup

_VARIABLE = re.compile(r"\S+/\S+|-?[0-9][0-9.,]*")  # ids and figures: what differs between reasons of one kind


@dataclass(slots=True)
class FilterCounts:
    """How many corrections filters drop. `both` counts by pairs of filters, those of a filter with itself included,
    `first` by the first filter to drop, `alone` by the only one. `reasons` are those of the first filter with figures
    and ids left out: how many, and one in full. `measured` has what a filter measured, of the corrections that it keeps
    and of those that it drops."""

    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    unchecked: bool = False
    judged: int = 0
    accepted: int = 0
    both: Counter[tuple[str, str]] = field(default_factory=Counter)
    first: Counter[str] = field(default_factory=Counter)
    alone: Counter[str] = field(default_factory=Counter)
    measured: dict[str, tuple["array[float]", "array[float]"]] = field(
        default_factory=lambda: defaultdict(lambda: (array("d"), array("d")))
    )
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, row: Verdict) -> None:
        """Count one correction."""
        self.judged += 1
        self.accepted += row.accepted
        dropped = [finding.filter for finding in row.drops]
        self.both.update((one, other) for one in dropped for other in dropped)
        if len(dropped) == 1:
            self.alone[dropped[0]] += 1
        if row.dropped_by is not None:
            self.first[row.dropped_by] += 1
            kind = row.dropped_by, _VARIABLE.sub("…", row.reason or "")
            self.reasons[kind] += 1
            self.examples.setdefault(kind, row.reason or "")
        for finding in row.findings:
            values = self.measured[finding.filter]
            if finding.value is not None:
                values[finding.reason is not None].append(finding.value)


@dataclass(slots=True)
class Counts:
    """`samplers` has paths, tokens and outcomes of each sampler, `arms` the kinds of rows of each arm and how many of
    them are `masked`. `kinds` has wrong paths, corrections and accepted ones by sampler and by stratum of the question
    (LEMA, figure 10 and appendix D.6): table, value, figure. `error_types` are those that the corrector named. `asked`
    has replies, tokens read and tokens written of each role, model and prompt (its SHA-256, empty where there was
    none), and None for a judge, whose replies stand in the completion store alone."""

    questions: int = 0
    samplers: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    corrections: int = 0
    parsed: int = 0
    usable: int = 0  # accepted, and with a solution to learn from
    filters: FilterCounts = field(default_factory=FilterCounts)
    error_types: Counter[str] = field(default_factory=Counter)
    accepted_types: Counter[str] = field(default_factory=Counter)
    kinds: dict[str, dict[str, Counter[str]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(Counter)))
    corrected: Counter[str] = field(default_factory=Counter)  # wrong paths with a correction, by sampler
    arms: dict[str, Counter[str]] = field(default_factory=dict)
    asked: dict[tuple[str, str, str], list[int] | None] = field(default_factory=dict)

    def total(self, figure: str) -> int:
        """A figure of `samplers` over all of them."""
        return sum(own[figure] for own in self.samplers.values())


def count_rows(
    plan: Mapping[str, Any],
    questions: Iterable[Question],
    samples: Iterable[Sample],
    grades: Iterable[Grade],
    locations: Iterable[Location],
    corrections: Iterable[Correction],
    verdicts: Iterable[Verdict],
    mix: Mapping[str, Iterable[Example]],
    evolved: Iterable[Evolved] = (),
) -> Counts:
    """Count the rows of a recipe. `plan` is the content of plan.yaml, `mix` is by arm.

    Models that were asked come in the order of the stages, judges, which the plan alone names, last. A mistake that was
    injected was located by nobody. The tokens of a new question are those of its writer and its solver together.
    """
    made, strata, tokens = Counts(), dict[str, Any](), defaultdict[tuple[str, str, str], list[int]](lambda: [0, 0, 0])
    shared: dict[Any, Any] = {}

    def ask(role: str, row: Sample | Location | Correction | Evolved, model: str = "", replies: int = 1) -> None:
        sums = tokens[role, model or row.model, row.prompt]
        for at, number in enumerate((replies, row.prompt_tokens, row.completion_tokens)):
            sums[at] += number

    def tell_apart(question: str, sampler: str, figure: str, number: int = 1) -> None:
        for name, value in (("sampler", sampler), *strata.get(question, ())):
            made.kinds[name][value][figure] += number

    def counted_verdicts() -> Iterator[Verdict]:
        for verdict in verdicts:
            made.filters.add(verdict)
            yield verdict

    for question in questions:
        made.questions += question.split == "train"
        if question.strata:
            own = tuple((one.name, one.value) for one in question.strata)
            strata[question.id] = shared.setdefault(own, own)
    for sample in samples:
        made.samplers[sample.sampler].update(
            paths=1, prompt_tokens=sample.prompt_tokens, completion_tokens=sample.completion_tokens
        )
        ask(f"sampler {sample.sampler}", sample)
    for grade in grades:
        made.samplers[grade.sampler][grade.outcome] += 1
        tell_apart(grade.question_id, grade.sampler, "wrong", grade.outcome == "incorrect")
    for location in locations:
        if location.model != "injected":
            ask("locator", location)
    path, stream = None, counted_verdicts()
    judged = SortedLookup(stream)
    for row in corrections:
        sampler, verdict = row.sample_id.rsplit("/", 2)[1], judged.get(row.id)
        kept = verdict is not None and verdict.accepted
        made.corrections += 1
        made.parsed += row.status == "parsed"
        made.usable += kept and bool(row.solution)
        made.corrected[sampler] += row.sample_id != path
        path = row.sample_id
        if row.error_type:
            made.error_types[row.error_type] += 1
            made.accepted_types[row.error_type] += kept
        ask("corrector", row)
        tell_apart(row.question_id, sampler, "corrections")
        tell_apart(row.question_id, sampler, "accepted", kept)
    deque(stream, maxlen=0)  # verdicts of no correction here
    for arm, examples in mix.items():
        made.arms[arm] = Counter()
        for example in examples:
            made.arms[arm].update((example.kind, *(("masked",) if example.masked else ())))
    for new in evolved:
        solver = "" if new.solver == new.model else f"{new.model}, solved by {new.solver}"
        ask("evolver", new, solver, 1 + len(new.completions))
    made.filters.options = filter_options(plan, made.filters.measured)
    made.filters.unchecked = plan.get("verdicts", {}).get("contamination") is False
    made.asked |= tokens
    for name, options in made.filters.options.items():
        if "model" in options:
            made.asked[f"filter {name}", options["model"], options.get("prompt", "")] = None
    return made


def filter_options(plan: Mapping[str, Any], judged: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """The options of the filters by the names under which they judged, in order; where nothing was judged, by the
    names that the plan gives them."""
    spec = plan.get("verdicts", {})
    parts = [(part["use"], part["options"]) for part in spec.get("filters", ())]
    if spec and spec.get("contamination") is not False:
        parts.append(("contamination", spec.get("contamination", {})))
    options = dict(zip(distinct_names([use for use, _ in parts]), (own for _, own in parts), strict=True))
    return {name: options.get(name, {}) for name in list(judged) or options}
