"""Accuracy on one split."""

import torch
from torch import nn
from torchmetrics.classification import MulticlassAccuracy

from pipelines.data import Split


def evaluate(module: nn.Module, split: Split, classes: int, batch_size: int = 256) -> float:
    """The fraction of images whose highest logit is their label. Leaves the module in eval mode."""
    accuracy = MulticlassAccuracy(num_classes=classes, average="micro")
    module.eval()
    with torch.inference_mode():
        for start in range(0, len(split), batch_size):
            stop = start + batch_size
            accuracy.update(module(torch.from_numpy(split.x[start:stop])), torch.from_numpy(split.y[start:stop]))
    return float(accuracy.compute())
