"""The control that every comparison needs: scores that know nothing."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from pruning_core.criteria.table import ChannelView, criterion


@criterion()
def random(view: ChannelView) -> Tensor:
    """Uniform in [0, 1): weight_CR [C, R] -> [C], float32; the same for one seed and name in every process."""
    digest = hashlib.sha256(f"{view.seed}:{view.name}".encode()).digest()
    rng = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.rand(len(view.weight_CR), generator=rng)
