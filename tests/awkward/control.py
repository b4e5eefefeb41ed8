"""Forwards that branch on data, keep state, choose layers by name or skip them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.models import IMAGE, Case, normal, seeded, tokens

FC = frozenset({"fc"})


class DataDependent(nn.Module):
    """An early exit and a loop count that come from the values."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Conv2d(width, width, 3, padding=1)
        self.hot, self.cold = nn.Conv2d(width, 48, 1), nn.Conv2d(width, 48, 3, padding=1)
        self.fc = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        steps = 1 + int(x.abs().amax().item()) % 3
        x = self.conv1(x).relu()
        for _ in range(steps):
            x = x + self.body(x).relu()
        x = self.hot(x) if x.sum() > 0 else self.cold(x)
        return self.fc(x.relu().mean((2, 3)))


class CachesTensor(nn.Module):
    """Makes its position table at the first forward and keeps it, sized by the width it saw."""

    def __init__(self, dim: int = 48) -> None:
        super().__init__()
        self.stem, self.hidden, self.fc = nn.Linear(24, dim), nn.Linear(dim, 64), nn.Linear(64, 10)
        self.positions: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.positions is None or self.positions.shape != x.shape[1:]:
            steps = torch.arange(x.size(1), dtype=x.dtype, device=x.device)[:, None]
            self.positions = torch.sin(steps / torch.arange(1, x.size(2) + 1, dtype=x.dtype, device=x.device))
        return self.fc(self.hidden(x + self.positions).relu().mean(1))


class CachesBias(nn.Module):
    """LeViT in eval mode: gathers a learned bias table once into a plain attribute."""

    def __init__(self, dim: int = 32, length: int = 12) -> None:
        super().__init__()
        self.embed, self.mix = nn.Linear(24, dim), nn.Linear(dim, dim)
        self.table = nn.Parameter(torch.randn(2 * length - 1, dim))
        steps = torch.arange(length)
        self.register_buffer("index", steps[:, None] - steps[None] + length - 1, persistent=False)
        self.cache: dict[str, Tensor] = {}
        self.fc = nn.Linear(dim, 10)

    def bias(self, device: torch.device) -> Tensor:
        if self.training:
            return self.table[self.index]
        key = str(device)
        if key not in self.cache:
            self.cache[key] = self.table[self.index]
        return self.cache[key]

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        y = (self.bias(x.device) * x.unsqueeze(1)).mean(2)
        return self.fc(self.mix(x + y).relu().mean(1))


class LayerDrop(nn.Module):
    """Dropout, stochastic depth and layers that only run in training."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.auxiliary = nn.Linear(width, 10)
        self.drop, self.fc = nn.Dropout2d(0.3), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.stem(x)
        for block in self.blocks:
            if self.training and torch.rand(()) < 0.1:
                continue
            x = x + self.drop(block(x).relu())
        x = x.mean((2, 3))
        return (self.fc(x), self.auxiliary(x)) if self.training else self.fc(x)


class NamedLayers(nn.Module):
    """Layers found by name with getattr, a `ModuleDict` of activations, a nested list, a module never used."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = 3
        widths = [3, 24, 32, 48]
        for i in range(self.depth):
            setattr(self, f"conv{i}", nn.Conv2d(widths[i], widths[i + 1], 3, padding=1))
        self.activations = nn.ModuleDict({"relu": nn.ReLU(), "gelu": nn.GELU()})
        self.unused = nn.Linear(48, 48)
        self.fc = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        for i in range(self.depth):
            x = self.activations["gelu" if i % 2 else "relu"](getattr(self, f"conv{i}")(x))
        return self.fc(x.mean((2, 3)))


