"""The metrics of a task on one split."""

import torch
from torch import nn

from pipelines.data import Split
from pipelines.tasks import Task

BATCH = 256


def evaluate(module: nn.Module, split: Split, task: Task) -> dict[str, float]:
    """Every metric of the task over all samples, by name. Leaves the module in eval mode."""
    metrics = task.metrics()
    module.eval()
    with torch.inference_mode():
        for x, y in split.batches(BATCH):
            metrics.update(module(x), y)
    return {name: float(value) for name, value in metrics.compute().items()}
