"""The limits of a budget: what is spent and set aside of each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial

from lema.completions import ledger
from lema.completions.prices import cost_at_current_price
from lema.recipe.params import Run


@dataclass
class Limit:
    """One limit of the budget: the key of params.yaml that sets it, and what is spent and set aside of it."""

    key: str
    most: Decimal
    spent: Decimal
    reserved: Decimal = Decimal(0)
    warned: set[Decimal] = field(default_factory=set)

    def room(self) -> Decimal:
        return self.most - self.spent - self.reserved


def limits(run: Run, recipe: str, spent: ledger.Spending) -> list[Limit]:
    """The limits that the budget sets to a recipe."""
    found = []
    if recipe in run.budget.recipes:
        found.append(Limit(f"run.budget.recipes.{recipe}", run.budget.recipes[recipe], spent.recipe(recipe)))
    if run.budget.total is not None:
        found.append(Limit("run.budget.total", run.budget.total, spent.total()))
    return found


def remaining(run: Run, recipe: str) -> Mapping[str, Decimal]:
    """What each limit of a recipe has left, by its key in params.yaml."""
    if run.budget.total is None and recipe not in run.budget.recipes:
        return {}
    spent = ledger.fold_spending(ledger.ledger_folder(), partial(cost_at_current_price, run=run))
    return {one.key: one.room() for one in limits(run, recipe, spent)}
