"""A detector's task and data as a user would write them: `task: my_package.detection:Detection` in a recipe, and
`data: {name: my_package.detection:loaders, trust: [my_package]}`.

torchmetrics' MeanAveragePrecision wants torchvision and pycocotools; without them, the metric is a few lines.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import Metric, MetricCollection

from pipelines.tasks import Task


class Detection(Task):
    """Outputs [N, Q, 5]: Q boxes x1 y1 x2 y2 and the logit that they hold an object; targets [N, M, 5]: boxes and 1, or 0s.

    Query q answers for object q. The primary metric is the average precision at IoU 0.5.
    """

    primary = "ap50"
    higher_is_better = True

    def __init__(self, box_weight: float = 5.0) -> None:
        self.box_weight = box_weight

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        is_there = target[..., 4]
        distance = (output[..., :4] - target[..., :4]).abs().mean(dim=-1)
        boxes = (distance * is_there).sum() / is_there.sum().clamp(min=1)
        return self.box_weight * boxes + F.binary_cross_entropy_with_logits(output[..., 4], is_there)

    def metrics(self) -> MetricCollection:
        return MetricCollection({"ap50": AveragePrecision(0.5)})


class AveragePrecision(Metric):
    """Area under precision over recall; predictions of all images by falling confidence, each object found once."""

    def __init__(self, iou: float) -> None:
        super().__init__()
        self.iou = iou
        self.add_state("found", default=[], dist_reduce_fx="cat")  # [confidence, 1 or 0] of each prediction
        self.add_state("objects", default=torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, output: Tensor, target: Tensor) -> None:
        for predictions, boxes in zip(output, target, strict=True):
            boxes = boxes[boxes[:, 4] == 1, :4]
            self.objects += len(boxes)
            free = torch.ones(len(boxes), dtype=torch.bool)
            for prediction in predictions[predictions[:, 4].argsort(descending=True)]:
                overlap = torch.where(free, iou(prediction[:4], boxes), -1.0)
                hit = bool(len(boxes)) and float(overlap.max()) >= self.iou
                if hit:
                    free[overlap.argmax()] = False
                self.found.append(torch.stack([prediction[4], torch.tensor(float(hit))])[None])

    def compute(self) -> Tensor:
        found = torch.cat(list(self.found)) if isinstance(self.found, list) else self.found
        hits = found[found[:, 0].argsort(descending=True), 1]
        precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
        return (precision * hits).sum() / self.objects.clamp(min=1)


def iou(box: Tensor, boxes: Tensor) -> Tensor:
    """box [4], boxes [M, 4] -> [M]"""
    size = (torch.minimum(box[2:], boxes[:, 2:]) - torch.maximum(box[:2], boxes[:, :2])).clamp(min=0)
    both = size.prod(dim=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    return both / ((box[2:] - box[:2]).clamp(min=0).prod() + areas - both).clamp(min=1e-9)


class TinyDetector(nn.Module):
    """One box in a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.ReLU()
        )
        self.head = nn.Linear(16 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, 1, 16, 16] -> [N, 1, 5]"""
        answer: Any = self.head(self.features(x).flatten(1))
        return answer[:, None]


def pictures(count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A bright rectangle on noise, and where it is, in fractions of the picture."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 0.1, (count, 1, 16, 16)).astype(np.float32)
    y = np.zeros((count, 1, 5), np.float32)
    for picture, target in zip(x, y, strict=True):
        left, top = rng.integers(0, 8, 2)
        width, height = rng.integers(5, 9, 2)
        picture[0, top : top + height, left : left + width] += 1
        target[0] = [left / 16, top / 16, (left + width) / 16, (top + height) / 16, 1]
    return x, y


def loaders(batch: int = 32) -> dict[str, DataLoader[tuple[Tensor, ...]]]:
    counts = {"train": 192, "validation": 32, "test": 48}
    sets = {
        part: TensorDataset(*map(torch.from_numpy, pictures(count, seed)))
        for seed, (part, count) in enumerate(counts.items())
    }
    return {part: DataLoader(found, batch, shuffle=part == "train") for part, found in sets.items()}
