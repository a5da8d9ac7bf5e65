"""A process that buys replies in batches and kills itself at a moment of its own, for tests."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

# So that it is there in every fork.
import openai.resources  # noqa: F401

from lema.completions import batch_api, batch_records, batch_requests
from lema.completions.append_log import AppendLog
from lema.completions.generate import Generate
from lema.completions.store import Store
from lema.compute.executor import LocalExecutor
from lema.models.types import Model, Request, Sampling
from lema.recipe.params import Endpoint, Run
from lema.rows import Message


def buy(root: Path, url: str, moment: str, output: str) -> None:
    """Sixty replies, at most 25 a batch, one a line of a file. Moments are "before" or "after" a step of a record
    ("file", "batch", "left"), the beginning of one ("write") or what is added to the store ("add")."""
    os.environ["LEMA_HOME"] = str(root)
    batch_api.FIRST_POLL, batch_api.LONGEST_POLL, batch_api.SETTLE = 0.005, 0.02, 0.3
    batch_requests.MAX_REQUESTS = 25
    note = batch_records.BatchRecord.note
    batch_records.BatchRecord.note = _dies(note, moment, None)  # type: ignore[method-assign]
    AppendLog.append = _dies(AppendLog.append, moment, "write")  # type: ignore[method-assign]
    Store.add = _dies(Store.add, moment, "add")  # type: ignore[method-assign]
    run = Run(endpoints={"here": Endpoint(url=url, mode="batch")})
    model = Model("strong", "openai", "openai/m", name="m", endpoint="here")
    store = Store(root / "journal", root / "packs")
    asked = [Request(model, (Message("user", f"question {n}"),), Sampling(seed=7), 0) for n in range(60)]
    replies = [reply.text for reply in Generate(store, LocalExecutor(), run)(asked)]
    Path(output).write_text("\n".join(replies))


def _dies(call: Any, moment: str, name: str | None) -> Callable[..., Any]:
    def wrapped(self: Any, *args: Any, **options: Any) -> Any:
        what = name or next(iter(args[0]), "")
        if moment == f"before {what}":
            os.kill(os.getpid(), 9)
        result = call(self, *args, **options)
        if moment == f"after {what}":
            os.kill(os.getpid(), 9)
        return result

    return wrapped
