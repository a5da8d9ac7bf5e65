"""Which filters judged, for those who tell readers of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from lema.filters import distinct_names
from lema.rows import Verdict


def judging(verdicts: Sequence[Verdict], plan: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The options of the filters by the names under which they judged, in order; those of a plan that judged nothing
    by the names that they would have had."""
    spec = plan.get("verdicts", {})
    parts = [(part["use"], part["options"]) for part in spec.get("filters", ())]
    if spec and not unchecked(plan):
        parts.append(("contamination", spec.get("contamination", {})))
    options = dict(zip(distinct_names([use for use, _ in parts]), (own for _, own in parts), strict=True))
    found = [finding.filter for row in verdicts[:1] for finding in row.findings]
    return {name: options.get(name, {}) for name in found or options}


def unchecked(plan: Mapping[str, Any]) -> bool:
    """Whether the recipe turns the check for test questions off."""
    return plan.get("verdicts", {}).get("contamination") is False
