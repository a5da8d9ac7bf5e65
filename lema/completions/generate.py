"""Requests to completions: from the store what is there, from the models what is missing, everything kept.

Every reply is in the write-ahead journal of the store before anything sees it, so a stage that is killed, or fails
later on, pays for nothing twice. Memory does not grow with the number of requests: of all there is only the key,
those that are not in the store wait on the disk, and replies are read back from there.
"""

import itertools
import os
import threading
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from lema.completions.batch_api import BatchDriver
from lema.completions.batch_records import refuse_submitted
from lema.completions.budget import BudgetTracker
from lema.completions.index import Keys
from lema.completions.online import Answered, Online, Source
from lema.completions.packs import SERVED
from lema.completions.request_queue import Group, RequestQueue
from lema.completions.store import Store
from lema.compute.executor import Executor, blocks, merge
from lema.compute.progress import track
from lema.errors import RunError, allowed
from lema.models.types import Completion, Model, Request
from lema.models.worker import LocalWorkers
from lema.recipe.params import Run

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
        self._asked = 0
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
        keys = Keys()
        saved = array("H")  # for every request, whose the reply is that the store has, as the budget numbers them
        with RequestQueue() as missing:
            for block in blocks(requests, LOOK):
                self._look_up(block, keys, saved, missing)
            self._asked += keys.unique
            if missing.count:
                self._buy(missing, keys.unique - missing.count)
        number = iter(saved)
        for names in blocks(keys, READ):
            for name, reply in zip(names, self._store.get_many(names), strict=True):
                if reply is None and name not in self._unserved:
                    raise RunError(f"the completion {name} was dropped from the store meanwhile; run again")
                if (paid_for := next(number)) and self._budget and reply is not None:
                    self._budget.record_hit(paid_for, reply)
                yield self._unserved[name] if reply is None else reply

    def summary(self) -> str:
        """One line for the log: how many requests there were and where their replies came from."""
        counts = {"hits": self.hits, "bought": self.bought, "refused": self.refused, "failed": self.failed}
        total = sum(count.total() for count in counts.values())
        parts = [f"{count.total()} {what}" for what, count in counts.items() if count or what in ("hits", "bought")]
        return f"{self._name}: {total} requests, {', '.join(parts)}{self._commonest()}"

    def _look_up(self, block: list[Request], keys: Keys, saved: "array[int]", missing: RequestQueue) -> None:
        """Deduplicate requests, and queue those that are not in the store."""
        new = [request for request, first in zip(block, keys.extend([one.key for one in block]), strict=True) if first]
        known = dict(zip((one.key for one in new), self._store.known([one.key for one in new]), strict=True))
        for request in block:
            there = known.pop(request.key, None)  # None for a duplicate
            saved.append(self._budget.hit_group(request) if there and self._budget else 0)
            label = request.model.label
            if there:
                self.hits[label] += 1
            elif there is False and self._offline:
                raise RunError(f"offline, and the store has no reply of model {label!r} with key {request.key}")
            elif there is False:
                missing.add(request)

    def _buy(self, missing: RequestQueue, hits: int) -> None:
        stop, fatal, left = threading.Event(), "", missing.count
        if self._budget:
            self._budget.open(group.model for group in missing.groups.values())
        try:
            with track(self._name, missing.count + hits, hits) as bar:
                streams = list(self._streams(missing, stop, bar.tell))
                self._store.writable()
                with closing(merge(streams, stop)) as answers:
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
    ) -> Iterator[Iterator[Answered]]:
        """One stream of all endpoints that are asked online, one of each Batch API, and one of all local models, which
        take turns because they share the processors."""
        local: dict[str, list[Group]] = {}
        endpoints: dict[str, list[Group]] = {}
        for group in missing.groups.values():
            where = group.model.endpoint
            kin, name = (local, processes_of(group.model)) if where is None else (endpoints, where)
            kin.setdefault(name, []).append(group)
        self._check({group.model.label: where for where, groups in endpoints.items() for group in groups})
        online: list[Source] = []
        for where, groups in endpoints.items():
            endpoint = self._run.endpoints[where]
            reads = [partial(missing.blocks, group, READ // 8) for group in groups]
            if endpoint.mode == "batch":
                models = [group.model for group in groups]
                yield BatchDriver(models, reads, where, endpoint, stop, partial(tell, where), self._budget).stream()
            else:
                refuse_submitted(where, endpoint.url, reads)
                turns = itertools.zip_longest(*(missing.requests(group) for group in groups))
                online.append(Source(where, self._run, (one for turn in turns for one in turn if one)))
        if online:
            yield Online(self._executor, self._budget, stop).ask(online)
        if local:
            yield itertools.chain.from_iterable(self._local(groups, missing, stop) for groups in local.values())

    def _local(self, groups: Sequence[Group], missing: RequestQueue, stop: threading.Event) -> Iterator[Answered]:
        """Replies of local models that share what they load, one after the other.

        Near the end of a budget, what is in progress may have to be settled before the next block can be asked; the
        executor is then given the rest anew.
        """
        budget, sent = self._budget, dict[int, list[Request]]()
        named = (name for group in groups for name in (group.model.folder, group.model.adapter))
        folders = [name for name in dict.fromkeys(named) if name and Path(name).is_dir()]
        work = itertools.chain.from_iterable(missing.blocks(group, self._run.batch) for group in groups)
        refused: list[list[Request]] = []

        def admitted() -> Iterator[list[Request]]:
            for number, block in enumerate(work):
                if stop.is_set():
                    return
                if budget and not budget.reserve(block):
                    refused.append(block)
                    return
                sent[number] = block
                yield block

        while True:
            factory = partial(LocalWorkers, self._run)
            for done in self._executor.map(factory, admitted(), workers=self._run.workers, folders=folders):
                for number, replies in done:
                    yield sent.pop(number), replies
            if not refused or stop.is_set() or not (budget and budget.wait_for_room(refused[0], stop)):
                return
            work = itertools.chain([refused.pop()], work)

    def _check(self, endpoints: dict[str, str]) -> None:
        for label, name in endpoints.items():
            if name not in self._run.endpoints:
                raise RunError(
                    f"model {label!r}: no endpoint {name!r} in params.yaml; {allowed(name, self._run.endpoints)}"
                )
        named = {variable for name in endpoints.values() if (variable := self._run.endpoints[name].key)}
        if absent := sorted(variable for variable in named if not os.environ.get(variable)):
            raise RunError(f"no API key: set the environment variable {' and '.join(absent)}")

    def _keep(self, block: Sequence[Request], replies: Sequence[Completion]) -> str:
        """Record replies and what they cost; returns why no further request to their model can succeed, if so."""
        label, fatal = block[0].model.label, ""
        pairs = [(request.key, encodable(reply)) for request, reply in zip(block, replies, strict=True)]
        self._store.add(pairs, model=label)
        if self._budget:
            sent = [at for at, (_, reply) in enumerate(pairs) if reply.sent]
            if sent:
                self._budget.record([block[at] for at in sent], *zip(*(pairs[at] for at in sent), strict=True))
            self._budget.release(name for name, reply in pairs if not reply.sent)
        for name, reply in pairs:
            if reply.finish in SERVED:
                self.bought[label] += 1
                continue
            self._unserved[name] = reply
            (self.refused if reply.finish == "refused" else self.failed)[label] += 1
            self._reasons[label, reply.error or reply.finish] += 1
            if reply.fatal:
                fatal = fatal or f"{label}: {reply.error}"
        return fatal

    def _too_many(self) -> bool:
        most = self._run.max_failures
        hopeless = any(count >= HOPELESS and not self.bought[label] for label, count in self.failed.items())
        return self.failed.total() > most * self._asked or (most < 1 and hopeless)

    def _note(self, hits: int) -> str:
        counts = {"hits": hits, "refused": self.refused.total(), "failed": self.failed.total()}
        return ", ".join(f"{count} {what}" for what, count in counts.items() if count)

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
    if completion.text.isascii():
        return completion
    mended = completion.text.encode("utf-8", "replace").decode("utf-8")
    return completion if mended == completion.text else replace(completion, text=mended)
