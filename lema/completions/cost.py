"""`lema cost`: what was bought, for which recipe, by whom it was answered, and what the store saved."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from lema.completions import ledger
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
HEADS = ("", "requests", "failed", "tokens in", "cached", "tokens out", "cost", "unknown", "saved")


@dataclass
class Sums:
    """What belongs together: requests that were sent, those of them that failed, tokens, dollars, requests of unknown
    cost, and dollars that replies in the store would have cost again."""

    requests: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost: Decimal = Decimal(0)
    unknown: int = 0
    saved: Decimal = Decimal(0)

    def add(self, line: Mapping[str, Any]) -> None:
        amount = None if line["cost"] is None else Decimal(line["cost"])
        if line["kind"] == "saved":
            self.saved += amount or 0
            return
        self.requests += 1
        self.failed += line["finish"] in ("failed", "refused")
        self.prompt_tokens += line["prompt_tokens"]
        self.cached_tokens += line["cached_tokens"]
        self.completion_tokens += line["completion_tokens"]
        self.cost += amount or 0
        self.unknown += amount is None

    def row(self, name: str) -> tuple[str, ...]:
        counts = (self.requests, self.failed, self.prompt_tokens, self.cached_tokens, self.completion_tokens)
        return (
            name,
            *(f"{count:,}" for count in counts),
            format_dollars(self.cost),
            f"{self.unknown:,}",
            format_dollars(self.saved),
        )


def cost_report(recipe: str | None, by: By, root: Path) -> str:
    """The ledger of this machine as a table, of one recipe or of all, and what an accepted correction has cost.

    Raises:
        RunError: nothing was bought.
    """
    lines = [line for line in ledger.read_ledger(ledger.ledger_folder()) if recipe in (None, line["recipe"])]
    if not lines:
        raise RunError(f"the ledger has no request{f' of the recipe {recipe}' if recipe else ''} yet")
    name = _namer(by, root)
    groups: dict[tuple[str, str], Sums] = defaultdict(Sums)
    totals: dict[str, Sums] = defaultdict(Sums)
    doubt: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    settled: dict[str, Decimal] = defaultdict(Decimal)
    for line in lines:
        if line["kind"] == "in doubt":
            doubt[line["recipe"]].append(line)
            continue
        if line["kind"] == "settled":
            settled[line["recipe"]] += Decimal(line["cost"])
            continue
        groups[line["recipe"], name(line)].add(line)
        totals[line["recipe"]].add(line)
    rows: list[tuple[str, ...]] = [HEADS]
    recipes = sorted({*totals, *doubt, *settled})
    for one in recipes:
        rows += [(one,)] if recipe is None else []
        own = sorted((_order(group), group) for whose, group in groups if whose == one)
        rows += [groups[one, group].row(f"  {group}") for _, group in own]
        rows.append(totals[one].row("  in all"))
    notes = [note for one in recipes for note in _notes(one, totals[one], doubt[one], settled.get(one))]
    return "\n".join([*format_table(rows), "", *notes]).rstrip()


def _order(group: str) -> int:
    """Stages in the order in which they run; anything else by the alphabet."""
    return list(ARTIFACTS).index(group) if group in ARTIFACTS else 0


def format_table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows as lines, the first column to the left; a row of one cell is a heading over the others."""
    full = [row for row in rows if len(row) > 1]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)] or [0]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=False)]
        yield "  ".join([row[0].ljust(widths[0]), *cells]).rstrip()


def _namer(by: By, root: Path) -> Callable[[Mapping[str, Any]], str]:
    if by == "day":
        return lambda line: str(line["time"][:10])
    if by == "prompt":
        names = _prompts(root)
        return lambda line: names.get(line["prompt"], line["prompt"][:12] or "unknown")
    return lambda line: str(line[by])


def _prompts(root: Path) -> dict[str, str]:
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
    """Have what is in doubt of a recipe count with so many dollars that the endpoint billed for it; says what was done.

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
    count, most = ledger.settle_doubt(
        ledger.ledger_folder(), recipe, amount, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    )
    requests = "1 request" if count == 1 else f"{count:,} requests"
    return (
        f"{recipe}: {requests} in doubt, up to {format_dollars(most)}, count with {format_dollars(amount)} from now on"
    )


def _notes(recipe: str, sums: Sums, doubt: Sequence[Mapping[str, Any]], settled: Decimal | None) -> Iterator[str]:
    if sums.cost and artifact_path("verdicts", recipe).is_file():
        accepted = sum(row.accepted for row in parquet.read_rows(artifact_path("verdicts", recipe), Verdict))
        if accepted:
            yield f"{recipe}: {format_dollars(sums.cost / accepted)} an accepted correction ({accepted:,} accepted)."
    if sums.unknown:
        requests = "request of unknown cost is" if sums.unknown == 1 else "requests of unknown cost are"
        yield f"{recipe}: {sums.unknown:,} {requests} not in these sums."
    if settled is not None:
        yield f"{recipe}: {format_dollars(settled)} for requests that were in doubt, not in these sums."
    if doubt:
        most = format_dollars(sum((Decimal(line["cost"]) for line in doubt), Decimal(0)))
        count = "1 request" if len(doubt) == 1 else f"{len(doubt):,} requests"
        since = min((line["time"] for line in doubt if "time" in line), default="")
        yield (
            f"{recipe}: up to {most} in doubt for {count}{f', the first of {since}' if since else ''}: under way now, "
            "or sent and never answered here. When nothing runs, settle it with what the endpoint billed for them: "
            f"lema cost {recipe} --settle DOLLARS"
        )
