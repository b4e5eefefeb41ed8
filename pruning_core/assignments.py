"""A number assigned to a part of a tensor: the same calls on every device, so that runs on several can be compared."""

from __future__ import annotations

from numbers import Number
from types import EllipsisType, NoneType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

_BASIC = (int, slice, EllipsisType, NoneType)


class Assignments(TorchFunctionMode):
    """Assigns numbers as PyTorch does on the processor: `x[:, :4] = 1` is a slice and a fill.

    On the meta device it would make a tensor, expand and copy it, and on others `x[mask] = 1` moves one there.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__setitem__ and isinstance(args[2], Number):
            args = (*args[:2], _as_tensor(*args))
        return func(*args, **(kwargs or {}))


def _as_tensor(target: Tensor, index: Any, number: Any) -> Tensor:
    """The number for `target[index]`. Where tensors pick the entries it lies where these do."""
    parts = index if isinstance(index, tuple) else (index,)
    is_view = all(isinstance(part, _BASIC) and not isinstance(part, bool) for part in parts)
    with _disable_current_modes():  # PyTorch makes it unseen, too
        return torch.tensor(number, dtype=target.dtype, device="cpu" if is_view else target.device)
