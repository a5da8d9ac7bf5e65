"""Requests to completions: from the store what is there, from the models what is missing, everything kept.

Every reply is in the write-ahead journal of the store before anything sees it, so a stage that is killed, or fails
later on, pays for nothing twice. Memory does not grow with the number of requests: of all there is only the key,
those that are not in the store wait on the disk, and replies are read back from there.
"""

import itertools
import os
import pickle
import threading
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter

from lema.completions.batch_api import BatchDriver
from lema.completions.batch_records import records_folder, refuse_submitted
from lema.completions.budget import BudgetTracker
from lema.completions.index import KEY_BYTES, Index
from lema.completions.local import ask_local
from lema.completions.online import Answered, Source, ask_online
from lema.completions.packs import SERVED
from lema.completions.store import Store
from lema.compute import files
from lema.compute.executor import Executor, chunked, merge_streams
from lema.compute.progress import track
from lema.compute.scratch_file import ScratchFile
from lema.errors import RunError, allowed
from lema.models.types import Completion, Model, Request
from lema.recipe.params import Run

_KEY, _MODEL = attrgetter("key"), attrgetter("model")

# Failures without a single reply after which a model is held to be out of order.
HOPELESS = 20
# Requests that are looked up at once, and completions that are read at once: each part of the store is then read once
# for all that want it.
LOOK, READ = 256, 4096
FRAME = 64  # requests that are kept together on the disk, so that they share their model and sampling parameters


@dataclass(slots=True)
class Group:
    """The requests to one model: their places in the file, and the last few, which are not there yet."""

    model: Model
    last: list[Request] = field(default_factory=list)
    frames: "array[int]" = field(default_factory=partial(array, "Q"))

    def __len__(self) -> int:
        return len(self.frames) * FRAME + len(self.last)


