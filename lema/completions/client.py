"""The client of one endpoint: limits, retries and pauses, for all models that it serves.

One class for every place: it runs on the event loop of this process or inside an asynchronous Ray actor, and
`lema.completions.online` exchanges requests for replies with it. A backend makes single tries
(`lema.models.types.EndpointWorker`), `lema.models.throttle` says when one may go, and `lema.models.api_errors.decide`
what follows from a fault.
"""

import asyncio
import time
from contextlib import suppress
from dataclasses import replace

from lema.compute.executor import one_line_error
from lema.errors import RunError
from lema.models.api_errors import History, backoff, decide
from lema.models.openai import api_key
from lema.models.throttle import Throttle
from lema.models.types import Completion, EndpointWorker, Fault, Request
from lema.models.worker import endpoint_worker
from lema.recipe.params import Run

# Replies are handed over together where that costs little time: each exchange has its price (a message, a disk sync).
LINGER, ENOUGH = 0.02, 8  # seconds, and the share of the held requests, as one in so many


# The throttle of an endpoint, and its workers by the label, identity and options of a model, by its settings and API
# key: what is known of an endpoint outlives one client. For the one event loop of a process.
_shared: dict[tuple[str, str], tuple[Throttle, dict[tuple[str, str, str], EndpointWorker]]] = {}

# The keys of requests, each with its reply or the error of its backend; how many requests are worth holding; for how
# many seconds the endpoint has asked this client for a pause.
Exchanged = tuple[list[tuple[str, Completion | RunError]], int, float]


class EndpointClient:
    """Asks one endpoint, many requests at once. Belongs to one event loop.

    With a budget, what may have been billed without a reply is handed back as a failure: whoever keeps the budget
    decides whether it is asked again.
    """

    def __init__(self, run: Run, name: str) -> None:
        self._run, self._where, self._endpoint = run, f"endpoint {name}", run.endpoints[name]
        settings = self._endpoint.model_dump_json(), api_key(self._endpoint)
        if settings not in _shared or _shared[settings][0].open is not None:
            _shared[settings] = Throttle(self._endpoint), {}
        self._throttle, self._workers = _shared[settings]
        self._fatal: dict[str, str] = {}  # by model: why no request to it can succeed
        self._tasks: set[asyncio.Task[None]] = set()
        self._done: list[tuple[str, Completion | RunError]] = []
        self._held = 0
        self._ready, self._enough = asyncio.Event(), 1

    async def exchange(self, requests: list[Request], pause: float, patience: float | None) -> Exchanged:
        """Start on requests, and return what has finished: at least one reply if any requests are held, unless
        `patience` seconds pass. `pause` is for how many seconds the endpoint has asked other clients for a pause."""
        throttle = self._throttle
        if pause:
            throttle.share_pause(pause)
        self._held += len(requests)
        for request in requests:
            task = asyncio.create_task(self._run_one(request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        for share, seconds in ((self._held, patience), (ENOUGH, LINGER)):
            self._enough = max(min(1, self._held), self._held // max(1, share))
            if len(self._done) < self._enough:
                self._ready.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._ready.wait()
        done, self._done = self._done, []
        self._held -= len(done)
        room = most_held(int(throttle.window.limit)) if throttle.proved else 1
        return done, room, throttle.asked_pause()

    def close(self) -> None:
        """Give up what is held; on the event loop."""
        for task in list(self._tasks):
            task.cancel()

    async def _run_one(self, request: Request) -> None:
        """The first request to a model goes alone, a canary: a wrong key, an unknown model or no credit costs one."""
        name, proved, reply = request.model.name or request.model.label, self._throttle.proved, None
        try:
            if name not in proved:
                async with self._throttle.canaries.setdefault(name, asyncio.Lock()):
                    if name not in proved:
                        reply = await self._answer(request, name)
            result = reply or await self._answer(request, name)
        except Exception as error:
            self._done.append((request.key, one_line_error(error)))
        else:
            self._done.append((request.key, result))
        if len(self._done) >= self._enough:
            self._ready.set()

    async def _answer(self, request: Request, name: str) -> Completion:
        """Try until there is a reply or `decide` gives up."""
        model = request.model
        which = model.label, model.identity, repr(model.options)
        worker = self._workers.get(which)
        if worker is None:
            worker = self._workers[which] = endpoint_worker(model, self._run)
        history = History()
        while name not in self._fatal:
            outcome = await self._attempt(worker, request, name)
            if isinstance(outcome, Completion):
                return replace(outcome, lost=history.lost) if history.lost else outcome
            verdict = decide(
                outcome, history, self._endpoint, reached=bool(self._throttle.proved), now=time.monotonic()
            )
            if verdict == "stop" or self._throttle.open is not None:
                self._fatal.setdefault(name, self._throttle.open or outcome.reason)
                break
            if outcome.what == "refused":
                return Completion("", "refused", outcome.reason, lost=history.lost)
            if verdict == "fail":
                return Completion("", "failed", outcome.reason, lost=history.lost, sent=history.sent)
            if outcome.lost and self._run.budget.given:
                await asyncio.sleep(0.0 if outcome.wait else backoff(min(self._throttle.faults, 6)))
                return Completion("", "failed", outcome.reason, lost=history.lost)
            if isinstance(verdict, float) and verdict:
                await asyncio.sleep(verdict)
        return Completion("", "failed", self._fatal[name], lost=history.lost, sent=history.sent, fatal=True)

    async def _attempt(self, worker: EndpointWorker, request: Request, name: str) -> Completion | Fault:
        """One try, when the throttle allows it."""
        throttle = self._throttle
        reservation = await throttle.acquire(request.characters, request.sampling.max_tokens)
        try:
            if gone := self._fatal.get(name) or throttle.open:
                throttle.failed(reservation)
                return Fault("stop", gone, unsent=True)
            outcome = await worker.attempt(request)
        except BaseException:
            throttle.failed(reservation)
            raise
        if isinstance(outcome, Completion):
            throttle.replied(reservation, outcome.prompt_tokens, outcome.completion_tokens)
            throttle.proved.add(name)
        else:
            throttle.failed(reservation, overload=outcome.overload)
            throttle.note(outcome, self._where)
            if outcome.proof:
                throttle.proved.add(name)
        return outcome


def most_held(in_flight: int) -> int:
    """Requests worth holding where so many may be in flight: half as many again, so that nothing is idle while replies
    are kept."""
    return -(-3 * in_flight // 2)
