"""One training in several processes: each takes its share of every batch, and together they do what one would do.

A batch of the recipe, `batch` times `accumulate` examples, is dealt out, so the number of processes changes neither the
steps nor their learning rates. The loss of a process is divided by the labels of the whole batch, and gradients are
added up: what comes out differs from one process's by rounding alone, and with dropout by the draws.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from lema.errors import RunError
from lema.recipe.training_schema import AdapterSpec
from lema.train._batch import IGNORED

Rows = Sequence[dict[str, list[int]]]


@dataclass(frozen=True, slots=True)
class Share:
    """One of `count` processes. The first, of rank 0, writes; `saved` is told every checkpoint that it has written, and
    which ones are still there."""

    rank: int
    count: int
    saved: Callable[[Path, Sequence[str]], None]


def parts(spec: AdapterSpec, count: int) -> int:
    """Steps whose gradients a process sums for one optimizer step, so that none holds more than `batch` examples.

    Raises RunError when the examples of an optimizer step cannot be shared equally.
    """
    whole = spec.batch * spec.accumulate
    if whole % count:
        raise RunError(
            f"adapter: run.trainers is {count}, and {whole} examples an optimizer step (batch times accumulate) "
            f"cannot be shared equally among them"
        )
    return ceil(whole // count / spec.batch)


def deal(
    rows: Rows, order: Sequence[int] | None, spec: AdapterSpec, share: Share, collate: Callable[[Any], Any]
) -> Any:
    """A DataLoader of the share of a process. Without an `order`, examples come as transformers' Trainer draws them."""
    from accelerate.data_loader import SeedableRandomSampler
    from torch.utils.data import DataLoader

    loader: Any = DataLoader

    class Dealt(loader):  # type: ignore[misc]
        """Hands on the number of the epoch, which the draw depends on."""

        def set_epoch(self, epoch: int) -> None:
            self.batch_sampler.set_epoch(epoch)

    drawn = order if order is not None else SeedableRandomSampler(rows, data_seed=spec.seed)
    blank = {**rows[0], "labels": [IGNORED] * len(rows[0]["labels"])}
    # A process with nothing to learn in the last batch keeps in step with the others.
    return Dealt(rows, batch_sampler=Hands(drawn, spec, share), collate_fn=lambda mine: collate(mine or [blank]))


class Hands:
    """The batches of one process, as lists of numbers of examples: as many for every process, empty ones at the end of
    the epoch if need be."""

    def __init__(self, order: Any, spec: AdapterSpec, share: Share) -> None:
        self.order, self.share = order, share
        self.whole, self.parts = spec.batch * spec.accumulate, parts(spec, share.count)

    def set_epoch(self, epoch: int) -> None:
        if hasattr(self.order, "set_epoch"):
            self.order.set_epoch(epoch)

    def __len__(self) -> int:
        full, rest = divmod(len(self.order), self.whole)
        return full * self.parts + self._parts_of(rest)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.order)
        for start in range(0, len(order), self.whole):
            batch = order[start : start + self.whole]
            mine, count = batch[self.share.rank :: self.share.count], self._parts_of(len(batch))
            yield from (mine[part::count] for part in range(count))

    def _parts_of(self, examples: int) -> int:
        """Steps for a batch: of the last of an epoch there are fewer."""
        each = ceil(self.whole / self.share.count / self.parts)
        return ceil(ceil(examples / self.share.count) / each)


def epochs(steps: int, examples: int, spec: AdapterSpec) -> float:
    """Passes over the examples after optimizer steps, counted as one process counts them: in batches."""
    batches = ceil(examples / spec.batch)
    whole, rest = divmod(steps, ceil(batches / spec.accumulate))
    return whole + min(rest * spec.accumulate, batches) / batches
