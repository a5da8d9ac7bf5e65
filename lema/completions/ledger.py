"""The ledger: every request that was sent, by whom it was answered and for how much. It holds keys, counts and money,
never a prompt, a reply or an API key.

A write-ahead log: the most that a request can cost is reserved on the disk before it is sent, and what it did cost is
written after its reply is in the completion store. A process appends to a file of its own, so nobody waits for a lock;
what was spent, what is in doubt and `lema cost` are folds over the lines of all files. States of a request:

    reserved ──> request           answered, or failed at the endpoint: what it cost
        ├──────> released          not sent after all: costs nothing
        ├──────> lost ─> settled   its sender died or its connection broke: in doubt until a person settles it
        └──────> (end of file)     its process was killed: in doubt, as lost

What is in doubt counts as spent. A request that is reserved for a batch may be answered to another process, whose later
"request" ends the doubt. A line of kind "saved" sums what a stage had from the store, by model and prompt.

Of a batch the requests are reserved and answered in the same way; how far it is stands in a ledger of its own
(`lema.completions.batch_records`), each step on the disk before the next is taken. Its states, and what has been
written by then:

    created      `endpoint` and `keys` of its requests
    uploaded     `file`, the id of its file of requests
    submitted    `batch`, its id; when the call had no answer, it is found by the id of its file
    collected    `left`, the keys without a reply, which go into another batch
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TextIO, TypedDict

from lema.completions.append_log import AppendLog, LogReader
from lema.completions.prices import cost_at_current_price
from lema.compute import files
from lema.errors import RunError
from lema.recipe.params import Run


class LedgerLine(TypedDict, total=False):
    """A line of the ledger. `cost` is in dollars, None when it is unknown; `most` the most that it may have been.

    "in doubt" stands in no file: `read_ledger` makes it of a reservation that came to no end.
    """

    kind: Literal["reserved", "released", "lost", "request", "saved", "settled", "in doubt"]
    time: str  # UTC, to the second
    recipe: str
    stage: str
    key: str
    batch: bool
    cost: Decimal | None
    # Of "request" and "saved".
    model: str
    name: str | None
    endpoint: str | None
    prompt: str
    requests: int
    characters: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    finish: str
    most: Decimal | None
    # Of "settled": the keys of the requests, each as often as it was in doubt.
    keys: list[str]


class BatchStep(TypedDict, total=False):
    """A line of the ledger of a batch: what became known with one of its states."""

    endpoint: str
    keys: list[str]
    file: str
    batch: str
    left: list[str]


def ledger_folder() -> Path:
    """Where ledgers lie: beside the journals, on this machine; `$LEMA_HOME` makes it one for several projects."""
    return files.home() / "ledger"


def open_ledger(folder: Path) -> AppendLog:
    """A log of this process, for ledger lines: a kill of this process loses none of them, a power failure the last.

    Raises:
        RunError: the disk is full or not writable.
    """
    return AppendLog.of_this_process(folder, "the ledger", fsync=False)


def _decode(line: Any) -> LedgerLine:
    for name in ("cost", "most"):
        if line.get(name) is not None:
            line[name] = Decimal(line[name])
    found: LedgerLine = line
    return found


def read_ledger(folder: Path) -> Iterator[LedgerLine]:
    """The lines of all ledgers of a folder that say what was spent or saved: of reservations only those in doubt."""
    doubts: list[LedgerLine] = []
    answered: dict[str, str] = {}  # of requests in batches, when the last reply came
    settled: Counter[tuple[str, str]] = Counter()
    for path in sorted(folder.glob("*.jsonl")):
        reserved: dict[str, LedgerLine] = {}
        with closing(LogReader(path, _decode)) as reader:
            for _, line in reader.lines():
                kind, key = line["kind"], line.get("key", "")
                if kind == "reserved":
                    reserved[key] = line
                elif kind in ("released", "lost"):
                    ended = reserved.pop(key, None)
                    doubts += [ended] if ended and kind == "lost" else []
                else:
                    if kind == "request":
                        reserved.pop(key, None)
                        if line["batch"]:
                            answered[key] = max(answered.get(key, ""), line.get("time", ""))
                    elif kind == "settled":
                        settled.update((line["recipe"], one) for one in line["keys"])
                    yield line
        doubts += reserved.values()
    for line in doubts:
        one = line["recipe"], line["key"]
        if line["batch"]:
            # A batch that was answered earlier is another one: it had no reply to this request.
            if answered.get(line["key"], "") >= line.get("time", "") and line["key"] in answered:
                continue
        elif settled[one]:
            settled[one] -= 1
            continue
        yield {**line, "kind": "in doubt"}


def budget_lock(folder: Path) -> TextIO:
    """The file that a process locks to buy under a budget, one at a time a machine; made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / "budget.lock").open("a")


