"""What each process of a shared training gets: together, exactly what one process would have."""

from itertools import chain
from typing import Any

import pytest

from lema.errors import RunError
from lema.recipe.training_schema import AdapterSpec
from lema.train.batching import Shard, ShardedBatchSampler, accumulation_steps, epochs_done, sharded_loader

pytest.importorskip("torch", reason="needs the extra `train`")


def shares(count: int) -> list[Shard]:
    return [Shard(rank, count, lambda *_: None) for rank in range(count)]


@pytest.mark.parametrize("examples", [1, 2, 7, 8, 9, 24, 25, 31])
@pytest.mark.parametrize(
    ("batch", "accumulate", "count"), [(8, 1, 2), (8, 1, 8), (2, 4, 2), (3, 4, 3), (4, 2, 4), (3, 4, 2)]
)
def test_together_they_have_every_batch_of_one_process(examples: int, batch: int, accumulate: int, count: int) -> None:
    spec = AdapterSpec(epochs=1, batch=batch, accumulate=accumulate)
    order = [3 * at % examples if examples % 3 else at for at in range(examples)]
    samplers = [ShardedBatchSampler(order, spec, share) for share in shares(count)]
    dealt = [list(one) for one in samplers]
    assert {len(one) for one in dealt} == {len(samplers[0])}, "they would wait for one another for ever"
    assert all(len(step) <= batch for one in dealt for step in one)
    whole = batch * accumulate
    size = accumulation_steps(spec, count)
    for number, expected in enumerate(order[at : at + whole] for at in range(0, examples, whole)):
        steps = [step for one in dealt for step in one[number * size : (number + 1) * size]]
        assert sorted(chain(*steps)) == sorted(expected)
    # Optimizer steps of an epoch, as transformers' Trainer counts them.
    assert -(-len(samplers[0]) // size) == -(-examples // whole)


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    spec = AdapterSpec(epochs=1, batch=8, accumulate=3)
    with pytest.raises(RunError, match=r"run.trainers is 5, and 24 examples an optimizer step \(batch times accum"):
        accumulation_steps(spec, 5)
    assert [accumulation_steps(spec, count) for count in (1, 2, 3, 4, 24)] == [3, 2, 1, 1, 1]


def rows(count: int) -> list[dict[str, list[int]]]:
    return [{"input_ids": [at, at], "labels": [-100, at]} for at in range(count)]


def learnt(batches: list[list[dict[str, Any]]]) -> list[list[int]]:
    return [sorted(row["labels"][1] for row in batch if row["labels"][1] >= 0) for batch in batches]


def test_who_has_nothing_left_has_an_example_without_labels() -> None:
    spec = AdapterSpec(epochs=1, batch=4)
    first, second = (list(sharded_loader(rows(5), range(5), spec, share, list)) for share in shares(2))
    assert learnt(first) == [[0, 2], [4]]
    assert learnt(second) == [[1, 3], []]
    assert second[1] == [{"input_ids": [0, 0], "labels": [-100, -100]}]


def test_without_an_order_every_epoch_draws_its_own_the_same_for_all() -> None:
    spec = AdapterSpec(epochs=1, batch=8, seed=3)
    drawn = []
    for epoch in (0, 1, 0):
        loaders = [sharded_loader(rows(8), None, spec, share, list) for share in shares(2)]
        for loader in loaders:
            loader.set_epoch(epoch)
        first, second = (next(iter(learnt(list(loader)))) for loader in loaders)
        assert sorted([*first, *second]) == list(range(8))
        drawn.append(first)
    assert drawn[0] == drawn[2] != drawn[1]


@pytest.mark.parametrize(
    ("accumulate", "steps", "examples", "passes"),
    [
        *((1, 10, 10, 2.0), (1, 3, 10, 0.6), (1, 4, 10, 0.8), (1, 5, 10, 1.0), (1, 7, 9, 1.4)),
        # The last step of an epoch has fewer batches.
        *((2, 1, 10, 0.4), (2, 2, 10, 0.8), (2, 3, 10, 1.0), (2, 4, 10, 1.4)),
    ],
)
def test_passes_over_the_examples(accumulate: int, steps: int, examples: int, passes: float) -> None:
    spec = AdapterSpec(epochs=1, batch=2, accumulate=accumulate)
    assert epochs_done(steps, examples, spec) == pytest.approx(passes)
