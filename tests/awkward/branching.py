"""Channels that meet: gates, attention over branches, pyramids, concatenations, products, shared heads."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.models import IMAGE, Case, normal, seeded

FC = frozenset({"fc"})


class DenseBlock(nn.Module):
    """DenseNet: BN before each convolution of the concatenation so far, then a transition."""

    def __init__(self, growth: int = 16, depth: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.layers = nn.ModuleList()
        for i in range(depth):
            width = 32 + i * growth
            self.layers.append(
                nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.Conv2d(width, growth, 3, padding=1))
            )
        self.transition = nn.Sequential(nn.Conv2d(32 + depth * growth, 32, 1), nn.AvgPool2d(2))
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return self.fc(self.transition(torch.cat(features, 1)).mean((2, 3)))


class SqueezeExciteConv(nn.Module):
    """MBConv with a convolutional SE gate, hard-swish, residual."""

    def __init__(self, width: int = 32, hidden: int = 96) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.expand = nn.Sequential(nn.Conv2d(width, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.Hardswish())
        self.depthwise = nn.Sequential(
            nn.Conv2d(hidden, hidden, 5, padding=2, groups=hidden, bias=False), nn.BatchNorm2d(hidden), nn.SiLU()
        )
        self.se = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(hidden, 24, 1), nn.ReLU(), nn.Conv2d(24, hidden, 1), nn.Hardsigmoid()
        )
        self.project = nn.Sequential(nn.Conv2d(hidden, width, 1, bias=False), nn.BatchNorm2d(width))
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        h = self.depthwise(self.expand(x))
        return self.fc((x + self.project(self.se(h) * h)).mean((2, 3)))


class EfficientChannelAttention(nn.Module):
    """ECA: a 1-D convolution that slides over the channels. They keep their neighbours only if none is removed."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.eca = nn.Conv1d(1, 1, kernel_size=3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, 64, 3, padding=1)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).relu()
        y = F.adaptive_avg_pool2d(x, 1).squeeze(-1).transpose(-1, -2)
        y = self.eca(y).transpose(-1, -2).unsqueeze(-1).sigmoid()
        return self.fc(self.conv2(x * y.expand_as(x)).relu().mean((2, 3)))