def settle_doubt(folder: Path, recipe: str, billed: Decimal, time: str) -> tuple[int, Decimal]:
    """Have the requests of a recipe that are in doubt count with what was billed for them; returns how many they were,
    and the most that they could have cost. Those of batches are left to the batch.

    Raises:
        RunError: there are none, they cannot have cost so much, or a process is at work under the budget.
    """
    with budget_lock(folder) as lock:
        if not files.try_lock(lock.fileno()):
            raise RunError(
                "a process is at work under this budget, and what it has under way is no doubt: settle later"
            )
        doubts = [
            line
            for line in read_ledger(folder)
            if line["kind"] == "in doubt" and line["recipe"] == recipe and not line["batch"]
        ]
        most = sum((line["cost"] or Decimal(0) for line in doubts), Decimal(0))
        if not doubts:
            raise RunError(f"recipe {recipe} has nothing in doubt that could be settled")
        if billed > most:
            raise RunError(f"what is in doubt of recipe {recipe} can have cost {most} dollars at most, not {billed}")
        keys = sorted(line["key"] for line in doubts)
        with closing(open_ledger(folder)) as own:
            own.append([{"kind": "settled", "time": time, "recipe": recipe, "keys": keys, "cost": billed}])
    return len(doubts), most


@dataclass
class Spending:
    """Dollars by recipe: `booked` for what was answered, `in_doubt` the most that what is in doubt can have cost;
    `batched` is the part of that which is for batches, by recipe and key."""

    booked: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    in_doubt: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    batched: dict[tuple[str, str], Decimal] = field(default_factory=dict)

    def recipe(self, name: str) -> Decimal:
        return self.booked.get(name, Decimal(0)) + self.in_doubt.get(name, Decimal(0))

    def total(self) -> Decimal:
        return sum((*self.booked.values(), *self.in_doubt.values()), Decimal(0))


def fold_spending(folder: Path, run: Run | None = None) -> Spending:
    """All that was ever spent. A request whose cost is unknown counts with the most that it may have cost, one that was
    booked without a price at the one that is known by now, and what living processes have under way is in doubt, too.
    """
    found = Spending()
    for line in read_ledger(folder):
        recipe = line["recipe"]
        if line["kind"] == "request":
            amount = cost_at_current_price(line, run) if line["most"] is None and run else line["most"]
            found.booked[recipe] += amount or 0
        elif line["kind"] == "settled":
            found.booked[recipe] += line["cost"] or 0
        elif line["kind"] == "in doubt":
            amount = line["cost"] or Decimal(0)
            found.in_doubt[recipe] += amount
            if line["batch"]:
                found.batched[recipe, line["key"]] = amount
    return found


@dataclass(frozen=True, slots=True)
class SpendingLimit:
    """A limit of the budget: its key in params.yaml, how many dollars it allows, and how many were spent before."""

    setting: str
    allowed: Decimal
    spent: Decimal


def spending_limits(run: Run, recipe: str, folder: Path) -> tuple[list[SpendingLimit], dict[str, Decimal]]:
    """The limits of a recipe; and what is spent of them for requests that are still in batches, by their keys."""
    budget, spent, limits = run.budget, fold_spending(folder, run), list[SpendingLimit]()
    if (allowed := budget.recipes.get(recipe)) is not None:
        limits.append(SpendingLimit(f"run.budget.recipes.{recipe}", allowed, spent.recipe(recipe)))
    if budget.total is not None:
        limits.append(SpendingLimit("run.budget.total", budget.total, spent.total()))
    return limits, {name: most for (buyer, name), most in spent.batched.items() if buyer == recipe}


def remaining_budget(run: Run, recipe: str) -> dict[str, Decimal]:
    """What each limit of a recipe has left, by its key in params.yaml."""
    return {limit.setting: limit.allowed - limit.spent for limit in spending_limits(run, recipe, ledger_folder())[0]}
