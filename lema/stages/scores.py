"""`scores`: what the answers are worth: accuracy with intervals, and every pair of models on the same questions.

The tables are made in `lema.report.score_tables`, the formulae and their sources are in `lema.report.statistics`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from lema.errors import RunError
from lema.recipe.training_schema import ScoresSpec
from lema.report.score_tables import answer_sets, perplexities, set_scores, strata_scores
from lema.report.statistics import POWER
from lema.rows import Answer, Probe, Question


def scores(
    questions: Iterable[Question],
    answers: Iterable[Answer],
    probe: Iterable[Probe],
    *,
    spec: ScoresSpec,
    arms: Sequence[str],
) -> dict[str, Any]:
    """Figures of every model and of every pair, nested for `dvc metrics show`; shares, not per cent.

    - `models.<arm>`, on the test questions: n, correct, accuracy, low, high, by_seed (accuracy of each training),
      completion_tokens (mean) and outcomes; with votes also majority (votes, accuracy, low, high) and pass_at. Where
      an arm was trained several times, figures are means over its seeds, and outcomes count all answers.
    - `pairs.<arm>-minus-<earlier arm>`: difference, low, high, p, holm (p corrected for all pairs of the same
      questions), won and lost (questions that the one answers right more often than the other), detectable.
    - `strata.<name>.<value>`: n, and accuracy by arm, of the test questions.
    - `transfer.<set>` and, when they were asked, `dev`: models and pairs of these questions.
    - `probe.<arm>`, when there is one: n, right and wrong (mean perplexities of the paths), delta (wrong - right) with
      low and high, by t over the questions; preferred, the share of questions whose right path is the likelier one.

    Models come in the order of `arms`. Failed requests count as not right. Raises RunError when there are no answers to
    test questions, or when the models did not answer the same questions.
    """
    asked = {row.id: (row.split, row.strata) for row in questions if row.split != "train"}
    sets = answer_sets(answers, {name: split for name, (split, _) in asked.items()}, arms)
    if "test" not in sets:
        raise RunError("scores: there are no answers; does the recipe have test questions?")
    others = {name: set_scores(rows, spec) for name, rows in sets.items() if name != "test"}
    made = {
        "confidence": spec.confidence,
        "power": POWER,
        **set_scores(sets["test"], spec),
        "strata": strata_scores({name: strata for name, (_, strata) in asked.items()}, sets["test"].single),
        "transfer": {name: figures for name, figures in others.items() if name != "dev"},
    }
    dev = {"dev": others["dev"]} if "dev" in others else {}
    measured = perplexities(probe, spec.confidence, arms)
    return made | dev | ({"probe": measured} if measured else {})