class TopTokens(nn.Module):
    """Keeps the best half of the tokens by a learned score: `topk` and `gather` with an expanded index."""

    def __init__(self, dim: int = 48) -> None:
        super().__init__()
        self.stem, self.score = nn.Linear(24, dim), nn.Linear(dim, 1)
        self.hidden, self.fc = nn.Linear(dim, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        index = self.score(x).squeeze(-1).topk(x.size(1) // 2, dim=1).indices
        x = torch.gather(x, 1, index.unsqueeze(-1).expand(-1, -1, x.size(-1)))
        return self.fc(self.hidden(x).relu().mean(1))


class HardRouting(nn.Module):
    """Each token goes to one expert: boolean masks, `index_add_`, a loop over experts with data-dependent sizes."""

    def __init__(self, dim: int = 32, experts: int = 3) -> None:
        super().__init__()
        self.stem, self.router = nn.Linear(24, dim), nn.Linear(dim, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, 48), nn.GELU(), nn.Linear(48, dim)) for _ in range(experts)
        )
        self.fc = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(0, 1)
        choice = self.router(x).argmax(-1)
        out = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            rows = torch.where(choice == i)[0]
            if rows.numel():
                out.index_add_(0, rows, expert(x[rows]))
        return self.fc(x + out)


class MaskedPooling(nn.Module):
    """A mask made from ids, `masked_fill`, `torch.where`, a mean over valid tokens."""

    def __init__(self, dim: int = 48) -> None:
        super().__init__()
        self.embed, self.hidden = nn.Embedding(40, dim), nn.Linear(dim, 64)
        self.empty = nn.Parameter(torch.randn(dim))
        self.fc = nn.Linear(64, 10)

    def forward(self, ids: Tensor) -> Tensor:
        mask = (ids > 5).unsqueeze(-1)
        x = torch.where(mask, self.embed(ids), self.empty)
        x = self.hidden(x).relu().masked_fill(~mask, 0.0)
        return self.fc(x.sum(1) / mask.sum(1).clamp(min=1))


class InPlace(nn.Module):
    """In-place arithmetic everywhere: `add_`, `mul_`, `relu_`, `copy_` into a new buffer, `out +=`."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.width = width
        self.conv1, self.bn = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.scale = nn.Conv2d(width, width, 3, padding=1), nn.Parameter(torch.rand(width, 1, 1))
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv1(x)), inplace=True)
        out = self.conv2(x)
        out += x
        out.mul_(self.scale).add_(1.0).clamp_(min=0)
        buffer = x.new_empty(x.size(0), self.width, *x.shape[2:])
        buffer.copy_(out)
        return self.fc(buffer.mean((2, 3)))


class AuxiliaryHead(nn.Module):
    """GoogLeNet: a second head reads the first block, in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.aux = nn.Sequential(nn.Conv2d(16, 24, 1), nn.BatchNorm2d(24), nn.ReLU(), nn.Flatten(), nn.Linear(24 * 256, 10))
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.conv1(x).relu()
        out = self.fc(self.conv2(x).relu().mean((2, 3)))
        return (out, self.aux(x)) if self.training else out


CASES = {
    "data_dependent": Case(build=seeded(DataDependent), inputs=IMAGE, locked=FC),
    "caches_tensor": Case(build=seeded(CachesTensor), inputs=normal((2, 12, 24)), locked=FC),
    "caches_bias": Case(build=seeded(CachesBias), inputs=normal((2, 12, 24)), locked=FC),
    "layer_drop": Case(build=seeded(LayerDrop), inputs=IMAGE, locked=FC),
    "named_layers": Case(build=seeded(NamedLayers), inputs=IMAGE, locked=FC),
    "top_tokens": Case(build=seeded(TopTokens), inputs=normal((2, 12, 24)), locked=FC),
    "hard_routing": Case(build=seeded(HardRouting), inputs=normal((2, 12, 24)), locked=FC),
    "masked_pooling": Case(build=seeded(MaskedPooling), inputs=tokens((3, 9), high=40), locked=FC),
    "in_place": Case(build=seeded(InPlace), inputs=IMAGE, locked=FC),
    "auxiliary_head": Case(build=seeded(AuxiliaryHead), inputs=IMAGE, locked=FC | {"conv1", "aux.0", "aux.4"}),
}
