"""Several inputs, several outputs, dictionaries, dataclasses, optional arguments."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tests.models import IMAGE, Case, Inputs, normal, seeded

FC = frozenset({"fc"})


class MultiInput(nn.Module):
    """An image and a vector (late fusion); the vector's width is part of the concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.vector = nn.Conv2d(3, 32, 3, padding=1), nn.Linear(6, 24)
        self.fuse = nn.Linear(32 + 24 + 6, 48)
        self.fc = nn.Linear(48, 10)

    def forward(self, image: Tensor, vector: Tensor) -> Tensor:
        x = torch.cat([self.conv(image).relu().mean((2, 3)), self.vector(vector).relu(), vector], dim=1)
        return self.fc(self.fuse(x).relu())


class KeywordInputs(nn.Module):
    """Called with keywords; one of them optional, with a default branch."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.embed, self.types = nn.Embedding(50, dim), nn.Embedding(4, dim)
        self.hidden, self.fc = nn.Linear(dim, 64), nn.Linear(64, 10)

    def forward(self, *, ids: Tensor, mask: Tensor | None = None, types: Tensor | None = None) -> Tensor:
        x = self.embed(ids) + self.types(torch.zeros_like(ids) if types is None else types)
        x = self.hidden(x).relu()
        if mask is None:
            mask = torch.ones(ids.shape, dtype=x.dtype, device=x.device)
        return self.fc((x * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True))


class MultiOutput(nn.Module):
    """Logits, an auxiliary head and a feature map that leaves the model: its channels stay."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 24, 3, padding=1)
        self.conv3 = nn.Conv2d(24, 64, 3, padding=1)
        self.aux, self.fc = nn.Linear(32, 5), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.conv1(x).relu()
        features = self.conv2(x)
        return self.fc(self.conv3(features.relu()).relu().mean((2, 3))), self.aux(x.mean((2, 3))), features


class DictOutput(nn.Module):
    """A segmentation model's dictionary, nested, with a number that is no tensor in it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 48, 3, stride=2, padding=1)
        self.out, self.aux = nn.Conv2d(48, 4, 1), nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> dict[str, object]:
        x = self.conv1(x).relu()
        return {"out": self.out(self.conv2(x).relu()), "extra": {"aux": [self.aux(x)]}, "stride": 2}


@dataclass
class Detection:
    boxes: Tensor
    scores: Tensor
    features: tuple[Tensor, ...] | None = None


class DataclassOutput(nn.Module):
    """A plain dataclass, not registered with pytree, as home-made detectors return it."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, width, 3, padding=1)
        self.boxes, self.scores = nn.Conv2d(width, 4, 1), nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Detection:
        x = self.conv2(self.conv1(x).relu()).relu()
        return Detection(boxes=self.boxes(x).sigmoid(), scores=self.scores(x).softmax(1))


class Siamese(nn.Module):
    """One tower on two images; the difference and the product of the codes are classified."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, dim, 3, padding=1))
        self.fc = nn.Linear(2 * dim, 2)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        a, b = (self.tower(x).mean((2, 3)) for x in (a, b))
        return self.fc(torch.cat([(a - b).abs(), a * b], dim=-1))


class Preprocessing(nn.Module):
    """Buffers normalise the image; two scales of it share a backbone; features of both are flattened together."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.register_buffer("mean", torch.rand(1, 3, 1, 1))
        self.register_buffer("std", torch.rand(1, 3, 1, 1) + 0.5)
        self.conv = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.hidden = nn.Linear(width * (8 * 8 + 4 * 4), 64)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / self.std
        maps = [self.conv(x).relu(), self.conv(nn.functional.avg_pool2d(x, 2)).relu()]
        return self.fc(self.hidden(torch.cat([m.flatten(1) for m in maps], dim=1)).relu())


def _keywords() -> Inputs:
    rng = torch.Generator().manual_seed(1)
    return {"ids": torch.randint(50, (2, 9), generator=rng), "types": torch.randint(4, (2, 9), generator=rng)}


CASES = {
    "multi_input": Case(build=seeded(MultiInput), inputs=normal((2, 3, 16, 16), (2, 6)), locked=FC),
    "keyword_inputs": Case(build=seeded(KeywordInputs), inputs=_keywords, locked=FC),
    "multi_output": Case(build=seeded(MultiOutput), inputs=IMAGE, locked=FC | {"aux", "conv2"}),
    "dict_output": Case(build=seeded(DictOutput), inputs=IMAGE, locked=frozenset({"out", "aux"})),
    "dataclass_output": Case(build=seeded(DataclassOutput), inputs=IMAGE, locked=frozenset({"boxes", "scores"})),
    "siamese": Case(build=seeded(Siamese), inputs=normal((2, 3, 16, 16), (2, 3, 16, 16)), locked=FC),
    "preprocessing": Case(build=seeded(Preprocessing), inputs=IMAGE, locked=FC),
}
