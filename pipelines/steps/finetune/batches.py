"""The training samples in batches, in an order that depends on nothing but the seed and the number of the epoch."""

import math
from collections.abc import Callable, Iterator
from itertools import islice

import torch
from torch import Tensor

from pipelines.data import Split

Batch = tuple[Tensor, Tensor]


def steady_generator(seed: int, epoch: int) -> torch.Generator:
    """Neighbouring seeds and epochs give unrelated numbers: the two are mixed first."""
    return torch.Generator().manual_seed((seed * 0x9E3779B97F4A7C15 + epoch * 0xBF58476D1CE4E5B9 + 1) % 2**63)


class Batches:
    """What is left of one epoch for one of `ranks` processes. Unlike a loader, it starts no process.

    `batch_size` is that of one process; the first `position` batches of the epoch have been seen before.
    `on_open` is called before those are passed over: a loader that draws at random draws for them what it drew then.
    `on_start` is called after that and before the first batch is made.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seed: int,
        *,
        epoch: int = 0,
        position: int = 0,
        rank: int = 0,
        ranks: int = 1,
        on_open: Callable[[], None] = lambda: None,
        on_start: Callable[[], None] = lambda: None,
    ) -> None:
        self.split, self.batch_size, self.seed = split, batch_size, seed
        self.epoch, self.position, self.rank, self.ranks = epoch, position, rank, ranks
        self.on_open, self.on_start = on_open, on_start
        self.per_epoch = batches_per_epoch(len(split), batch_size, ranks)

    def __len__(self) -> int:
        return self.per_epoch - self.position

    def __iter__(self) -> Iterator[Batch]:
        self.on_open()
        shuffled = iter(self.split.batches(self.batch_size, steady_generator(self.seed, self.epoch)))
        mine = islice(shuffled, self.rank, self.per_epoch * self.ranks, self.ranks)
        for _ in range(self.position):
            next(mine)
        self.on_start()
        yield from mine


def batches_per_epoch(samples: int, batch_size: int, ranks: int = 1) -> int:
    """A last batch of one sample is left out: it would break batch norm. Every rank has as many as the others."""
    return max(1, math.ceil((samples - 1) / batch_size) // ranks)
