"""What runs where the work is: blocks of requests to completions, with the worker of their model built once."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from lema import component
from lema.errors import RunError
from lema.models import Completion, Model, Request, Worker
from lema.params import Endpoint, Run


@dataclass(frozen=True, slots=True)
class Reply:
    """What a worker makes of a block. `fatal` says why every further request would fail the same way."""

    completions: list[Completion]
    fatal: str | None


def portions(endpoint: Endpoint) -> tuple[int, int]:
    """Requests a block, and blocks in flight, that keep an endpoint busy.

    Half as many requests again as it takes at once, so that a slow one at the end of a block leaves nothing idle; small
    blocks, because a kill loses the unfinished ones.
    """
    size = max(1, min(8, endpoint.concurrency // 8))
    return size, -(-3 * endpoint.concurrency // (2 * size))


def answering(run: Run) -> Callable[[list[Request]], Reply]:
    """The function that answers blocks in a worker process; a block is of one model, which is built when first met."""
    workers: dict[tuple[str, str], tuple[Worker, threading.Lock | None]] = {}
    building = threading.Lock()

    def answer(block: list[Request]) -> Reply:
        model = block[0].model
        with building:
            if (model.label, model.identity) not in workers:
                worker = build(model, run)
                lock = None if getattr(worker, "concurrent", False) else threading.Lock()
                workers[model.label, model.identity] = worker, lock
        worker, lock = workers[model.label, model.identity]
        if lock is None:
            completions = worker(block)
        else:
            with lock:
                completions = worker(block)
        if len(completions) != len(block):
            raise RunError(f"backend {model.backend} gave {len(completions)} completions for {len(block)} requests")
        return Reply([encodable(one) for one in completions], getattr(worker, "fatal", None))

    return answer


def build(model: Model, run: Run) -> Worker:
    """The worker of a model, of the backend that it names, with its options."""
    worker: Worker = component.load("models", model.backend)(model, run, **model.options)
    return worker


def encodable(completion: Completion) -> Completion:
    """The same reply without halves of surrogate pairs, which models do emit and no file can hold."""
    return replace(completion, text=completion.text.encode("utf-8", "replace").decode("utf-8"))
