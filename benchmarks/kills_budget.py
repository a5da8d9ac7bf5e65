"""Kill -9 under a budget of 1.00 dollar: neither the ledger nor the endpoint's bill ever passes it.

    python benchmarks/kills_budget.py [--rounds 4] [--kills 8] [--seed 1]

The project of `kills.py` samples on Ray from an endpoint that has a price, and `run.budget.total` is used up well
before all is bought. In every round its processes are killed one after the other at random moments, and `lema repro` is
started again whenever it ended, until it stops because of the budget. The endpoint bills every reply that it makes,
whether or not anybody is left to receive it. At any time its bill may be no higher than what the ledger has as spent or
set aside, and that no higher than the budget. Then the budget is raised, and the result compared with that of a run
without kills and without a budget. Writes a part of benchmarks/results/kills.md.
"""

import argparse
import math
import random
import shutil
import sys
import tempfile
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kills import CONCURRENCY, LATENCY, STAGE, VICTIMS, family, named, prepared, write

from lema.completions import ledger
from lema.completions.prices import format_dollars, token_cost
from lema.recipe.params import Price
from tests.e2e.project import Project
from tests.e2e.test_completions import answer
from tests.fake_server import FakeServer

PATHS, WORDS, MAX_TOKENS = 80, 40, 64
PROMPT_TOKENS = 11  # that the server says of every prompt
PRICE, BUDGET, RAISED = Price(input=Decimal(3), output=Decimal(30)), Decimal("1.00"), Decimal("10.00")
LOOK = 0.25  # seconds between two looks at bill and ledger
STOPPED = "the budget does not allow the next request"


@dataclass
class Bill:
    """What the endpoint has answered, and wants money for."""

    replies: int = 0
    tokens: int = 0

    def answer(self, body: dict[str, Any]) -> str:
        """A reply of a length of its own, which is billed when it is made."""
        end = answer(body)
        text = "so " * (zlib.crc32(end.encode() + str(body.get("seed")).encode()) % WORDS) + end
        self.replies, self.tokens = self.replies + 1, self.tokens + len(text.split())
        return text

    def total(self) -> Decimal:
        return token_cost(PRICE, PROMPT_TOKENS * self.replies, 0, self.tokens)


@dataclass
class Round:
    """What came of one: kills as they were made, and the most that was seen in the ledger."""

    kills: list[str]
    runs: int = 0
    highest: Decimal = Decimal(0)
    unbooked: Decimal = Decimal(0)  # the most that the bill was above the ledger

    def look(self, project: Project, bill: Bill) -> ledger.Spending:
        billed = bill.total()  # first: the ledger may only be ahead
        spent = ledger.fold_spending(project.root / ".lema" / "ledger")
        self.highest = max(self.highest, spent.total())
        self.unbooked = max(self.unbooked, billed - spent.total())
        return spent


def set_budget(project: Project, url: str, total: Decimal) -> None:
    def change(settings: dict[str, Any]) -> None:
        settings["run"]["endpoints"]["served"]["url"] = url
        settings["run"]["prices"] = {"served-1": {"input": float(PRICE.input), "output": float(PRICE.output)}}
        settings["run"]["budget"] = {"total": float(total)}

    project.change("params.yaml", change)


def used_up(project: Project, server: FakeServer, bill: Bill, moments: list[tuple[str, int]]) -> Round:
    """Run until the budget is the reason to stop. Each of the moments is a victim, and after how many requests of its
    run, or since the last kill in it, it is killed."""
    found, left = Round([]), list(moments)
    while True:
        found.runs += 1
        running = project.start("lema", "repro", STAGE)
        head, looked = psutil.Process(running.pid), 0.0
        at: float = len(server.requests) + left[0][1] if left else math.inf
        while running.poll() is None:
            if len(server.requests) >= at:
                victim, gone = left[0][0], False
                for process in named(family(head), VICTIMS[victim]):
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
                        gone = True
                if gone:
                    found.kills.append(victim)
                    del left[0]
                    # Only an actor is replaced; without anything else the run ends.
                    at = len(server.requests) + left[0][1] if left and victim == "actor" else math.inf
            if time.monotonic() - looked > LOOK:
                found.look(project, bill)
                looked = time.monotonic()
            time.sleep(0.002)
        said, _ = running.communicate()
        if STOPPED in said:
            settle(server)
            return found
        if "Traceback" in said and found.kills[-1:] == ["actor"]:
            raise SystemExit(said)
        if running.returncode == 0 or found.runs > len(moments) + 4:
            raise SystemExit(f"{found.kills}: not stopped by the budget after {found.runs} runs\n{said}")


