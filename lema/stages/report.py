"""`report`: one HTML page and one Markdown file that say what came out, how sure that is and how it was made.

The page is self-contained: no script, no request, figures as inline SVG. Both files are the same bytes for the same
rows. What they say is computed in `_report_data`, phrased in `_report_words` and placed in `_report_charts`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lema.recipe.training_schema import ReportSpec
from lema.report import charts as charts
from lema.report import findings as words
from lema.report.data import Inputs, facts
from lema.report.markdown import escaped
from lema.rows import Answer, Correction, Evolved, Example, Grade, Location, Question, Sample, Verdict


@dataclass(frozen=True, slots=True)
class Report:
    """The same report twice."""

    html: str
    markdown: str


def report(
    plan: Mapping[str, Any],
    questions: Sequence[Question],
    samples: Sequence[Sample],
    grades: Sequence[Grade],
    locations: Sequence[Location],
    corrections: Sequence[Correction],
    verdicts: Sequence[Verdict],
    evolved: Sequence[Evolved],
    mix: Mapping[str, Sequence[Example]],
    adapters: Mapping[str, Mapping[str, Any]],
    answers: Sequence[Answer],
    scores: Mapping[str, Any],
    *,
    spec: ReportSpec,
) -> Report:
    """Set the rows of a recipe out for a reader.

    `plan` is the content of plan.yaml. `mix` and `adapters` are by arm; an adapter is the content of its
    training.json with `curve`, a list of mappings with `step` and `loss`. `scores` is as made by the stage.
    """
    rows = Inputs(
        plan, questions, samples, grades, locations, corrections, verdicts, evolved, mix, adapters, answers, scores
    )
    found = facts(rows, spec.examples)
    shown = {
        "title": spec.title or (f"Recipe {found['recipe']}" if found["recipe"] else "LEMA"),
        "facts": found,
        "headline": words.headline(found),
        "sentences": words.sentences(found),
        "level": f"{100 * found['confidence']:g}%",
        "methods": words.methods(found),
        "accuracy_ticks": charts.accuracy_axis(found["arms"]),
        "difference_ticks": charts.difference_axis(found["pairs"]),
        "curves": charts.curves(found["training"]),
        "losses": charts.losses(found["training"]),
        "figures": _figures(found["training"]),
    }
    html, markdown = (_templates(escape).get_template(name).render(shown) for name, escape in _FILES)
    return Report(html.strip() + "\n", re.sub(r"\n{3,}", "\n\n", markdown).strip() + "\n")


_FILES = (("report.html.j2", True), ("report.md.j2", False))


@cache
def _templates(escape: bool) -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(charts.__file__).parent / "templates"),
        autoescape=escape,
        undefined=StrictUndefined,
        keep_trailing_newline=False,
    )
    made.globals |= {
        "place": charts.place,
        "points": words.points,
        "decimal": lambda value: f"{value:+.2f}".replace("-", "−"),
        "probability": words.probability,
        "pct": lambda share: f"{words.points(share)}%",
    }
    made.filters |= {"md": escaped, "clip": _clip, "short": lambda value: f"{value:g}"}
    return made


def _clip(text: str) -> str:
    """A model's identity with digests cut to twelve digits."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{20,}\b", r"\1", text)


def _figures(training: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Single figures of all arms side by side, in the order of the first arm that has them."""
    names = dict.fromkeys(name for row in training for name in row["figures"])
    rows = [(name.replace("_", " "), [_figure(row["figures"].get(name)) for row in training]) for name in names]
    return {"arms": [row["arm"] for row in training], "rows": rows}


def _figure(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else _clip(str(value))
