"""`lema cost`: what was bought, for which recipe, by whom it was answered, and what the store saved."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Literal

from lema.completions.ledger import LedgerLine, ledger_folder, read_ledger, settle_doubt
from lema.completions.prices import format_dollars
from lema.compute import parquet
from lema.compute.artifacts import ARTIFACTS, artifact_path
from lema.errors import RecipeError, RunError
from lema.recipe.basic_types import Prompt
from lema.recipe.load import PROMPTS, prompt_names
from lema.recipe.messages import validate
from lema.recipe.prompt import digest
from lema.recipe.yaml import read_yaml
from lema.rows import Verdict

By = Literal["stage", "model", "prompt", "day"]
COST_HEADS = ("", "requests", "failed", "tokens in", "cached", "tokens out", "cost", "unknown", "saved")


# Lines of one group added up, by what is counted.
CostSums = defaultdict[str, Decimal]


def add_to_sums(sums: CostSums, line: LedgerLine) -> None:
    """Add a line: of requests that were sent their number, those that failed, tokens, dollars and how many have an
    unknown cost; of what was saved, settled or is in doubt the dollars and the number."""
    kind, amount = line["kind"], line["cost"] or Decimal(0)
    if kind != "request":
        sums[kind] += amount
        sums[f"number {kind}"] += 1
        return
    sums["requests"] += 1
    sums["failed"] += line["finish"] in ("failed", "refused")
    sums["tokens in"] += line["prompt_tokens"]
    sums["cached"] += line["cached_tokens"]
    sums["tokens out"] += line["completion_tokens"]
    sums["cost"] += amount
    sums["unknown"] += line["cost"] is None


def _cost_row(name: str, sums: CostSums) -> tuple[str, ...]:
    money = ("cost", "saved")
    return (name, *(format_dollars(sums[head]) if head in money else f"{sums[head]:,}" for head in COST_HEADS[1:]))


def cost_report(recipe: str | None, by: By, root: Path) -> str:
    """The ledger of this machine as a table, of one recipe or of all, and what an accepted correction has cost.

    Raises:
        RunError: nothing was bought.
    """
    group_of = _grouping(by, root)
    groups = defaultdict[tuple[str, str], CostSums](partial(defaultdict, Decimal))
    totals, since = defaultdict[str, CostSums](partial(defaultdict, Decimal)), dict[str, str]()
    for line in read_ledger(ledger_folder()):
        if recipe in (None, line["recipe"]):
            add_to_sums(totals[line["recipe"]], line)
            if line["kind"] == "in doubt" and (time := line.get("time")):
                since[line["recipe"]] = min(time, since.get(line["recipe"], time))
            if line["kind"] in ("request", "saved"):
                add_to_sums(groups[line["recipe"], group_of(line)], line)
    if not totals:
        raise RunError(f"the ledger has no request{f' of the recipe {recipe}' if recipe else ''} yet")
    rows: list[tuple[str, ...]] = [COST_HEADS]
    for one, total in sorted(totals.items()):
        rows += [(one,)] if recipe is None else []
        own = sorted((_stage_order(group), group) for name, group in groups if name == one)
        rows += [_cost_row(f"  {group}", groups[one, group]) for _, group in own]
        rows.append(_cost_row("  in all", total))
    notes = [note for one, total in sorted(totals.items()) for note in _notes(one, total, since.get(one))]
    return "\n".join([*format_table(rows), "", *notes]).rstrip()


def _stage_order(group: str) -> int:
    """Stages in the order in which they run; anything else by the alphabet."""
    return list(ARTIFACTS).index(group) if group in ARTIFACTS else 0


def format_table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows as lines, the first column to the left; a row of one cell is a heading over the others."""
    full = [row for row in rows if len(row) > 1]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)] or [0]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=False)]
        yield "  ".join([row[0].ljust(widths[0]), *cells]).rstrip()


def _grouping(by: By, root: Path) -> Callable[[LedgerLine], str]:
    """The group of a line in the table."""
    if by == "day":
        return lambda line: line["time"][:10]
    if by == "prompt":
        names = _prompt_names(root)
        return lambda line: names.get(line["prompt"], line["prompt"][:12] or "unknown")
    return lambda line: line["stage" if by == "stage" else "model"]


def _prompt_names(root: Path) -> dict[str, str]:
    """The prompts of the project by their SHA-256; of a prompt that has changed since, only that is known."""
    found = {}
    for name in prompt_names(root):
        try:
            prompt, _ = validate(read_yaml(root / PROMPTS / f"{name}.yaml", name), Prompt)
        except RecipeError:
            continue
        if prompt is not None:
            found[digest(prompt)] = name
    return found


def settle_by_bill(recipe: str | None, billed: str) -> str:
    """Replace what is in doubt of a recipe by the dollars that the endpoint billed for it; returns a message about it.

    Raises:
        RunError: there is no recipe, no such amount, nothing in doubt, or a process at work under the budget.
    """
    try:
        amount = Decimal(billed)
    except ArithmeticError:
        amount = Decimal(-1)
    if not amount.is_finite() or amount < 0:
        raise RunError(f"--settle takes the dollars that were billed, such as 0 or 0.25; got {billed!r}")
    if recipe is None:
        raise RunError("--settle needs a recipe: lema cost RECIPE --settle DOLLARS")
    time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    count, most = settle_doubt(ledger_folder(), recipe, amount, time)
    return (
        f"{recipe}: {_requests(count)} in doubt, up to {format_dollars(most)}, count with {format_dollars(amount)} "
        "from now on"
    )


def _notes(recipe: str, total: CostSums, since: str | None) -> Iterator[str]:
    if total["cost"] and artifact_path("verdicts", recipe).is_file():
        accepted = sum(row.accepted for row in parquet.Rows(artifact_path("verdicts", recipe), Verdict))
        if accepted:
            each = format_dollars(total["cost"] / accepted)
            yield f"{recipe}: {each} an accepted correction ({accepted:,} accepted)."
    if unknown := total["unknown"]:
        yield f"{recipe}: {_requests(unknown)} of unknown cost {'is' if unknown == 1 else 'are'} not in these sums."
    if total["number settled"]:
        yield f"{recipe}: {format_dollars(total['settled'])} for requests that were in doubt, not in these sums."
    if doubts := total["number in doubt"]:
        yield (
            f"{recipe}: up to {format_dollars(total['in doubt'])} in doubt for {_requests(doubts)}"
            f"{f', the first of {since}' if since else ''}: under way now, or sent and never answered "
            "here. When nothing runs, settle it with what the endpoint billed for them: "
            f"lema cost {recipe} --settle DOLLARS"
        )


def _requests(count: Decimal | int) -> str:
    return "1 request" if count == 1 else f"{count:,} requests"
