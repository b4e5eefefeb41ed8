"""The order of the samples: all of them, and always the same for a seed and an epoch."""

from itertools import chain

import numpy as np
import pytest

from pipelines.data import ArraySplit
from pipelines.steps.finetune.batches import Batches


def numbered(samples: int) -> ArraySplit:
    return ArraySplit(np.arange(samples, dtype=np.float32)[:, None], np.zeros(samples, dtype=np.int64))


def order(batches: Batches) -> list[list[int]]:
    return [[int(v) for v in x] for x, _ in batches]


@pytest.mark.parametrize(("samples", "count"), [(16, 1), (17, 1), (18, 2), (32, 2), (33, 2), (2, 1)])
def test_no_batch_has_one_sample(samples: int, count: int) -> None:
    batches = Batches(numbered(samples), 16, seed=0)
    sizes = [len(y) for _, y in batches]
    assert len(sizes) == len(batches) == count
    assert min(sizes) > 1


def test_seed_and_epoch_alone_fix_the_order() -> None:
    split = numbered(50)
    first = order(Batches(split, 16, seed=0))
    assert sorted(chain.from_iterable(first)) == list(range(50))
    assert order(Batches(split, 16, seed=0)) == first
    others = [order(Batches(split, 16, seed=s, epoch=e)) for s, e in ((0, 1), (1, 0), (1, 1), (2, 0))]
    assert all(one != two for i, one in enumerate([first, *others]) for two in [first, *others][:i])


@pytest.mark.parametrize("position", [0, 1, 3])
def test_an_epoch_goes_on_where_it_was_left(position: int) -> None:
    split, started = numbered(50), []
    rest = Batches(split, 16, seed=0, epoch=4, position=position, on_start=lambda: started.append(True))
    assert len(rest) == 4 - position
    assert order(rest) == order(Batches(split, 16, seed=0, epoch=4))[position:]
    assert started == [True]


def test_half_the_batch_size_keeps_the_order() -> None:
    whole, halves = (list(chain.from_iterable(order(Batches(numbered(50), size, seed=7)))) for size in (16, 8))
    assert whole == halves


def test_ranks_share_the_batches() -> None:
    split = numbered(70)
    parts = [order(Batches(split, 8, seed=0, rank=rank, ranks=2)) for rank in range(2)]
    assert [len(part) for part in parts] == [4, 4]  # of nine: each rank must have as many as the other
    assert [batch for pair in zip(*parts, strict=True) for batch in pair] == order(Batches(split, 8, seed=0))[:8]
