"""The engine's public functions run in PyTorch's own default modes, whatever the caller has switched on around them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

_DEVICES = ("cpu", "cuda", "xpu", "mps")
P = ParamSpec("P")
R = TypeVar("R")


def in_default_modes(function: Callable[P, R]) -> Callable[P, R]:
    """Without inference mode, whose tensors autograd cannot read, and without autocast, which other threads do not see."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            for device in _DEVICES:
                if torch.is_autocast_enabled(device):
                    stack.enter_context(torch.autocast(device, enabled=False))
            return function(*args, **kwargs)

    return run