class RequestQueue:
    """Requests that wait to be sent, by model in the order in which they were added. They wait on the disk, so memory
    does not grow with their number, and in a file without a name, since they hold prompts."""

    def __init__(self) -> None:
        self.groups: dict[tuple[str, str], Group] = {}
        self.count = 0
        self._file: ScratchFile | None = None  # made when there are more than a few

    def add(self, request: Request) -> None:
        """Keep a request until `close`. Raises RunError when the disk is full or not writable."""
        which = request.model.label, request.model.identity
        group = self.groups.get(which) or self.groups.setdefault(which, Group(request.model))
        group.last.append(request)
        self.count += 1
        if len(group.last) == FRAME:
            self._file = self._file or ScratchFile(files.home())
            group.frames.append(self._file.append(pickle.dumps(group.last, pickle.HIGHEST_PROTOCOL)))
            group.last = []

    def requests(self, group: Group) -> Iterator[Request]:
        """The requests to a model, read when they are asked for; from any thread."""
        for number in group.frames:
            assert self._file is not None
            yield from pickle.loads(self._file.read(number))
        yield from group.last

    def blocks(self, group: Group) -> Iterator[list[Request]]:
        """The same in lists."""
        return chunked(self.requests(group), READ // 8)

    def close(self) -> None:
        """Forget all of them."""
        if self._file is not None:
            self._file.__exit__(None, None, None)


class Generate:
    """Called with requests, yields their completions in the same order; identical requests are asked once.

    `hits`, `bought`, `refused` and `failed` count unique requests by the label of their model, over all calls, and
    so does `run.max_failures`. The `budget` books what is bought and refuses what the budget does not allow.
    """

    def __init__(
        self,
        store: Store,
        executor: Executor,
        run: Run,
        *,
        name: str = "requests",
        offline: bool = False,
        budget: BudgetTracker | None = None,
    ) -> None:
        self._store, self._executor, self._run, self._name, self._offline = store, executor, run, name, offline
        self._budget, self._batches = budget, records_folder()
        self._unserved: dict[str, Completion] = {}
        self._reasons: Counter[tuple[str, str]] = Counter()
        self._asked, self._hopeless, self._fatal = 0, False, ""
        self.hits: Counter[str] = Counter()
        self.bought: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()

    def __call__(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Buy what is missing, of all models at once, then yield.

        Raises:
            RunError: an API key is not in the environment, before anything is sent; a model cannot be used at all;
                more requests failed than `run.max_failures` allows; or, offline, a completion is missing.
        """
        # Of every request the key, and the group in which the budget counts its hit, 0 for none.
        keys, hits, seen = bytearray(), array("H"), Index()
        with closing(RequestQueue()) as missing:
            for block in chunked(requests, LOOK):
                self._look_up(block, seen, hits, missing)
                keys += bytes.fromhex("".join(map(_KEY, block)))
            self._asked += seen.count()
            if missing.count:
                self._buy(missing, seen.count() - missing.count)
        group = iter(hits)
        for at in range(0, len(keys), KEY_BYTES * READ):
            names = keys[at : at + KEY_BYTES * READ].hex(" ", KEY_BYTES).split()
            for name, reply in zip(names, self._store.get_many(names), strict=True):
                if reply is None and name not in self._unserved:
                    raise RunError(f"the completion {name} was dropped from the store meanwhile; run again")
                if (hit := next(group)) and self._budget and reply is not None:
                    self._budget.record_hit(hit, reply)
                yield self._unserved[name] if reply is None else reply

    def summary(self) -> str:
        """One line for the log: how many requests there were and where their replies came from."""
        counts = {"hits": self.hits, "bought": self.bought, "refused": self.refused, "failed": self.failed}
        total = sum(count.total() for count in counts.values())
        parts = [f"{count.total()} {what}" for what, count in counts.items() if count or what in ("hits", "bought")]
        return f"{self._name}: {total} requests, {', '.join(parts)}{self._commonest()}"

    def _look_up(self, block: list[Request], seen: Index, hits: "array[int]", missing: RequestQueue) -> None:
        """Deduplicate requests, and queue those that are not in the store."""
        firsts = seen.add(list(map(_KEY, block)), 0)
        known = iter(self._store.known(list(map(_KEY, itertools.compress(block, firsts)))))
        for request, first in zip(block, firsts, strict=True):
            hit = first and next(known)
            hits.append(self._budget.hit_group(request) if hit and self._budget else 0)
            label = request.model.label
            if hit:
                self.hits[label] += 1
            elif first and self._offline:
                raise RunError(f"offline, and the store has no reply of model {label!r} with key {request.key}")
            elif first:
                missing.add(request)

    def _buy(self, missing: RequestQueue, hits: int) -> None:
        """Ask for what is missing, and keep every reply as it comes."""
        stop, most, left, self._fatal = threading.Event(), self._run.max_failures, missing.count, ""
        if self._budget:
            self._budget.open(map(_MODEL, missing.groups.values()))
        try:
            with track(self._name, missing.count + hits, hits) as bar:
                streams, too_many = self._streams(missing, stop, bar.set_status), False
                self._store.writable()
                with closing(merge_streams(streams, stop) if len(streams) > 1 else streams[0]) as answers:
                    for block, replies in answers:
                        self._keep(block, replies)
                        refused, failed = self.refused.total(), self.failed.total()
                        notes = (
                            f"{hits} hits" if hits else None,
                            f"{refused} refused" if refused else None,
                            f"{failed} failed" if failed else None,
                        )
                        left -= len(block)
                        bar.advance(len(block), ", ".join(filter(None, notes)))
                        too_many = failed > most * self._asked or (most < 1 and self._hopeless)
                        if self._fatal or too_many:
                            # What is in flight is still awaited and kept: it is paid for.
                            stop.set()
        finally:
            stop.set()
        if self._fatal:
            raise RunError(f"{self._fatal}; what was bought is kept")
        if too_many:
            raise RunError(
                f"{self.failed.total()} of {self._asked} requests failed, run.max_failures is {most}"
                f"{self._commonest()}; what was bought is kept, run again to ask for the rest"
            )
        if left and self._budget and self._budget.exceeded:
            raise RunError(self._budget.exceeded_message(left))

    def _streams(
        self, missing: RequestQueue, stop: threading.Event, tell: Callable[[str, str], None]
    ) -> list[Generator[Answered, None, None]]:
        """One stream of all endpoints that are asked online, one of each Batch API, and one of all local models, which
        take turns because they share the processors.

        Raises:
            RunError: an endpoint is not in params.yaml, or an API key not in the environment.
        """
        local, endpoints = list[tuple[Model, int, Iterator[Request]]](), defaultdict[str, list[Group]](list)
        unset: set[str] = set()
        for group in missing.groups.values():
            where = group.model.endpoint
            if where is None:
                local.append((group.model, len(group), missing.requests(group)))
                continue
            if (endpoint := self._run.endpoints.get(where)) is None:
                known = allowed(where, self._run.endpoints)
                raise RunError(f"model {group.model.label!r}: no endpoint {where!r} in params.yaml; {known}")
            endpoints[where].append(group)
            if endpoint.key and not os.environ.get(endpoint.key):
                unset.add(endpoint.key)
        if unset:
            raise RunError(f"no API key: set the environment variable {' and '.join(sorted(unset))}")
        streams, online = list[Generator[Answered, None, None]](), list[Source]()
        for where, groups in endpoints.items():
            endpoint = self._run.endpoints[where]
            if endpoint.mode == "batch":
                for group in groups:
                    told, read = partial(tell, group.model.label), partial(missing.blocks, group)
                    driver = BatchDriver(group.model, read, endpoint, stop, told, self._budget)
                    streams.append(driver.stream())
                continue
            if any(self._batches.glob("*.jsonl")):
                refuse_submitted(where, endpoint.url, [partial(missing.blocks, group) for group in groups])
            # The models take turns (round robin).
            turns = itertools.chain.from_iterable(itertools.zip_longest(*map(missing.requests, groups)))
            online.append(Source(where, self._run, filter(None, turns), self._executor, self._budget, stop))
        if online:
            streams.append(ask_online(online))
        if local:
            streams.append(ask_local(local, self._executor, self._run, self._budget, stop))
        return streams

    def _keep(self, block: Sequence[Request], replies: Sequence[Completion]) -> None:
        """Record replies and what they cost."""
        label, pairs = block[0].model.label, list[tuple[str, Completion]]()
        sent, received, unsent = list[Request](), list[Completion](), list[str]()
        for request, reply in zip(block, replies, strict=True):
            pairs.append((request.key, reply if reply.text.isascii() else encodable(reply)))
            if reply.sent:
                sent.append(request)
                received.append(reply)
            else:
                unsent.append(request.key)
        self._store.add(pairs, model=label)
        if self._budget and sent:
            self._budget.record(sent, received)
        if self._budget and unsent:
            self._budget.release(unsent)
        for name, reply in pairs:
            if reply.finish in SERVED:
                self.bought[label] += 1
                continue
            self._unserved[name] = reply
            (self.refused if reply.finish == "refused" else self.failed)[label] += 1
            self._reasons[label, reply.error or reply.finish] += 1
            self._hopeless = self._hopeless or (self.failed[label] >= HOPELESS and not self.bought[label])
            if reply.fatal:
                self._fatal = self._fatal or f"{label}: {reply.error}"

    def _commonest(self) -> str:
        """The commonest reasons of failures and refusals, after a colon."""
        common = sorted(self._reasons.items(), key=lambda item: (-item[1], item[0]))[:3]
        return ": " * bool(common) + ", ".join(f"{label}: {reason} ({count}x)" for (label, reason), count in common)


def encodable(completion: Completion) -> Completion:
    """The same reply without halves of surrogate pairs, which models do emit and no file can hold."""
    return replace(completion, text=completion.text.encode("utf-8", "replace").decode("utf-8"))
