"""The ledger: what was bought when, by whom it was answered and for how much; one line a request that was sent.

A process appends to a file of its own, JSON lines, so that nobody waits for a lock; a torn last line is skipped. It
holds keys, counts and money, never a prompt, a reply or an API key. The reply is in the completion store before its
line is here. There are lines of six kinds:

- "request": one request, what it cost, null when unknown, and the `most` that it may have cost;
- "saved": replies that a stage had from the store, summed by model and prompt, and what they would have cost;
- "reserved": money set aside before a request is sent, when there is a budget. Without a "request" after it in the same
  file, the process was killed in between, and the request may have been paid for: it is in doubt, and counts as spent.
  One of a batch may be answered to another process, whose later "request" settles it, too;
- "lost": whoever had sent a request for which money was set aside died, or its connection was lost, and nobody knows
  whether it was answered. It is in doubt, too; for asking again, money is set aside anew;
- "released": a request for which money was set aside was not sent;
- "settled": what the endpoint billed, as a person has seen, for requests in doubt: the `keys`, each as often as it was.
"""

import json
import logging
import os
import threading
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from io import FileIO
from pathlib import Path
from typing import Any

from lema.compute import files
from lema.errors import RunError

log = logging.getLogger(__name__)

Line = Mapping[str, Any]


def ledger_folder() -> Path:
    """Where ledgers lie: beside the journals, on this machine; `$LEMA_HOME` makes it one for several projects."""
    return files.home() / "ledger"


class Ledger:
    """The file of this process, made with its first line. Safe with several threads."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._file: FileIO | None = None
        self._end = 0  # of the last line that is whole
        self._lock = threading.Lock()

    def write(self, lines: Iterable[Line]) -> None:
        """Append lines, all or none; a kill of this process loses none of them, a power failure the last ones.

        Raises:
            RunError: the disk is full or not writable.
        """
        content = "".join(json.dumps(line, sort_keys=True, default=str) + "\n" for line in lines).encode()
        try:
            with self._lock:
                self._append(content)
        except OSError as error:
            raise RunError(f"the ledger cannot be written: {error}") from None

    def _append(self, content: bytes) -> None:
        if self._file is None:
            self._place.mkdir(parents=True, exist_ok=True)
            self._file, self._end = _opened(self._place), 0
        end = self._end + len(content)
        # Lines must not be glued to a part of one, which is there still if taking it back failed or was interrupted.
        if self._file.seek(0, os.SEEK_END) != self._end:
            self._file.truncate(self._end)
        try:
            while content:
                content = content[self._file.write(content) :]
        except BaseException:
            self._file.truncate(self._end)
            raise
        self._end = end

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                os.fsync(self._file.fileno())
                self._file.close()
                self._file = None


def _opened(place: Path) -> FileIO:
    return (place / f"{os.getpid()}-{uuid.uuid4().hex[:12]}.jsonl").open("ab", buffering=0)


def read_ledger(place: Path) -> Iterator[dict[str, Any]]:
    """The lines of all ledgers of a folder; of those that are reserved only the ones in doubt, as kind "in doubt"."""
    doubts: list[dict[str, Any]] = []
    batched: dict[str, str] = {}
    settled: Counter[tuple[str, str]] = Counter()
    for path in sorted(place.glob("*.jsonl")):
        reserved: dict[str, dict[str, Any]] = {}
        for line in _lines(path):
            if line["kind"] == "reserved":
                reserved[line["key"]] = line
                continue
            if line["kind"] in ("released", "lost"):
                gone = reserved.pop(line["key"], None)
                doubts += [gone] if gone and line["kind"] == "lost" else []
                continue
            if line["kind"] == "request":
                reserved.pop(line["key"], None)
                if line["batch"]:
                    batched[line["key"]] = max(batched.get(line["key"], ""), line.get("time", ""))
            if line["kind"] == "settled":
                settled.update((line["recipe"], name) for name in line["keys"])
            yield line
        doubts += reserved.values()
    for line in doubts:
        whose = line["recipe"], line["key"]
        # A batch that was answered earlier is another one: it had no reply to this request.
        if line["batch"] and line["key"] in batched and batched[line["key"]] >= line.get("time", ""):
            continue
        if not line["batch"] and settled[whose]:
            settled[whose] -= 1
            continue
        yield {**line, "kind": "in doubt"}


def settle_doubt(place: Path, recipe: str, billed: Decimal, time: str) -> tuple[int, Decimal]:
    """Have the requests of a recipe that are in doubt count with what was billed for them; how many they were, and the
    most that they could have cost. Those of batches are left to the batch.

    Raises:
        RunError: there are none, they cannot have cost so much, or a process is at work under the budget.
    """
    place.mkdir(parents=True, exist_ok=True)
    with (place / "budget.lock").open("a") as lock:
        if not files.try_lock(lock.fileno()):
            raise RunError(
                "a process is at work under this budget, and what it has under way is no doubt: settle later"
            )
        doubts = [
            line
            for line in read_ledger(place)
            if (line["kind"], line["recipe"]) == ("in doubt", recipe) and not line["batch"]
        ]
        most = sum((Decimal(line["cost"]) for line in doubts), Decimal(0))
        if not doubts:
            raise RunError(f"recipe {recipe} has nothing in doubt that could be settled")
        if billed > most:
            raise RunError(f"what is in doubt of recipe {recipe} can have cost {most} dollars at most, not {billed}")
        own = Ledger(place)
        keys = sorted(line["key"] for line in doubts)
        own.write([{"kind": "settled", "time": time, "recipe": recipe, "keys": keys, "cost": billed}])
        own.close()
    return len(doubts), most


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as lines:
        for number, text in enumerate(lines, start=1):
            try:
                if not text.endswith(b"\n"):
                    raise ValueError
                yield json.loads(text)
            except ValueError:
                # A process was killed, or is right now, while it wrote this line.
                log.warning("%s, line %d is incomplete and was skipped", path, number)


@dataclass
class Spending:
    """Dollars by recipe: booked, and in doubt; of those in doubt, `batched` ones by recipe and key, whose replies a
    batch may still bring."""

    booked: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    in_doubt: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    batched: dict[tuple[str, str], Decimal] = field(default_factory=dict)

    def recipe(self, name: str) -> Decimal:
        return self.booked.get(name, Decimal(0)) + self.in_doubt.get(name, Decimal(0))

    def total(self) -> Decimal:
        return sum((*self.booked.values(), *self.in_doubt.values()), Decimal(0))


def fold_spending(place: Path, priced: Callable[[Line], Decimal | None] = lambda _: None) -> Spending:
    """All that was ever spent; a request whose cost is unknown counts with the most that it may have cost, one that
    was booked without a price as `priced` says, and what living processes have under way is in doubt, too."""
    found = Spending()
    for line in read_ledger(place):
        if line["kind"] == "request":
            most = priced(line) if line["most"] is None else Decimal(line["most"])
            found.booked[line["recipe"]] += most or 0
        elif line["kind"] == "settled":
            found.booked[line["recipe"]] += Decimal(line["cost"])
        elif line["kind"] == "in doubt":
            found.in_doubt[line["recipe"]] += Decimal(line["cost"])
            if line["batch"]:
                found.batched[line["recipe"], line["key"]] = Decimal(line["cost"])
    return found
