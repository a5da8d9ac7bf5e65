"""Endpoints that are asked online: requests go to their clients, in this process or on Ray, and replies come back."""

import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lema.completions.budget import BudgetTracker
from lema.completions.client import EndpointClient, Exchanged
from lema.compute.executor import Executor, WorkerDiedError
from lema.compute.worker_pool import DEATHS, DIED
from lema.errors import RunError
from lema.models.types import Completion, Request
from lema.recipe.params import Run

POLL = 0.2  # seconds after which each of several clients hears of a pause that another was asked for

# Requests to one model with their replies.
Answered = tuple[list[Request], list[Completion]]


@dataclass
class Source:
    """The requests that are missing at one endpoint, and those that were refused by the budget or lost on the way.

    `clients` of them ask it; `paused_until` is when the longest pause is over that any of them was asked for.
    """

    name: str
    run: Run
    requests: Iterator[Request]
    again: deque[Request] = field(default_factory=deque)
    tries: Counter[str] = field(default_factory=Counter)
    clients: int = 0
    paused_until: float = 0.0


class Online:
    """All endpoints of one call, in one thread.

    Each exchange hands a client new requests and takes away what has finished; one at a time of every client is in
    progress, and whichever is over first is served next. After an error `stop` is set: nothing new is sent.
    """

    def __init__(self, executor: Executor, budget: BudgetTracker | None, stop: threading.Event) -> None:
        self.executor, self.budget, self.stop = executor, budget, stop
        self._errors: list[Exception] = []

    def ask(self, sources: Sequence[Source]) -> Iterator[Answered]:
        """Replies as they come, until all requests have one, `stop` is set, or the budget allows none of the rest and
        nothing is in flight that could make room. A block has been kept when the next one is asked for.

        Raises:
            RunError: a backend or a client failed, or a disk; what else was in flight has come before.
        """
        over: queue.SimpleQueue[tuple[Connection, Future[Exchanged]]] = queue.SimpleQueue()
        # The first client of an endpoint is alone until it has a reply: what is wrong with the endpoint, or with its
        # API key, is then found out once.
        clients = [Connection(source, self) for source in sources]
        idle, exchanges = list(clients), 0
        try:
            while True:
                waiting, idle = idle, []
                for client in waiting:
                    exchange = client.send()
                    if exchange is None:
                        idle.append(client)
                    else:
                        exchanges += 1
                        exchange.add_done_callback(partial(_put, over, client))
                if not exchanges and not self._room_again(idle):
                    break
                if exchanges:
                    client, call = over.get()
                    exchanges -= 1
                    idle.append(client)
                    for answered in client.receive(call):
                        source = client.source
                        while source.clients < source.run.endpoints[source.name].actors:
                            clients.append(Connection(source, self))
                            idle.append(clients[-1])
                        yield answered
        finally:
            for client in clients:
                client.service.close()
        if self._errors:
            raise self._errors[0]

    def fail(self, error: Exception) -> None:
        """Nothing new is sent; the first error is raised when all that is in flight has come."""
        self._errors.append(error)
        self.stop.set()

    def _room_again(self, clients: Sequence["Connection"]) -> bool:
        """Whether the budget allows what it refused before, now that nothing of ours is in flight."""
        refused = next((one.source.again[0] for one in clients if one.source.again), None)
        if refused is None or self.budget is None or self.stop.is_set():
            return False
        return self.budget.wait_for_room([refused], self.stop)


class Connection:
    """A client, in this process or in an actor, and the requests that it holds."""

    def __init__(self, source: Source, online: Online) -> None:
        self.source, self._online = source, online
        self._number, self._deaths = source.clients, 0
        self._endpoint = source.run.endpoints[source.name]
        self._start()
        source.clients += 1

    def _start(self) -> None:
        run = self.source.run.model_copy(update={"endpoints": {self.source.name: self._endpoint.part()}})
        keys = [self._endpoint.key] if self._endpoint.key else []
        factory = partial(EndpointClient, run, self.source.name)
        self.service = self._online.executor.serve(factory, self._number, keys)
        self._held: dict[str, Request] = {}
        self._room = 1

    def send(self) -> "Future[Exchanged] | None":
        """Give the client as many requests as it has room for, and have it answer; None when it holds none."""
        source, fresh = self.source, list[Request]()
        try:
            while len(self._held) + len(fresh) < self._room and not self._online.stop.is_set():
                request = source.again.popleft() if source.again else next(source.requests, None)
                if request is None:
                    break
                if self._online.budget and not self._online.budget.reserve([request]):
                    source.again.appendleft(request)
                    break
                fresh.append(request)
        except Exception as error:
            self._online.fail(error)
        self._held.update((request.key, request) for request in fresh)
        if not self._held:
            return None
        pause = max(0.0, source.paused_until - time.monotonic())
        return self.service.exchange(fresh, pause, POLL if self._endpoint.actors > 1 else None)

    def receive(self, exchange: "Future[Exchanged]") -> Iterator[Answered]:
        """The replies of an exchange, by model: those are kept in one go."""
        found: dict[tuple[str, str], Answered] = {}
        try:
            done, self._room, pause = exchange.result()
        except WorkerDiedError:
            self._restart()
            return
        except Exception as error:
            self._held.clear()
            self._online.fail(error)
            return
        self._deaths = 0
        if pause:
            self.source.paused_until = max(self.source.paused_until, time.monotonic() + pause)
        for name, reply in done:
            request = self._held.pop(name)
            if isinstance(reply, RunError):
                self._online.fail(reply)
            elif not self._asked_again(request, reply):
                model = request.model
                block, replies = found.setdefault((model.label, model.identity), ([], []))
                block.append(request)
                replies.append(reply)
        yield from found.values()

    def _asked_again(self, request: Request, reply: Completion) -> bool:
        """Whether a request will be sent once more, of which nobody knows whether it was billed, as the budget allows.

        Without a budget the client has tried often enough.
        """
        if not reply.lost or reply.finish != "failed" or reply.fatal or self._online.stop.is_set():
            return False
        self.source.tries[request.key] += 1
        if self.source.tries[request.key] > self._endpoint.retries or not self.source.run.budget.given:
            return False
        self._lose(request)
        return True

    def _lose(self, request: Request) -> None:
        if self._online.budget:
            self._online.budget.mark_lost([request])
        self.source.again.append(request)

    def _restart(self) -> None:
        """Start another process in the place of one that was killed; what that held is sent again."""
        self._deaths += 1
        if self._deaths > DEATHS or self._online.stop.is_set():
            self._held.clear()
            self._online.fail(RunError(DIED))
            return
        self.service.close()
        for request in self._held.values():
            self._lose(request)
        self._start()


def _put(over: "queue.SimpleQueue[tuple[Connection, Future[Exchanged]]]", client: Connection, call: Any) -> None:
    over.put((client, call))
