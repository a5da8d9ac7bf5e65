"""`report`: one HTML page and one Markdown file with what came out, how sure that is and how it was made.

The page is made of the Markdown and is self-contained: no script, no request, charts as inline SVG. Both files are the
same bytes for the same rows. `lema.report` counts (`counts`), prepares (`data`), draws (`charts`) and sets it out
(`markdown` and its templates).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lema.recipe.training_schema import ReportSpec
from lema.report.counts import count_rows
from lema.report.data import report_facts
from lema.report.examples import contrasts, example_corrections
from lema.report.markdown import render_report
from lema.rows import Answer, Correction, Evolved, Example, Grade, Location, Question, Sample, Verdict


@dataclass(frozen=True, slots=True)
class ReportFiles:
    """The same report twice."""

    html: str
    markdown: str


def report(
    plan: Mapping[str, Any],
    questions: Iterable[Question],
    samples: Iterable[Sample],
    grades: Iterable[Grade],
    locations: Iterable[Location],
    corrections: Iterable[Correction],
    verdicts: Iterable[Verdict],
    evolved: Iterable[Evolved],
    mix: Mapping[str, Iterable[Example]],
    adapters: Mapping[str, Mapping[str, Any]],
    answers: Iterable[Answer],
    scores: Mapping[str, Any],
    *,
    spec: ReportSpec,
) -> ReportFiles:
    """Set the rows of a recipe out for a reader.

    `plan` is the content of plan.yaml. `mix` and `adapters` are by arm; an adapter is the content of its
    training.json with `curve`, a list of mappings with `step` and `loss`. `scores` is as made by the stage.
    """
    counts = count_rows(plan, questions, samples, grades, locations, corrections, verdicts, mix, evolved)
    facts = report_facts(plan, counts, adapters, scores)
    facts["examples"] = example_corrections(questions, samples, corrections, verdicts, spec.examples)
    facts["contrasts"] = contrasts(questions, answers, facts["lead"])
    return ReportFiles(*render_report(spec.title or f"Recipe {plan['recipe']}", facts))