def settle(server: FakeServer) -> None:
    """Wait until nobody asks any more: actors outlive their driver by a moment."""
    before = -1
    while before != len(server.requests):
        before = len(server.requests)
        time.sleep(1.0)


def play(fresh: Project, root: Path, moments: list[tuple[str, int]], expected: bytes, whole: int) -> tuple[str, bool]:
    """One round, as a line of the table, and whether all holds."""
    bill = Bill()
    project = fresh.copy(root)
    with FakeServer(answer=bill.answer, latency=LATENCY) as server:
        set_budget(project, server.url, BUDGET)
        found = used_up(project, server, bill, moments)
        spent, billed, asked = found.look(project, bill), bill.total(), len(server.requests)
        set_budget(project, server.url, RAISED)
        project.run("lema", "repro", STAGE)
        after = ledger.fold_spending(project.root / ".lema" / "ledger").total()
        again = len(server.requests) - whole
    same = project.read("samples.parquet") == expected
    booked, doubt = (sum(each.values(), Decimal(0)) for each in (spent.booked, spent.in_doubt))
    fine = (
        same
        and billed <= BUDGET
        and found.highest <= BUDGET
        and found.unbooked <= 0
        and bill.total() <= after <= RAISED
    )
    money = (f"{amount:.4f}" for amount in (booked, doubt, billed))
    cells = (", ".join(found.kills), found.runs, asked, *money)
    print(*cells, f"{again} again", f"same bytes: {same}", f"never booked: {found.unbooked}", sep=" | ", flush=True)
    shutil.rmtree(root)
    return f"| {' | '.join(map(str, cells))} | {again} | {'yes' if same else 'NO'} |", fine


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=VICTIMS, help="one kind of kill")
    asked = parser.parse_args()
    draw, lines = random.Random(asked.seed), []
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        bill = Bill()
        with FakeServer(answer=bill.answer, latency=LATENCY) as server:
            fresh = prepared(Path(place) / "fresh", server.url, paths=PATHS, max_tokens=MAX_TOKENS)
            calm = fresh.copy(Path(place) / "calm")
            calm.run("lema", "repro", STAGE)
            expected, whole = calm.read("samples.parquet"), len(server.requests)
        for number in range(asked.rounds):
            victims = [asked.only or list(VICTIMS)[place % len(VICTIMS)] for place in range(asked.kills)]
            draw.shuffle(victims)
            moments = [(victim, draw.randrange(1, 80)) for victim in victims]
            lines.append(play(fresh, Path(place) / f"round-{number}", moments, expected, whole))
    if not asked.only:
        table = "\n".join(line for line, _ in lines)
        write(
            second="## Under a budget\n\n"
            f"`python benchmarks/kills_budget.py --rounds {asked.rounds} --kills {asked.kills} --seed {asked.seed}`: "
            f"{whole:,} requests on Ray that would cost {format_dollars(bill.total())}, {CONCURRENCY} in flight at "
            f"most, under a budget of {format_dollars(BUDGET)}. Killed one after the other at random moments and "
            "started again until the budget was the reason to stop. Billed is every reply that the endpoint made, "
            "whether or not anybody was left to receive it. Then with a higher budget to the end.\n\n"
            "| killed | runs | requests | booked, $ | in doubt, $ | billed, $ | asked again, in all | same bytes |\n"
            f"|---|---|---|---|---|---|---|---|\n{table}\n"
        )
    if not all(fine for _, fine in lines):
        raise SystemExit("more was spent than the budget or the ledger says, or bytes differ")


if __name__ == "__main__":
    main()
