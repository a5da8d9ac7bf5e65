"""Models that compute, here or on the workers of an executor: requests go in blocks, and replies come back."""

import itertools
import threading
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from lema.completions.budget import BudgetTracker
from lema.completions.online import Answered
from lema.compute.executor import SMALL, Executor, LocalExecutor, chunked
from lema.models.types import Model, Request
from lema.models.worker import LocalWorkers, computes_only
from lema.recipe.params import Run


def ask_local(
    waiting: Sequence[tuple[Model, int, Iterable[Request]]],
    executor: Executor,
    run: Run,
    budget: BudgetTracker | None,
    stop: threading.Event,
) -> Generator[Answered, None, None]:
    """Replies of models, each given with the number of its requests, and these: in one turn those that share what they
    load.

    Near the end of a budget, what is in progress may have to be settled before the next block can be asked; the
    executor is then given the rest anew.
    """
    sent, turns = dict[int, list[Request]](), defaultdict[str, list[tuple[Model, int, Iterable[Request]]]](list)
    for one in waiting:
        turns[_processes_of(one[0])].append(one)

    def reserved(work: Iterator[list[Request]], refused: list[list[Request]]) -> Iterator[list[Request]]:
        for number, block in enumerate(work):
            if stop.is_set():
                return
            if budget and not budget.reserve(block):
                refused.append(block)
                return
            sent[number] = block
            yield block

    for turn in turns.values():
        named = (name for model, *_ in turn for name in (model.folder, model.adapter))
        folders = [name for name in dict.fromkeys(named) if name and Path(name).is_dir()]
        blocks = (chunked(requests, run.batch) for *_, requests in turn)
        work, refused = itertools.chain.from_iterable(blocks), list[list[Request]]()
        # Without a model in memory all processors, unless the work is done before workers have started.
        light = computes_only(turn[0][0])
        where = LocalExecutor() if light and sum(count for _, count, _ in turn) <= SMALL else executor
        workers = None if light else run.workers
        while True:
            given = reserved(work, refused)
            for done in where.map(partial(LocalWorkers, run), given, workers=workers, folders=folders):
                for number, replies in done:
                    yield sent.pop(number), replies
            if not refused or stop.is_set():
                break
            if budget and not budget.wait_for_room(refused[0], stop):
                return
            work = itertools.chain([refused.pop()], work)


def _processes_of(model: Model) -> str:
    """Models that are equal in this lie in the same folder, and take turns in the same processes: their backend may
    load once what they have in common."""
    folder = model.folder and (model.folder, model.revision, sorted(model.options.items()))
    return repr((model.backend, folder or (model.label, model.identity)))
