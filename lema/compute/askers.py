"""Workers on Ray that wait for somebody else: each holds many blocks at once, all take from the same ones."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from lema.compute.executor import Source, failure, merge
from lema.compute.worker_pool import DEATHS, DIED
from lema.errors import RunError

POLL = 0.2  # seconds after which each of several workers hears what another was told

Results = Iterator[list[tuple[int, Any]]]


def ask(
    start: Callable[[], Any],
    ray: Any,
    source: Source,
    variables: dict[str, str],
    workers: int,
    again: Callable[[list[Any]], bool],
) -> Results:
    """The results of blocks, by up to so many actors of a class with `exchange(blocks, variables, pause, patience) ->
    (done, room, error, pause)`; `start()` starts one. Blocks of one that dies are sent again if `again` says so.

    Raises:
        RunError: a block failed, after what else was held has come.
    """
    crew = _Askers(start, ray, source, variables, again, alone=workers == 1)
    try:
        # The first goes alone until it has an answer: what is wrong with an endpoint, or a key, is then found out once.
        early = crew.results()
        if (first := next(early, None)) is not None:
            yield first
            yield from merge([early, *(crew.results() for _ in range(workers - 1))], threading.Event())
    except BaseException:
        # Nobody waits for the rest: workers that are killed are not to be replaced.
        source.fail(RunError("stopped"))
        raise
    finally:
        crew.kill()
    if source.error is not None:
        raise source.error


class _Askers:
    """What the workers of one `map` have in common."""

    def __init__(
        self,
        start: Callable[[], Any],
        ray: Any,
        source: Source,
        variables: dict[str, str],
        again: Callable[[list[Any]], bool],
        *,
        alone: bool,
    ) -> None:
        self._start, self._ray, self._source, self._variables, self._again = start, ray, source, variables, again
        self._patience = None if alone else POLL
        self._pause = 0.0
        self._actors: list[Any] = []

    def kill(self) -> None:
        for actor in self._actors:
            with suppress(Exception):
                self._ray.kill(actor)

    def results(self) -> Results:
        """Of one worker, and of those that take its place: each call brings it new blocks and takes away what has
        finished. What goes wrong is told the source, so that the others hand out what they hold and end."""
        ray, source = self._ray, self._source
        held: dict[int, list[Any]] = {}
        fresh: list[tuple[int, list[Any]]] = []
        # What there is room for, the actor says when it is first asked.
        actor, room, deaths = self._new(), 0, 0
        while True:
            fresh += source.take(room - len(held))
            held.update(fresh)
            if not held and (room or source.error is not None):
                return
            try:
                call = actor.exchange.remote(fresh, self._variables, self._pause, self._patience)
                done, room, broken, pause = ray.get(call)
            except ray.exceptions.RayActorError:
                deaths += 1
                if deaths > DEATHS or source.error is not None:
                    source.fail(RunError(DIED))
                    return
                with suppress(Exception):
                    ray.kill(actor)
                held = {number: block for number, block in held.items() if self._again(block)}
                actor, fresh, room = self._new(), list(held.items()), 0
                continue
            except Exception as failed:
                source.fail(failure(getattr(failed, "cause", None) or failed))
                return
            if broken is not None:
                source.fail(RunError(broken))
                return
            deaths, fresh = 0, []
            self._pause = max(self._pause, pause)
            for number, _, error in done:
                del held[number]
                if error is not None:
                    source.fail(RunError(error))
            if good := [(number, result) for number, result, error in done if error is None]:
                yield good

    def _new(self) -> Any:
        actor = self._start()
        self._actors.append(actor)
        return actor
