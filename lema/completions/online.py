"""Endpoints that are asked online: requests go to their clients, in this process or on Ray, and replies come back."""

import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter

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

    `clients` of them ask it; `paused_until` is when the longest pause is over that any of them was asked for. After an
    `error` the `stop` that all sources share is set, and nothing new is sent.
    """

    name: str
    run: Run
    requests: Iterator[Request]
    executor: Executor
    budget: BudgetTracker | None
    stop: threading.Event
    again: deque[Request] = field(default_factory=deque)
    tries: Counter[str] = field(default_factory=Counter)
    clients: int = 0
    paused_until: float = 0.0
    error: Exception | None = None

    def fail(self, error: Exception) -> None:
        """Stop; the first error is raised when all that is in flight has come."""
        self.error = self.error or error
        self.stop.set()


def ask_online(sources: Sequence[Source]) -> Generator[Answered, None, None]:
    """Replies as they come, until all requests have one, `stop` is set, or the budget allows none of the rest and
    nothing is in flight that could make room. A block has been kept when the next one is asked for.

    In each exchange a client is given new requests and hands over what has finished. One exchange of every client is in
    progress at a time, and this thread, the only one, serves whichever is over first.

    Raises:
        RunError: a backend or a client failed, or a disk; what else was in flight has come before.
    """
    over, exchanges = queue.SimpleQueue["Future[Exchanged]"](), dict["Future[Exchanged]", Connection]()
    # The first client of an endpoint is alone until it has a reply: what is wrong with the endpoint, or with its API
    # key, is then found out once.
    clients = list(map(Connection, sources))
    idle, budget, stop = list(clients), sources[0].budget, sources[0].stop
    try:
        while True:
            waiting, idle = idle, []
            for client in waiting:
                if (exchange := client.send()) is None:
                    idle.append(client)
                else:
                    exchanges[exchange] = client
                    exchange.add_done_callback(over.put)
            if exchanges:
                exchange = over.get()
                client = exchanges.pop(exchange)
                idle.append(client)
                for answered in client.receive(exchange):
                    while client.source.clients < client.endpoint.actors:
                        clients.append(Connection(client.source))
                        idle.append(clients[-1])
                    yield answered
                continue
            refused = list(filter(None, map(attrgetter("source.again"), idle)))
            if not refused or budget is None or stop.is_set() or not budget.wait_for_room([refused[0][0]], stop):
                break
    finally:
        for client in clients:
            client.service.close()
    if error := next(filter(None, map(attrgetter("error"), sources)), None):
        raise error


class Connection:
    """A client, in this process or in an actor, and the requests that it holds."""

    def __init__(self, source: Source) -> None:
        self.source, self.endpoint = source, source.run.endpoints[source.name]
        self._deaths = 0
        self._start(source.clients)
        source.clients += 1

    def _start(self, number: int) -> None:
        part = self.endpoint if self.endpoint.actors == 1 else self.endpoint.part()
        run = self.source.run.model_copy(update={"endpoints": {self.source.name: part}})
        keys = [self.endpoint.key] if self.endpoint.key else []
        self.service = self.source.executor.serve(partial(EndpointClient, run, self.source.name), number, keys)
        self._held: dict[str, Request] = {}
        self._room = 1

    def send(self) -> "Future[Exchanged] | None":
        """Begin an exchange: give the client as many requests as it has room for. None when it holds no request."""
        source, fresh = self.source, list[Request]()
        try:
            while len(self._held) < self._room and not source.stop.is_set():
                request = source.again.popleft() if source.again else next(source.requests, None)
                if request is None:
                    break
                if source.budget and not source.budget.reserve([request]):
                    source.again.appendleft(request)
                    break
                self._held[request.key] = request
                fresh.append(request)
        except Exception as error:
            source.fail(error)
        if not self._held:
            return None
        pause = max(0.0, source.paused_until - time.monotonic())
        return self.service.exchange(fresh, pause, POLL if self.endpoint.actors > 1 else None)

    def receive(self, exchange: "Future[Exchanged]") -> Iterator[Answered]:
        """The replies of an exchange, by model: those are kept in one go."""
        source, found = self.source, dict[tuple[str, str], Answered]()
        try:
            done, self._room, pause = exchange.result()
        except WorkerDiedError:
            self._restart()
            return
        except Exception as error:
            self._held.clear()
            source.fail(error)
            return
        self._deaths = 0
        if pause:
            source.paused_until = max(source.paused_until, time.monotonic() + pause)
        for name, reply in done:
            request = self._held.pop(name)
            if isinstance(reply, RunError):
                source.fail(reply)
            elif not (reply.lost and self._asked_again(request, reply)):
                model = request.model
                block, replies = found.setdefault((model.label, model.identity), ([], []))
                block.append(request)
                replies.append(reply)
        yield from found.values()

    def _asked_again(self, request: Request, reply: Completion) -> bool:
        """Whether a request will be sent once more, of which nobody knows whether it was billed, as the budget allows.

        Without a budget the client has tried often enough.
        """
        if reply.finish != "failed" or reply.fatal or self.source.stop.is_set():
            return False
        self.source.tries[request.key] += 1
        if self.source.tries[request.key] > self.endpoint.retries or not self.source.run.budget.given:
            return False
        self._lose([request])
        return True

    def _lose(self, requests: Sequence[Request]) -> None:
        if self.source.budget:
            self.source.budget.mark_lost(requests)
        self.source.again.extend(requests)

    def _restart(self) -> None:
        """Start another process in the place of one that was killed, on this node, as the other may be gone; what that
        held is sent again."""
        self._deaths += 1
        if self._deaths > DEATHS or self.source.stop.is_set():
            self._held.clear()
            self.source.fail(RunError(DIED))
            return
        self.service.close()
        self._lose(list(self._held.values()))
        self._start(0)
