"""The random numbers that a training draws: its own, whatever the process drew before, and the same after a resume."""

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from pipelines.steps.finetune.batches import steady_generator


@contextlib.contextmanager
def own_randomness() -> Iterator[None]:
    """Inside, the generators of torch, numpy and Python may be seeded; after it they are what they were."""
    before = state()
    try:
        yield
    finally:
        restore(before)


def seed_all(seed: int, epoch: int, rank: int) -> None:
    """For one epoch of one process."""
    draws = torch.randint(2**32, (3,), generator=steady_generator(seed, -1 - epoch - 2**20 * rank)).tolist()
    torch.manual_seed(draws[0])
    np.random.seed(draws[1])
    random.seed(draws[2])


def state() -> dict[str, Any]:
    """Only tensors, numbers, texts and lists: it can be loaded without unpickling code."""
    kind, keys, place, has_normal, normal = np.random.get_state()
    version, numbers, following = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [str(kind), [int(key) for key in keys], int(place), int(has_normal), float(normal)],
        "python": [version, list(numbers), following],
    }


def restore(saved: dict[str, Any]) -> None:
    torch.set_rng_state(saved["torch"])
    if saved["cuda"]:
        torch.cuda.set_rng_state_all(saved["cuda"])
    kind, keys, *rest = saved["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    version, numbers, following = saved["python"]
    random.setstate((version, tuple(numbers), following))