class Cbam(nn.Module):
    """A shared channel MLP on mean and max, then a spatial gate from the mean and max over channels."""

    def __init__(self, width: int = 48, ratio: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.mlp = nn.Sequential(
            nn.Conv2d(width, width // ratio, 1, bias=False), nn.ReLU(), nn.Conv2d(width // ratio, width, 1, bias=False)
        )
        self.spatial = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).relu()
        x = x * torch.sigmoid(self.mlp(F.adaptive_avg_pool2d(x, 1)) + self.mlp(F.adaptive_max_pool2d(x, 1)))
        gate = torch.cat([x.mean(dim=1, keepdim=True), x.max(dim=1, keepdim=True)[0]], dim=1)
        return self.fc((x * self.spatial(gate).sigmoid()).mean((2, 3)))


class MeanOverChannels(nn.Module):
    """A mean over channels alone: exact if the lost share of the mean is folded into a weight."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 32, 3, padding=1)
        self.gate = nn.Conv2d(1, 1, 3, padding=1)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).relu()
        return self.fc((self.conv2(x).relu() * self.gate(x.mean(1, keepdim=True)).sigmoid()).mean((2, 3)))


class SelectiveKernel(nn.Module):
    """SK: softmax over the branches, stacked at axis 1, one weight layer per branch."""

    def __init__(self, width: int = 48, branches: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.branches = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1 + i, dilation=1 + i) for i in range(branches))
        self.squeeze = nn.Linear(width, 24)
        self.weigh = nn.ModuleList(nn.Linear(24, width) for _ in range(branches))
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        maps = torch.stack([branch(x).relu() for branch in self.branches], dim=1)
        z = self.squeeze(maps.sum(1).mean((-2, -1))).relu()
        weights = torch.stack([weigh(z) for weigh in self.weigh], dim=1).softmax(dim=1)
        return self.fc((maps * weights[..., None, None]).sum(dim=1).mean((2, 3)))


class SplitAttention(nn.Module):
    """ResNeSt: one grouped convolution makes radix x width channels; view, softmax over radix, view back."""

    def __init__(self, width: int = 32, radix: int = 2) -> None:
        super().__init__()
        self.radix = radix
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.conv = nn.Conv2d(width, width * radix, 3, padding=1, groups=radix, bias=False)
        self.bn = nn.BatchNorm2d(width * radix)
        self.fc1, self.fc2 = nn.Conv2d(width, 24, 1), nn.Conv2d(24, width * radix, 1)
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(self.stem(x))).relu()
        b, rc, h, w = x.shape
        x = x.reshape(b, self.radix, rc // self.radix, h, w)
        gap = F.adaptive_avg_pool2d(x.sum(dim=1), 1)
        attn = self.fc2(self.fc1(gap).relu()).view(b, 1, self.radix, -1).transpose(1, 2)
        attn = F.softmax(attn, dim=1).reshape(b, self.radix, rc // self.radix, 1, 1)
        return self.fc((x * attn).sum(dim=1).mean((2, 3)))


class CoordinateAttention(nn.Module):
    """Pooled rows and columns concatenated along space, convolved, split apart again."""

    def __init__(self, width: int = 48, inner: int = 24) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.conv1, self.bn1 = nn.Conv2d(width, inner, 1), nn.BatchNorm2d(inner)
        self.conv_h, self.conv_w = nn.Conv2d(inner, width, 1), nn.Conv2d(inner, width, 1)
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        _, _, h, w = x.size()
        rows, cols = x.mean(3, keepdim=True), x.mean(2, keepdim=True).permute(0, 1, 3, 2)
        y = F.hardswish(self.bn1(self.conv1(torch.cat([rows, cols], dim=2))))
        rows, cols = torch.split(y, [h, w], dim=2)
        x = x * self.conv_h(rows).sigmoid() * self.conv_w(cols.permute(0, 1, 3, 2)).sigmoid()
        return self.fc(x.mean((2, 3)))


class FeaturePyramid(nn.Module):
    """FPN: laterals, top-down additions, one head shared by all levels, a list of outputs."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 48), inner: int = 32) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU())
            for before, width in zip((3, *widths), widths, strict=False)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(width, inner, 1) for width in widths)
        self.smooth = nn.ModuleList(nn.Conv2d(inner, inner, 3, padding=1) for _ in widths)
        self.tower = nn.Sequential(nn.Conv2d(inner, inner, 3, padding=1), nn.ReLU())
        self.boxes, self.classes = nn.Conv2d(inner, 12, 3, padding=1), nn.Conv2d(inner, 9, 3, padding=1)

    def forward(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        maps = []
        for stage, lateral in zip(self.stages, self.lateral, strict=True):
            x = stage(x)
            maps.append(lateral(x))
        for i in range(len(maps) - 1, 0, -1):
            maps[i - 1] = maps[i - 1] + F.interpolate(maps[i], size=maps[i - 1].shape[-2:], mode="nearest")
        towers = [self.tower(smooth(level)) for smooth, level in zip(self.smooth, maps, strict=True)]
        return [(self.boxes(t), self.classes(t).permute(0, 2, 3, 1).reshape(t.size(0), -1, 3)) for t in towers]


class UNet(nn.Module):
    """Down, up by bilinear interpolation and by transposed convolution, skips by cat with a crop."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = self.double(3, 16)
        self.down2 = self.double(16, 32)
        self.bottom = self.double(32, 64)
        self.up2 = nn.ConvTranspose2d(64, 32, 2, stride=2)
        self.join2 = self.double(64, 32)
        self.join1 = self.double(48, 16)
        self.head = nn.Conv2d(16, 2, 1)

    @staticmethod
    def double(inner: int, outer: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inner, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer), nn.ReLU(inplace=True),
            nn.Conv2d(outer, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer), nn.ReLU(inplace=True),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        c = self.bottom(F.max_pool2d(b, 2))
        up = self.up2(c)
        up = F.pad(up, [0, b.size(3) - up.size(3), 0, b.size(2) - up.size(2)])
        x = self.join2(torch.cat([b, up], dim=1))
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        return self.head(self.join1(torch.cat([a, x], dim=1)))


class Aspp(nn.Module):
    """Atrous branches of one input plus image-level pooling, concatenated and projected."""

    def __init__(self, width: int = 32, inner: int = 24) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.branches = nn.ModuleList(nn.Conv2d(width, inner, 3, padding=r, dilation=r) for r in (1, 2, 4))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, inner, 1))
        self.project = nn.Conv2d(4 * inner, 32, 1)
        self.head = nn.Conv2d(32, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        parts = [branch(x).relu() for branch in self.branches]
        parts.append(F.interpolate(self.pool(x), size=x.shape[-2:], mode="bilinear", align_corners=False))
        return self.head(self.project(torch.cat(parts, dim=1)).relu())


class StackSum(nn.Module):
    """Branches stacked on a new first axis and summed, weighted by softmaxed scalars (BiFPN)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(3, width, k, padding=k // 2) for k in (1, 3, 5))
        self.weights = nn.Parameter(torch.randn(3))
        self.conv = nn.Conv2d(width, 32, 3, padding=1)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.stack([branch(x) for branch in self.branches])
        x = (maps * self.weights.softmax(0).view(-1, 1, 1, 1, 1)).sum(0).relu()
        return self.fc(self.conv(x).relu().mean((2, 3)))


class BilinearPooling(nn.Module):
    """Outer product of two feature vectors, flattened: two prunable axes merge."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(3, 24, 3, padding=1)
        self.hidden = nn.Linear(16 * 24, 64)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.left(x).relu().flatten(2), self.right(x).relu().flatten(2)
        y = torch.einsum("bcn,bdn->bcd", a, b) / a.shape[-1]
        return self.fc(self.hidden(y.flatten(1)).relu())


class BilinearLayer(nn.Module):
    """`nn.Bilinear` of two encodings."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(24, 32), nn.Linear(20, 48)
        self.bilinear = nn.Bilinear(32, 48, 32)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.fc(self.bilinear(self.left(x).relu(), self.right(y).relu()).relu())


class TwoTower(nn.Module):
    """Scores are dot products of two encodings: no weight reads their last axis."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.query = nn.Sequential(nn.Linear(24, 64), nn.ReLU(), nn.Linear(64, dim))
        self.item = nn.Sequential(nn.Linear(20, 48), nn.GELU(), nn.Linear(48, dim))

    def forward(self, query: Tensor, item: Tensor) -> Tensor:
        return self.query(query) @ self.item(item).T


class RepVgg(nn.Module):
    """Three parallel branches with their own norms, one of them only a norm; added."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.dense = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        self.point = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width))
        self.identity = nn.BatchNorm2d(width)
        self.conv = nn.Conv2d(width, 48, 3, padding=1)
        self.fc = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = (self.dense(x) + self.point(x) + self.identity(x)).relu()
        return self.fc(self.conv(x).relu().mean((2, 3)))


class MlpMixer(nn.Module):
    """Token mixing through a transpose: two kinds of linear layers on two axes of one tensor."""

    def __init__(self, dim: int = 48, positions: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, 4, stride=4)
        self.tokens = nn.Sequential(nn.Linear(positions, 32), nn.GELU(), nn.Linear(32, positions))
        self.channels = nn.Sequential(nn.Linear(dim, 96), nn.GELU(), nn.Linear(96, dim))
        self.fc = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.tokens(x.transpose(1, 2)).transpose(1, 2)
        return self.fc((x + self.channels(x)).mean(1))


class GatedUnits(nn.Module):
    """`F.glu` over channels, then SwiGLU with a fused up-projection."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 2 * width, 3, padding=1)
        self.w12, self.w3 = nn.Linear(width, 2 * 64), nn.Linear(64, width)
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.glu(self.stem(x), dim=1).mean((2, 3))
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.fc(x + self.w3(F.silu(gate) * value))


class WaveNet(nn.Module):
    """Dilated 1-D convolutions, tanh times sigmoid of two halves, residual and skip sums."""

    def __init__(self, width: int = 32, skip: int = 24) -> None:
        super().__init__()
        self.width = width
        self.start = nn.Conv1d(4, width, 1)
        self.dilated = nn.ModuleList(nn.Conv1d(width, 2 * width, 3, padding=2**i, dilation=2**i) for i in range(3))
        self.residual = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(3))
        self.skip = nn.ModuleList(nn.Conv1d(width, skip, 1) for _ in range(3))
        self.end = nn.Conv1d(skip, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.start(x)
        total = torch.zeros((), dtype=x.dtype)
        for dilated, residual, skip in zip(self.dilated, self.residual, self.skip, strict=True):
            y = dilated(x)
            y = torch.tanh(y[:, : self.width]) * torch.sigmoid(y[:, self.width :])
            total = total + skip(y)
            x = x + residual(y)
        return self.end(total.relu())


CASES = {
    "dense_block": Case(build=seeded(DenseBlock), inputs=IMAGE, locked=FC),
    "se_conv": Case(build=seeded(SqueezeExciteConv), inputs=IMAGE, locked=FC),
    "eca": Case(build=seeded(EfficientChannelAttention), inputs=IMAGE, locked=FC | {"conv1"}),
    "cbam": Case(build=seeded(Cbam), inputs=IMAGE, locked=FC, approximate=True),
    "mean_over_channels": Case(build=seeded(MeanOverChannels), inputs=IMAGE, locked=FC),
    "selective_kernel": Case(build=seeded(SelectiveKernel), inputs=IMAGE, locked=FC),
    "split_attention": Case(build=seeded(SplitAttention), inputs=IMAGE, locked=FC),
    "coordinate_attention": Case(build=seeded(CoordinateAttention), inputs=IMAGE, locked=FC),
    "feature_pyramid": Case(
        build=seeded(FeaturePyramid), inputs=normal((1, 3, 32, 32)), locked=frozenset({"boxes", "classes"})
    ),
    "unet": Case(build=seeded(UNet), inputs=IMAGE, locked=frozenset({"head"})),
    "aspp": Case(build=seeded(Aspp), inputs=IMAGE, locked=frozenset({"head"})),
    "stack_sum": Case(build=seeded(StackSum), inputs=IMAGE, locked=FC),
    "bilinear_pooling": Case(build=seeded(BilinearPooling), inputs=IMAGE, locked=FC),
    "bilinear_layer": Case(build=seeded(BilinearLayer), inputs=normal((4, 24), (4, 20)), locked=FC),
    "two_tower": Case(build=seeded(TwoTower), inputs=normal((3, 24), (5, 20))),
    "rep_vgg": Case(build=seeded(RepVgg), inputs=IMAGE, locked=FC),
    "mlp_mixer": Case(build=seeded(MlpMixer), inputs=IMAGE, locked=FC),
    "gated_units": Case(build=seeded(GatedUnits), inputs=IMAGE, locked=FC),
    "wavenet": Case(build=seeded(WaveNet), inputs=normal((2, 4, 40)), locked=frozenset({"end"})),
}
