"""Requests to completions: from the store what is there, from the models what is missing, everything kept.

Every reply is in the write-ahead journal of the store before anything sees it, so a stage that is killed, or fails
later on, pays for nothing twice. Memory does not grow with the number of requests: of all there is only the key,
those that are not in the store wait on the disk, and replies are read back from there.
"""

import itertools
import os
import threading
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from operator import attrgetter
from pathlib import Path

from lema.completions.batch_api import BatchDriver
from lema.completions.batch_records import refuse_submitted
from lema.completions.budget import BudgetTracker
from lema.completions.index import Keys
from lema.completions.online import Answered, Source, ask_online
from lema.completions.packs import SERVED
from lema.completions.request_queue import Group, RequestQueue
from lema.completions.store import Store
from lema.compute.executor import SMALL, Executor, LocalExecutor, chunked, merge_streams
from lema.compute.progress import track
from lema.errors import RunError, allowed
from lema.models.types import Completion, Model, Request
from lema.models.worker import LocalWorkers, computes_only
from lema.recipe.params import Run

_KEY, _MODEL, _SENT = attrgetter("key"), attrgetter("model"), attrgetter("sent")

# Failures without a single reply after which a model is held to be out of order.
HOPELESS = 20
# Requests that are looked up at once, and completions that are read at once: each part of the store is then read once
# for all that want it.
LOOK, READ = 256, 4096


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
        self._budget = budget
        self._unserved: dict[str, Completion] = {}
        self._reasons: Counter[tuple[str, str]] = Counter()
        self._asked, self._hopeless = 0, False
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
        keys, hits = Keys(), array("H")  # of every request the group in which the budget counts its hit, 0 for none
        with closing(RequestQueue()) as missing:
            for block in chunked(requests, LOOK):
                self._look_up(block, keys, hits, missing)
            self._asked += keys.unique
            if missing.count:
                self._buy(missing, keys.unique - missing.count)
        group = iter(hits)
        for names in chunked(keys, READ):
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

    def _look_up(self, block: list[Request], keys: Keys, hits: "array[int]", missing: RequestQueue) -> None:
        """Deduplicate requests, and queue those that are not in the store."""
        firsts = keys.extend(list(map(_KEY, block)))
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
        stop, fatal, left = threading.Event(), "", missing.count
        if self._budget:
            self._budget.open(map(_MODEL, missing.groups.values()))
        try:
            with track(self._name, missing.count + hits, hits) as bar:
                streams = self._streams(missing, stop, bar.set_status)
                self._store.writable()
                with closing(merge_streams(streams, stop) if len(streams) > 1 else streams[0]) as answers:
                    for block, replies in answers:
                        fatal = fatal or self._keep(block, replies)
                        left -= len(block)
                        bar.advance(len(block), self._note(hits))
                        if fatal or self._too_many():
                            # What is in flight is still awaited and kept: it is paid for.
                            stop.set()
        finally:
            stop.set()
        if fatal:
            raise RunError(f"{fatal}; what was bought is kept")
        if self._too_many():
            raise RunError(
                f"{self.failed.total()} of {self._asked} requests failed, run.max_failures is {self._run.max_failures}"
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
        local, endpoints = defaultdict[str, list[Group]](list), defaultdict[str, list[Group]](list)
        unset: set[str] = set()
        for group in missing.groups.values():
            where = group.model.endpoint
            if where is None:
                local[processes_of(group.model)].append(group)
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
            endpoint, reads = self._run.endpoints[where], [partial(_blocks, missing, group) for group in groups]
            if endpoint.mode == "batch":
                for group, read in zip(groups, reads, strict=True):
                    told = partial(tell, group.model.label)
                    driver = BatchDriver(group.model, read, endpoint, stop, told, self._budget)
                    streams.append(driver.stream())
                continue
            refuse_submitted(where, endpoint.url, reads)
            online.append(Source(where, self._run, _in_turn([missing.requests(group) for group in groups])))
        if online:
            streams.append(ask_online(online, self._executor, self._budget, stop))
        if local:
            streams.append(self._local(list(local.values()), missing, stop))
        return streams

    def _local(
        self, turns: Sequence[list[Group]], missing: RequestQueue, stop: threading.Event
    ) -> Generator[Answered, None, None]:
        """Replies of local models: in one turn those that share what they load.

        Near the end of a budget, what is in progress may have to be settled before the next block can be asked; the
        executor is then given the rest anew.
        """
        budget, sent = self._budget, dict[int, list[Request]]()

        def reserved(work: Iterator[list[Request]], refused: list[list[Request]]) -> Iterator[list[Request]]:
            for number, block in enumerate(work):
                if stop.is_set():
                    return
                if budget and not budget.reserve(block):
                    refused.append(block)
                    return
                sent[number] = block
                yield block

        for groups in turns:
            named = (name for group in groups for name in (group.model.folder, group.model.adapter))
            folders = [name for name in dict.fromkeys(named) if name and Path(name).is_dir()]
            waiting = (chunked(missing.requests(group), self._run.batch) for group in groups)
            work, refused = itertools.chain.from_iterable(waiting), list[list[Request]]()
            executor: Executor = self._executor
            workers: int | None = self._run.workers
            if computes_only(groups[0].model):
                # No model in memory: all processors, unless the work is done before workers have started.
                workers = None
                executor = LocalExecutor() if sum(map(len, groups)) <= SMALL else executor
            while True:
                given = reserved(work, refused)
                factory = partial(LocalWorkers, self._run)
                for done in executor.map(factory, given, workers=workers, folders=folders):
                    for number, replies in done:
                        yield sent.pop(number), replies
                if not refused or stop.is_set():
                    break
                if budget and not budget.wait_for_room(refused[0], stop):
                    return
                work = itertools.chain([refused.pop()], work)

    def _keep(self, block: Sequence[Request], replies: Sequence[Completion]) -> str:
        """Record replies and what they cost; returns why no further request to their model can succeed, if so."""
        label, fatal = block[0].model.label, ""
        pairs, sent, unsent = list[tuple[str, Completion]](), list[Request](), list[str]()
        for request, reply in zip(block, replies, strict=True):
            pairs.append((request.key, reply if reply.text.isascii() else encodable(reply)))
            sent.append(request) if reply.sent else unsent.append(request.key)
        self._store.add(pairs, model=label)
        if self._budget and sent:
            self._budget.record(sent, list(map(_KEY, sent)), list(filter(_SENT, replies)))
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
                fatal = fatal or f"{label}: {reply.error}"
        return fatal

    def _too_many(self) -> bool:
        most = self._run.max_failures
        return self.failed.total() > most * self._asked or (most < 1 and self._hopeless)

    def _note(self, hits: int) -> str:
        counts = (("hits", hits), ("refused", self.refused.total()), ("failed", self.failed.total()))
        return ", ".join([f"{count} {what}" for what, count in counts if count])

    def _commonest(self) -> str:
        """The commonest reasons of failures and refusals, after a colon."""
        common = sorted(self._reasons.items(), key=lambda item: (-item[1], item[0]))[:3]
        return ": " * bool(common) + ", ".join(f"{label}: {reason} ({count}x)" for (label, reason), count in common)


def processes_of(model: Model) -> str:
    """Local models that are equal in this lie in the same folder, and take turns in the same processes: their backend
    may load once what they have in common."""
    folder = model.folder and (model.folder, model.revision, sorted(model.options.items()))
    return repr((model.backend, folder or (model.label, model.identity)))


def encodable(completion: Completion) -> Completion:
    """The same reply without halves of surrogate pairs, which models do emit and no file can hold."""
    return replace(completion, text=completion.text.encode("utf-8", "replace").decode("utf-8"))


def _blocks(missing: RequestQueue, group: Group) -> Iterator[list[Request]]:
    return chunked(missing.requests(group), READ // 8)


def _in_turn(models: Sequence[Iterator[Request]]) -> Iterator[Request]:
    """Requests of several models (round robin)."""
    for turn in itertools.zip_longest(*models):
        yield from filter(None, turn)
