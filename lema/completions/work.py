"""What runs where the work is: blocks of requests to completions, with the worker of their model built once."""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from lema.compute.event_loop import asynchronous, in_thread, wait_for
from lema.errors import RunError
from lema.models.types import Completion, Model, Request, Worker
from lema.recipe import part_loader
from lema.recipe.params import MOST_IN_FLIGHT, Endpoint, Run


@dataclass(frozen=True, slots=True)
class Reply:
    """What a worker makes of a block. `fatal` says why every further request would fail the same way."""

    completions: list[Completion]
    fatal: str | None


def shared(model: Model) -> str:
    """Models that are equal in this lie in the same folder, and take turns in the same processes: their backend may
    load what they have in common once."""
    folder = model.folder and (model.folder, model.revision, sorted(model.options.items()))
    return repr((model.backend, folder or (model.label, model.identity)))


def portions(endpoint: Endpoint) -> tuple[int, int]:
    """Requests a block, and blocks in flight at most, that keep an endpoint busy.

    One a block: each reply is kept when it comes, and a kill loses no other. Half as many again as the endpoint takes
    at once, so that nothing is idle while replies are kept.
    """
    return 1, max(2, -(-3 * (endpoint.concurrency or MOST_IN_FLIGHT) // 2))


def answering(run: Run) -> Callable[[list[Request]], Reply]:
    """The function that computes blocks in a worker process; a block is of one model, which is built when first met."""
    workers = _Workers(run)

    def answer(block: list[Request]) -> Reply:
        worker, lock = workers.of(block[0].model)
        with lock:
            answers: Any = worker(block)
            return _reply(block, wait_for(answers) if asynchronous(worker) else answers, worker)

    return answer


class Asking:
    """`answering(run)` for models behind endpoints: a coroutine function, awaited for many blocks at once."""

    def __init__(self, run: Run) -> None:
        self._workers = _Workers(run)

    async def __call__(self, block: list[Request]) -> Reply:
        worker, lock = self._workers.of(block[0].model)
        if asynchronous(worker):
            return _reply(block, await worker(block), worker)  # type: ignore[misc]

        def answer() -> list[Completion]:
            if getattr(worker, "concurrent", False):
                return worker(block)  # type: ignore[return-value]
            with lock:
                return worker(block)  # type: ignore[return-value]

        return _reply(block, await in_thread(answer), worker)

    def room(self) -> int:
        """Blocks of one request worth holding, of all models together; one before the first."""
        return max((getattr(worker, "room", MOST_IN_FLIGHT) for worker in self._workers.built()), default=1)

    def paused(self) -> float:
        """Until when an endpoint has asked for quiet."""
        return max((getattr(worker, "paused", 0.0) for worker in self._workers.built()), default=0.0)

    def pause(self, until: float) -> None:
        """Ask nothing until then, as another process was told. On the event loop."""
        for worker in self._workers.built():
            if hasattr(worker, "pause"):
                worker.pause(until)


class _Workers:
    """The workers of a process, each with a lock for those that are called from one thread at a time."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._built: dict[tuple[str, str], tuple[Worker, threading.Lock]] = {}

    def of(self, model: Model) -> tuple[Worker, threading.Lock]:
        name = (model.label, model.identity)
        if name not in self._built:
            self._built[name] = build(model, self._run), threading.Lock()
        return self._built[name]

    def built(self) -> list[Worker]:
        return [worker for worker, _ in list(self._built.values())]


def _reply(block: list[Request], completions: Any, worker: Worker) -> Reply:
    if len(completions) != len(block):
        raise RunError(
            f"backend {block[0].model.backend} gave {len(completions)} completions for {len(block)} requests"
        )
    return Reply([encodable(one) for one in completions], getattr(worker, "fatal", None))


def build(model: Model, run: Run) -> Worker:
    """The worker of a model, of the backend that it names, with its options."""
    worker: Worker = part_loader.load("models", model.backend)(model, run, **model.options)
    return worker


def together(answers: Iterable[tuple[list[Request], Reply]]) -> Iterator[tuple[list[Request], Reply]]:
    """Blocks of the same model as one, so that they are kept in one go."""
    joined: dict[tuple[str, str], tuple[list[Request], list[Completion], list[str | None]]] = {}
    for block, reply in answers:
        model = block[0].model
        requests, completions, fatal = joined.setdefault((model.label, model.identity), ([], [], []))
        requests += block
        completions += reply.completions
        fatal.append(reply.fatal)
    for requests, completions, fatal in joined.values():
        yield requests, Reply(completions, next(filter(None, fatal), None))


def encodable(completion: Completion) -> Completion:
    """The same reply without halves of surrogate pairs, which models do emit and no file can hold."""
    mended = completion.text.encode("utf-8", "replace").decode("utf-8")
    return completion if mended == completion.text else replace(completion, text=mended)
