"""The replies of a batch that is over: every one of its requests is checked off."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set

from lema.completions.batch_files import Batch, Batches, Trouble, answered, custom_id, result
from lema.completions.batch_queue import Group
from lema.completions.packs import SERVED
from lema.models.types import Completion, Fault, Request, key
from lema.recipe.params import Endpoint

TRIES = 3  # batches that a request is put into before it has failed
WHY = {"expired": "the batch expired", "failed": "the batch failed", "cancelled": "the batch was cancelled"}


def lines(api: Batches, batch: Batch, keys: Set[str], patient: bool) -> dict[str, bytes] | None:
    """The lines of a batch's replies and failures by their keys, of several the first. None when its replies are not
    there, or its failures and the caller is `patient`: they may show later.

    Raises:
        Trouble: the endpoint does not answer.
    """
    if batch.done and batch.output is None:
        return None
    found: dict[str, bytes] = {}
    for file in filter(None, (batch.output, batch.errors)):
        try:
            content = api.lines(file)
        except Trouble as trouble:
            if trouble.status != 404:
                raise
            if patient or file == batch.output:
                return None
            continue
        for one in content:
            name = custom_id(one)
            if name in keys:
                found.setdefault(str(name), one)
    return found


class Check:
    """What the lines of a batch, by their keys, say of its requests. `tries` counts for each request the batches that
    had no reply for it.

    `refused` is why the batch failed as a whole, `full` whether that was because the queue had no place for it. After
    `off`, `again` requests go into another batch, `why` in words, and `fatal` is why all others would fail, too.
    """

    def __init__(self, lines: dict[str, bytes], batch: Batch, endpoint: Endpoint, tries: Counter[str]) -> None:
        self._lines, self._endpoint, self._tries = lines, endpoint, tries
        self._unserved: set[str] = set()
        self._missing = WHY.get(batch.status, "no reply in the batch")
        self.refused = batch.problem if batch.status == "failed" else None
        self.full = self.refused is not None and batch.full
        self.again = 0
        self.why = self._missing
        self.fatal: str | None = None

    def off(self, wanted: Set[str], groups: Sequence[Group]) -> Iterator[tuple[list[Request], list[Completion]]]:
        """Blocks of the wanted requests, as they are found in their groups, with what became of them."""
        count = len(wanted)
        for group in groups:
            for block in group():
                if not count:
                    return
                asked = [(name, request) for request in block if (name := key(request)) in wanted]
                count -= len(asked)
                pairs = [(request, reply) for name, request in asked if (reply := self._one(name, request))]
                if pairs:
                    yield [request for request, _ in pairs], [reply for _, reply in pairs]

    def left(self, keys: Iterable[str]) -> set[str]:
        """Those of the batch's keys, wanted or not, that have no reply which can be served."""
        return {
            name
            for name in keys
            if name in self._unserved or name not in self._lines or not answered(self._lines[name])
        }

    def _one(self, name: str, request: Request) -> Completion | None:
        """The reply to a request or the record of its failure; None when it goes into another batch."""
        outcome: Completion | Fault = Fault("retry", self._missing)
        if name in self._lines:
            outcome = result(self._lines[name], request, self._endpoint)
        if isinstance(outcome, Completion):
            if outcome.finish not in SERVED:
                self._unserved.add(name)
            return outcome
        self._unserved.add(name)
        if outcome.what == "refused":
            return Completion("", "refused", outcome.reason)
        if outcome.what == "stop":
            self.fatal = self.fatal or outcome.reason
            return None
        if self.refused is not None and name not in self._lines:
            return None
        self._tries[name] += 1
        if outcome.what == "row" or self._tries[name] >= TRIES:
            return Completion("", "failed", outcome.reason)
        self.again += 1
        self.why = outcome.reason
        return None
