"""Normalisations, exact and approximate under pruning, as modules, functions and hand-written formulas."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.models import IMAGE, Case, normal, seeded

FC = frozenset({"fc"})


class GroupNormNet(nn.Module):
    """Groups of 8 channels, and one group over all: every group must lose equally many, or the count must follow."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.GroupNorm(4, width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(1, width)
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norm1(self.conv1(x)))
        return self.fc(F.silu(self.norm2(self.conv2(x))).mean((2, 3)))


class GroupNormConcat(nn.Module):
    """A GroupNorm over a concatenation of unequal parts."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(3, 48, 3, padding=1)
        self.norm = nn.GroupNorm(4, 64)
        self.conv = nn.Conv2d(64, 32, 1)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(torch.cat([self.a(x), self.b(x)], dim=1)).relu()
        return self.fc(self.conv(x).relu().mean((2, 3)))


class InstanceNormNet(nn.Module):
    """Affine and plain; one with running statistics. Statistics per channel: exact under pruning."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, width, 3, padding=1), nn.InstanceNorm2d(width, affine=True)
        self.conv2, self.norm2 = nn.Conv2d(width, 48, 3, padding=1), nn.InstanceNorm2d(48)
        self.conv3 = nn.Conv2d(48, 32, 3, padding=1)
        self.norm3 = nn.InstanceNorm2d(32, affine=True, track_running_stats=True)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.conv1(x)).relu()
        x = self.norm2(self.conv2(x)).relu()
        return self.fc(self.norm3(self.conv3(x)).relu().mean((2, 3)))


class ConvNextBlock(nn.Module):
    """Depthwise 7x7, permute to channels last, LayerNorm, two linear layers, a layer scale, back; residual."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, dim, 4, stride=4)
        self.depthwise = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.lift, self.drop = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(1e-1 * torch.ones(dim))
        self.fc = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.gamma * self.drop(F.gelu(self.lift(y)))
        return self.fc((x + y.permute(0, 3, 1, 2)).mean([-2, -1]))


class HandWrittenNorms(nn.Module):
    """LayerNorm2d and RMSNorm from bare parameters, `F.layer_norm` with a stored shape, GRN."""

    def __init__(self, dim: int = 48) -> None:
        super().__init__()
        self.normalized_shape = (dim,)
        self.stem = nn.Conv2d(3, dim, 3, padding=1)
        self.weight2d, self.bias2d = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
        self.rms = nn.Parameter(torch.ones(dim))
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
        self.mlp = nn.Linear(dim, 96)
        self.grn = nn.Parameter(torch.ones(1, 96))
        self.out = nn.Linear(96, dim)
        self.fc = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        centred = x - x.mean(1, keepdim=True)
        x = centred / torch.sqrt(centred.pow(2).mean(1, keepdim=True) + 1e-6)
        x = (self.weight2d[:, None, None] * x + self.bias2d[:, None, None]).flatten(2).transpose(1, 2)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.rms
        y = F.gelu(self.mlp(F.layer_norm(x, self.normalized_shape, self.weight, self.bias, 1e-6)))
        energy = y.norm(p=2, dim=1, keepdim=True)
        y = self.grn * (y * (energy / (energy.mean(dim=-1, keepdim=True) + 1e-6))) + y
        return self.fc((x + self.out(y)).mean(1))


class FunctionalBatchNorm(nn.Module):
    """`F.batch_norm` on bare buffers, BatchNorm1d after a linear layer, BN without affine, a frozen BN."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))
        self.plain = nn.BatchNorm2d(width, affine=False)
        for name, value in (("scale", 1.0), ("shift", 0.0)):
            self.register_buffer(name, torch.full((width,), value))
        self.hidden, self.bn1d = nn.Linear(width, 48), nn.BatchNorm1d(48)
        self.fc = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.batch_norm(self.conv(x), self.mean, self.running_var, training=False).relu()
        x = self.plain(x) * self.scale.reshape(1, -1, 1, 1) + self.shift.reshape(1, -1, 1, 1)
        return self.fc(self.bn1d(self.hidden(x.mean((2, 3)))).relu())


class NormedWhole(nn.Module):
    """LayerNorm over [C, H, W] with a parameter for every position, and over the last axis alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm([32, 8, 8])
        self.last = nn.LayerNorm(8)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.last(self.conv2(self.norm(self.conv(x)).relu())).amax((2, 3)))


class UnitSphere(nn.Module):
    """Embeddings divided by their norm, cosine logits against learned centres (ArcFace)."""

    def __init__(self, dim: int = 48) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(24, 64), nn.PReLU(64), nn.Linear(64, dim))
        self.centres = nn.Parameter(torch.randn(10, dim))

    def forward(self, x: Tensor) -> Tensor:
        return 16 * F.linear(F.normalize(self.body(x)), F.normalize(self.centres))


class LocalResponse(nn.Module):
    """`F.local_response_norm` slides over channels: its input can lose none."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
        self.conv3 = nn.Conv2d(64, 64, 3, padding=1)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.local_response_norm(self.conv1(x).relu(), 5, alpha=1.0)
        return self.fc(self.conv3(self.conv2(x).relu()).relu().mean((2, 3)))


class NormedOverTokens(nn.Module):
    """GroupNorm of features whose positions are mixed tokens: its statistics run over those, too."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(12, 16)
        self.norm = nn.GroupNorm(4, 24, affine=False)
        self.fc = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.mix(x.mT)).relu().sum(2))


CASES = {
    "group_norm": Case(build=seeded(GroupNormNet), inputs=IMAGE, locked=FC, approximate=True),
    "group_norm_concat": Case(build=seeded(GroupNormConcat), inputs=IMAGE, locked=FC, approximate=True),
    "instance_norm": Case(build=seeded(InstanceNormNet), inputs=IMAGE, locked=FC),
    "layer_norm_convnext": Case(build=seeded(ConvNextBlock), inputs=normal((2, 3, 32, 32)), locked=FC, approximate=True),
    "norms_by_hand": Case(build=seeded(HandWrittenNorms), inputs=IMAGE, locked=FC, approximate=True),
    "batch_norm_functional": Case(build=seeded(FunctionalBatchNorm), inputs=IMAGE, locked=FC),
    "layer_norm_whole": Case(build=seeded(NormedWhole), inputs=IMAGE, locked=FC, approximate=True),
    "unit_sphere": Case(build=seeded(UnitSphere), inputs=normal((4, 24)), approximate=True),
    "local_response_norm": Case(build=seeded(LocalResponse), inputs=IMAGE, locked=FC | {"conv1"}),
    "group_norm_tokens": Case(build=seeded(NormedOverTokens), inputs=normal((2, 12, 24)), locked=FC, approximate=True),
}
