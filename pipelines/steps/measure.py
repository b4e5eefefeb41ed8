"""Latency of several models side by side: one call each per round in turn, so that drift hits all alike."""

import platform
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import torch
from torch import nn

import pruning_core as pc
from pipelines.architecture import ModelRef, load_module
from pipelines.data import Data, images_of
from pipelines.records import Latency
from pipelines.steps.threads import torch_threads


class MeasureOptions(Protocol):
    """The `measure` section of the configuration is one."""

    @property
    def batch_size(self) -> int: ...
    @property
    def threads(self) -> int: ...
    @property
    def rounds(self) -> int: ...
    @property
    def warmup(self) -> int: ...


def measure(models: Mapping[str, ModelRef], data: Data, options: MeasureOptions) -> dict[str, Latency]:
    """Wall time of one forward pass of each model. Nothing else may run meanwhile."""
    batch = images_of(data.test, options.batch_size)
    with torch_threads(options.threads), torch.inference_mode():
        runs = {name: _forward(load_module(model), batch) for name, model in models.items()}
        samples = pc.measure_latency(runs, rounds=options.rounds, warmup=options.warmup)
    conditions = {
        "device": f"cpu ({platform.processor() or platform.machine()})",
        "dtype": str(batch.dtype).removeprefix("torch."),
        "batch_size": options.batch_size,
        "threads": options.threads,
        "rounds": options.rounds,
        "torch": torch.__version__,
    }
    return {
        name: Latency(
            p50_ms=float(np.percentile(times, 50)),
            p95_ms=float(np.percentile(times, 95)),
            samples_ms=tuple(times),
            conditions=conditions,
        )
        for name, times in samples.items()
    }


def _forward(module: nn.Module, batch: torch.Tensor) -> Callable[[], object]:
    return lambda: module(batch)
