"""Numbers that become tensors outside the traced calls: what two runs compare of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pruning_core.assignments import Assignments


class Constants(Assignments):
    """Notes the numbers that Python code makes into tensors: on the meta device they would leave no trace."""

    def __init__(self, found: list[tuple[int, Any]], calls: Callable[[], int]) -> None:
        super().__init__()
        self.found, self.calls = found, calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.__setitem__ and isinstance(args[2], Number):
            self.found.append((self.calls(), numbers_of(args[2])))
        if func in _MAKERS:
            made_of = [a for a in (*args, *kwargs.values()) if not isinstance(a, Tensor | torch.device | torch.dtype | bool)]
            self.found.append((self.calls(), tuple([numbers_of(a) for a in made_of if a is not None])))
        return super().__torch_function__(func, types, args, kwargs)


_MAKERS = {
    torch.tensor,
    torch.as_tensor,
    torch.asarray,
    torch.scalar_tensor,
    torch.from_numpy,
    Tensor.new_tensor,
    Tensor.new,
}


def numbers_of(value: Any) -> Any:
    """What two runs compare of a constant: its numbers, or a digest of many."""
    try:
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    except (TypeError, ValueError, RuntimeError):  # bfloat16, a list of tensors, parts of unequal lengths
        array = np.asarray(value.detach().cpu().double() if isinstance(value, Tensor) else repr(value))
    if array.size <= _FEW and array.dtype.kind in "biuf":
        return tuple(array.ravel().tolist())
    return str(array.shape), hashlib.sha256(array.tobytes()).hexdigest()


_FEW = 16
