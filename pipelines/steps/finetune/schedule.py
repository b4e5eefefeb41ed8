"""The optimizer and the course of its learning rate."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from pipelines.steps.finetune.options import ScheduleOptions

MOMENTUM = 0.9
START, END = 1 / 25, 1 / 250_000  # of the highest rate, at the two ends of a one-cycle schedule


def optimizer_of(
    parameters: Iterable[nn.Parameter], options: ScheduleOptions, may_fuse: bool = True
) -> torch.optim.Optimizer:
    """One kernel for all parameters where torch has it: on a CPU that makes up for what Lightning costs per step."""
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    fused = (may_fuse and all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in wanted)) or None
    rate, decay = options.learning_rate, options.weight_decay
    if options.optimizer == "sgd":
        return torch.optim.SGD(wanted, rate, momentum=MOMENTUM, nesterov=True, weight_decay=decay, fused=fused)
    return torch.optim.AdamW(wanted, rate, weight_decay=decay, fused=fused)


def progress(options: ScheduleOptions, step: int, steps: int, seconds: float) -> float:
    """How much of the budget is used, 0 to 1, by steps or by time, whichever is further."""
    by_time = seconds / (60 * options.minutes) if options.minutes else 0.0
    return min(1.0, max(step / steps, by_time))


def rate_factor(kind: str, warmup: float | None, done: float) -> float:
    """The learning rate after the fraction `done` of the training, as a fraction of the highest one.

    `cosine`: linear from 0 for the fraction `warmup` (default 0), then half a cosine down to 0.
    `one_cycle`: half a cosine up from 1/25 for `warmup` (default 0.3), then one down to 1/250,000; the momentum stays.
    References: Loshchilov & Hutter, SGDR, ICLR 2017; Smith & Topin, Super-Convergence, 2018 (as torch's OneCycleLR).
    """
    one_cycle = kind == "one_cycle"
    rising = warmup if warmup is not None else 0.3 if one_cycle else 0.0
    if done < rising:
        return _between(START, 1.0, done / rising) if one_cycle else done / rising
    return _between(1.0, END if one_cycle else 0.0, (done - rising) / (1 - rising))


def _between(first: float, last: float, share: float) -> float:
    """Half a cosine from `first` to `last`."""
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2
