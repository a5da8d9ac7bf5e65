"""Whether a recipe got as much as it wanted, for those who tell readers of it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lema.rows import Correction, Grade, Verdict
from lema.text.joins import accepted


def targets(
    plan: Mapping[str, Any], grades: Sequence[Grade], corrections: Sequence[Correction], verdicts: Iterable[Verdict]
) -> list[str]:
    """Sentences; none for a recipe without targets."""
    said = []
    wrong = [row for row in grades if row.outcome == "incorrect"]
    paths = plan.get("samples", {}).get("want", {})
    found = sum(row.sampler in paths.get("samplers", [row.sampler]) for row in wrong)
    if found < paths.get("in_all", 0):
        said.append(f"{paths['in_all']:,} wrong paths were wanted, and there were {found:,}: all paths were asked for.")
    spec = plan.get("corrections", {})
    if want := spec.get("want"):
        got, used = sum(1 for _ in accepted(corrections, verdicts)), {row.sample_id for row in corrections}
        left = sum(row.sampler in spec.get("samplers", [row.sampler]) and row.id not in used for row in wrong)
        more = f"{left:,} wrong paths were left as they are"
        if got >= want:
            said.append(f"Of {len(corrections):,} corrections, {got:,} were accepted; {want:,} were wanted, so {more}.")
        else:
            why = f"`max_candidates` allowed no more, and {more}" if left else "all wrong paths were used"
            said.append(
                f"{want:,} accepted corrections were wanted, and of {len(corrections):,} candidates {got:,} were "
                f"accepted: {why}."
            )
    return [" ".join(said)] if said else []
