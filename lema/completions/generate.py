"""Requests to completions: from the store what is there, from the models what is missing, everything kept.

Every reply is in the journal of the store before anything sees it, so a stage that is killed, or fails later on, pays
for nothing twice. Memory does not grow with the number of requests: of all there is only the key, those that are not
in the store wait on the disk, and replies are read back from there.
"""

import itertools
import os
import threading
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from lema.completions.batch_api import Driver
from lema.completions.batch_records import refuse_twice
from lema.completions.budget import BudgetTracker
from lema.completions.index import Keys
from lema.completions.packs import SERVED
from lema.completions.request_queue import Group, Spool
from lema.completions.store import Store
from lema.completions.work import Asking, Reply, answering, portions, shared, together
from lema.compute.executor import Executor, Work, blocks, merge
from lema.compute.progress import track
from lema.errors import RunError, allowed
from lema.models.types import Completion, Request, key
from lema.recipe.params import Run

# Failures without a single reply after which a model is held to be out of order.
HOPELESS = 20
# Requests that are looked up at once, and completions that are read at once: each part of the store is then read once
# for all that want it.
LOOK, READ = 256, 4096

Stream = Iterator[tuple[list[Request], Reply]]


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
        keys, hits = Keys(), 0
        saved = array("H")  # for every request, whose the reply is that the store has, as the budget numbers them
        with Spool() as misses:
            for block in blocks(requests, LOOK):
                start, names = len(keys), [key(one) for one in block]
                new = [at for at, first in enumerate(keys.extend(names)) if first]
                saved.extend([0] * len(block))
                known = self._store.known([names[at] for at in new])
                for at, there in zip(new, known, strict=True):
                    request = block[at]
                    label = request.model.label
                    if there:
                        self.hits[label] += 1
                        hits += 1
                        saved[start + at] = self._budget.hit_group(request) if self._budget else 0
                    elif self._offline:
                        raise RunError(f"offline, and the store has no reply of model {label!r} with key {names[at]}")
                    else:
                        misses.add(request)
            self._asked += keys.unique
            if misses:
                self._buy(misses, hits)
        whose = iter(saved)
        for names in blocks(keys, READ):
            for name, reply in zip(names, self._store.get_many(names), strict=True):
                if reply is None and name not in self._unserved:
                    raise RunError(f"the completion {name} was dropped from the store meanwhile; run again")
                if (number := next(whose)) and self._budget and reply is not None:
                    self._budget.record_hit(number, reply)
                yield self._unserved[name] if reply is None else reply

    def summary(self) -> str:
        """One line for the log: how many requests there were and where their replies came from."""
        counts = {"hits": self.hits, "bought": self.bought, "refused": self.refused, "failed": self.failed}
        total = sum(count.total() for count in counts.values())
        parts = [f"{count.total()} {what}" for what, count in counts.items() if count or what in ("hits", "bought")]
        return f"{self._name}: {total} requests, {', '.join(parts)}{self._because()}"

    def _buy(self, misses: Spool, hits: int) -> None:
        stop = threading.Event()
        fatal: str | None = None
        total, missing = len(misses) + hits, len(misses)
        if self._budget:
            self._budget.open(group.model for group in misses.groups.values())
        try:
            with track(self._name, total, hits) as bar:
                streams = list(self._streams(misses, stop, bar.tell))
                self._store.writable()
                with closing(merge(streams, stop)) as replies:
                    for block, reply in replies:
                        self._keep(block, reply)
                        missing -= len(block)
                        bar.advance(len(block), self._note(hits))
                        if reply.fatal and fatal is None:
                            fatal = f"{block[0].model.label}: {reply.fatal}"
                        if fatal or self._too_many():
                            # What is under way is still awaited and kept: it is paid for.
                            stop.set()
        finally:
            stop.set()
        if fatal:
            raise RunError(f"{fatal}; what was bought is kept")
        if self._too_many():
            raise RunError(
                f"{self.failed.total()} of {self._asked} requests failed, run.max_failures is {self._run.max_failures}"
                f"{self._because()}; what was bought is kept, run again to ask for the rest"
            )
        if missing and self._budget and self._budget.exceeded:
            raise RunError(self._budget.exceeded_message(missing))

    def _streams(self, misses: Spool, stop: threading.Event, tell: Callable[[str, str], None]) -> Iterator[Stream]:
        """One stream an endpoint, which its models share, and one for all local models, which take turns because they
        share the processors."""
        local: dict[str, list[Group]] = {}
        endpoints: dict[str, list[Group]] = {}
        for group in misses.groups.values():
            where = group.model.endpoint
            kin, name = (local, shared(group.model)) if where is None else (endpoints, where)
            kin.setdefault(name, []).append(group)
        self._check({group.model.label: where for where, groups in endpoints.items() for group in groups})
        for where, groups in endpoints.items():
            if self._run.endpoints[where].mode == "batch":
                yield self._batched(where, groups, misses, stop, partial(tell, where))
            else:
                yield self._online(where, groups, misses, stop)
        if local:
            yield itertools.chain.from_iterable(self._here(groups, misses, stop) for groups in local.values())

    def _here(self, groups: Sequence[Group], misses: Spool, stop: threading.Event) -> Stream:
        """Local models that share what they load, one after the other."""
        named = (name for group in groups for name in (group.model.folder, group.model.adapter))
        folders = [name for name in dict.fromkeys(named) if name and Path(name).is_dir()]
        work = itertools.chain.from_iterable(misses.blocks(group, self._run.batch) for group in groups)
        return self._stream(work, stop, partial(answering, self._run), workers=self._run.workers, folders=folders)

    def _online(self, where: str, groups: Sequence[Group], misses: Spool, stop: threading.Event) -> Stream:
        endpoint = self._run.endpoints[where]
        refuse_twice(where, endpoint.url, _reads(groups, misses))
        part = endpoint.part()
        size, inflight = portions(part)
        tries: Counter[str] = Counter()
        asking = partial(Asking, self._run.model_copy(update={"endpoints": {where: part}}))
        turns = itertools.zip_longest(*(misses.blocks(group, size) for group in groups))
        work = (block for turn in turns for block in turn if block)
        keys = [endpoint.key] if endpoint.key else []
        given: dict[str, Any] = {"workers": endpoint.actors, "inflight": inflight, "variables": keys}
        if self._budget:
            given["again"] = self._budget.reserve_again

        def lost(block: list[Request], reply: Reply) -> bool:
            """Whether a request has to be sent again, of which nobody knows whether it was billed."""
            (completion,), name = reply.completions, key(block[0])
            if not completion.lost or completion.finish != "failed" or reply.fatal or stop.is_set():
                return False
            tries[name] += 1
            if tries[name] > endpoint.retries or not self._run.budget.given:
                return False
            if self._budget:
                self._budget.mark_lost(block)
            return True

        return self._stream(work, stop, asking, lost, **given)

    def _batched(
        self, where: str, groups: Sequence[Group], misses: Spool, stop: threading.Event, tell: Callable[[str], None]
    ) -> Stream:
        models, endpoint = [group.model for group in groups], self._run.endpoints[where]
        return Driver(models, _reads(groups, misses), where, endpoint, stop, tell, self._budget).stream()

    def _stream(
        self,
        work: Iterator[list[Request]],
        stop: threading.Event,
        factory: Callable[[], Work[Request, Any]],
        lost: Callable[[list[Request], Reply], bool] = lambda _block, _reply: False,
        **given: Any,
    ) -> Stream:
        """Blocks and their replies. A block is read when there is room for it, and kept until its reply is there. Those
        that were `lost` come again when the others have been sent.

        Near the end of a budget, what is under way may have to be settled before the next block can be sent; the
        executor is then given the rest anew.
        """
        budget = self._budget
        sent: dict[int, list[Request]] = {}

        def taken() -> Iterator[list[Request]]:
            nonlocal work
            for number, block in enumerate(work):
                if stop.is_set():
                    return
                if budget and not budget.reserve(block):
                    work = itertools.chain([block], work)
                    return
                sent[number] = block
                yield block

        while not stop.is_set():
            for done in self._executor.map(factory, taken(), **given):
                yield from together(
                    (sent.pop(number), reply) for number, reply in done if not lost(sent[number], reply)
                )
            if stop.is_set():
                return
            # What was lost, and what a killed worker held and the budget did not allow to be sent again.
            work = itertools.chain(list(sent.values()), work)
            sent.clear()
            block = next(work, None)
            if block is None or (budget and not budget.wait_for_room(block, stop)):
                return
            work = itertools.chain([block], work)

    def _check(self, endpoints: dict[str, str]) -> None:
        for label, name in endpoints.items():
            if name not in self._run.endpoints:
                raise RunError(
                    f"model {label!r}: no endpoint {name!r} in params.yaml; {allowed(name, self._run.endpoints)}"
                )
        named = {variable for name in endpoints.values() if (variable := self._run.endpoints[name].key)}
        if missing := sorted(variable for variable in named if not os.environ.get(variable)):
            raise RunError(f"no API key: set the environment variable {' and '.join(missing)}")

    def _keep(self, block: Sequence[Request], reply: Reply) -> None:
        label = block[0].model.label
        pairs = [(key(request), completion) for request, completion in zip(block, reply.completions, strict=True)]
        self._store.add(pairs, model=label)
        if self._budget and (sent := [at for at, one in enumerate(reply.completions) if one.sent]):
            replies = [reply.completions[at] for at in sent]
            self._budget.record([block[at] for at in sent], [pairs[at][0] for at in sent], replies)
        if self._budget:
            self._budget.release(name for name, one in pairs if not one.sent)
        for name, completion in pairs:
            if completion.finish in SERVED:
                self.bought[label] += 1
                continue
            self._unserved[name] = completion
            (self.refused if completion.finish == "refused" else self.failed)[label] += 1
            self._reasons[label, completion.error or completion.finish] += 1

    def _too_many(self) -> bool:
        most = self._run.max_failures
        hopeless = any(count >= HOPELESS and not self.bought[label] for label, count in self.failed.items())
        return self.failed.total() > most * self._asked or (most < 1 and hopeless)

    def _note(self, hits: int) -> str:
        unserved = {"refused": self.refused.total(), "failed": self.failed.total()}
        return ", ".join(
            [f"{hits} hits"] * bool(hits) + [f"{count} {what}" for what, count in unserved.items() if count]
        )

    def _because(self) -> str:
        """The commonest reasons of failures and refusals, after a colon."""
        common = sorted(self._reasons.items(), key=lambda item: (-item[1], item[0]))[:3]
        return ": " * bool(common) + ", ".join(f"{label}: {reason} ({count}x)" for (label, reason), count in common)


def _reads(groups: Sequence[Group], misses: Spool) -> list[Callable[[], Iterator[list[Request]]]]:
    """Functions that read the requests of each model."""
    return [partial(misses.blocks, group, READ // 8) for group in groups]
