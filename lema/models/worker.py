"""Workers as their callers want them: whatever the function of a backend returns, wrapped in one class."""

import asyncio
import inspect
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from lema.errors import RunError
from lema.models.types import CPU_BOUND, Completion, EndpointWorker, Fault, Model, Request, Worker
from lema.recipe import part_loader
from lema.recipe.params import Run


class FunctionWorker:
    """An adapter for the plain function, or other callable, that answers requests to a model."""

    def __init__(self, function: Worker, backend: str) -> None:
        self._function: Any = function
        self._backend = backend
        # A function, or an object with an `async def __call__`.
        call: Any = type(function).__call__
        self._asynchronous = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)
        self._turn = asyncio.Lock()
        self._runner = asyncio.Runner()

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """Replies in order, one each, of a model that runs in this process.

        Raises:
            RunError: there are fewer or more replies than requests.
        """
        replies = self._function(requests)
        return self._checked(self._runner.run(replies) if self._asynchronous else replies, len(requests))

    async def attempt(self, request: Request) -> Completion | Fault:
        """The reply of a model behind an endpoint: awaited, or from a daemon thread, one call at a time."""
        if self._asynchronous:
            return self._checked(await self._function([request]), 1)[0]
        async with self._turn:
            future: Future[list[Completion]] = Future()
            threading.Thread(target=self._answer, args=([request], future), daemon=True).start()
            return self._checked(await asyncio.wrap_future(future), 1)[0]

    def _answer(self, requests: list[Request], future: "Future[list[Completion]]") -> None:
        try:
            future.set_result(self._function(requests))
        except Exception as error:
            future.set_exception(error)

    def _checked(self, replies: list[Completion], count: int) -> list[Completion]:
        if len(replies) != count:
            raise RunError(f"backend {self._backend} gave {len(replies)} completions for {count} requests")
        return replies


class LocalWorkers:
    """The models of one process that compute, each loaded when it is first met; called with requests to one model."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._loaded: dict[tuple[str, str], FunctionWorker] = {}

    def __call__(self, requests: Sequence[Request]) -> list[Completion]:
        model = requests[0].model
        name = (model.label, model.identity)
        if name not in self._loaded:
            self._loaded[name] = FunctionWorker(load_backend(model, self._run), model.backend)
        return self._loaded[name].complete(requests)


def endpoint_worker(model: Model, run: Run) -> EndpointWorker:
    """The worker of a model behind an endpoint."""
    worker = load_backend(model, run)
    return worker if isinstance(worker, EndpointWorker) else FunctionWorker(worker, model.backend)


def computes_only(model: Model) -> bool:
    """Whether the backend of a model is declared with `lema.models.types.cpu_bound`."""
    return part_loader.load_part("models", model.backend) in CPU_BOUND


def load_backend(model: Model, run: Run) -> Any:
    """What the backend that a model names returns for it, called with the model's options.

    Raises:
        RunError: it does not take them.
    """
    backend = part_loader.load_part("models", model.backend)
    if wrong := part_loader.option_problems(backend, model.options):
        raise RunError(f"model {model.label!r}: {'; '.join(message for _, message in wrong)}")
    return backend(model, run, **model.options)
