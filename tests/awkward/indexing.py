"""Channels that are split, shuffled, moved, padded or addressed by position."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.models import IMAGE, Case, seeded

FC = frozenset({"fc"})


class ShuffleUnit(nn.Module):
    """ShuffleNet: grouped 1x1, channel shuffle through a view, depthwise, grouped 1x1."""

    def __init__(self, width: int = 48, groups: int = 3) -> None:
        super().__init__()
        self.groups = groups
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.conv1 = nn.Conv2d(width, width, 1, groups=groups)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.conv2 = nn.Conv2d(width, width, 1, groups=groups)
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = F.relu(self.conv1(x))
        b, c, h, w = y.shape
        y = y.view(b, self.groups, c // self.groups, h, w).transpose(1, 2).contiguous().view(b, -1, h, w)
        x = F.relu(x + self.conv2(self.depthwise(y)))
        return self.fc(x.mean((2, 3)))


class ShuffleV2Unit(nn.Module):
    """ShuffleNetV2: chunk in two, one half passes, cat, then `nn.ChannelShuffle`; twice, so that halves mix."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        half = width // 2
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(half, half, 1), nn.BatchNorm2d(half), nn.ReLU(), nn.Conv2d(half, half, 3, padding=1))
            for _ in range(2)
        )
        self.shuffle = nn.ChannelShuffle(2)
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for branch in self.branches:
            keep, work = x.chunk(2, dim=1)
            x = self.shuffle(torch.cat((keep, branch(work)), dim=1))
        return self.fc(x.mean((2, 3)))


class SplitEven(nn.Module):
    """C2f of the YOLO family: `split` by a stored size, a growing list, one cat."""

    def __init__(self, hidden: int = 24, depth: int = 2) -> None:
        super().__init__()
        self.c = hidden
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.cv1 = nn.Conv2d(16, 2 * hidden, 1)
        self.m = nn.ModuleList(nn.Conv2d(hidden, hidden, 3, padding=1) for _ in range(depth))
        self.cv2 = nn.Conv2d((2 + depth) * hidden, 32, 1)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = list(self.cv1(self.stem(x)).split((self.c, self.c), 1))
        y.extend(F.silu(m(y[-1])) for m in self.m)
        return self.fc(self.cv2(torch.cat(y, 1)).relu().mean((2, 3)))


class SplitUneven(nn.Module):
    """Res2Net-like with parts of three sizes, held in a derived list."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = [16, 24, 40]
        self.stem = nn.Conv2d(3, sum(self.sizes), 3, padding=1)
        self.conv = nn.ModuleList(nn.Conv2d(n, n, 3, padding=1) for n in self.sizes[1:])
        self.fc = nn.Linear(sum(self.sizes), 10)

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = torch.split(self.stem(x).relu(), self.sizes, dim=1)
        parts = [first] + [conv(part).relu() for conv, part in zip(self.conv, rest, strict=True)]
        return self.fc(torch.cat(parts, dim=1).mean((2, 3)))


class Res2Net(nn.Module):
    """Hierarchical adds between equal chunks: all chunks are coupled."""

    def __init__(self, width: int = 24, scale: int = 4) -> None:
        super().__init__()
        self.width, self.scale = width, scale
        self.conv1 = nn.Conv2d(3, width * scale, 1)
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(scale - 1))
        self.conv3 = nn.Conv2d(width * scale, 32, 1)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        spx = torch.split(self.conv1(x), self.width, 1)
        out, sp = [spx[-1]], None
        for i in range(self.scale - 1):
            sp = spx[i] if sp is None else sp + spx[i]
            sp = self.convs[i](sp).relu()
            out.append(sp)
        return self.fc(self.conv3(torch.cat(out, 1)).mean((2, 3)))


class Ghost(nn.Module):
    """GhostNet: cheap features by a depthwise convolution, cat, then `[:, :self.oup]`."""

    def __init__(self, oup: int = 48) -> None:
        super().__init__()
        self.oup = oup
        self.primary = nn.Conv2d(3, oup // 2, 1)
        self.cheap = nn.Conv2d(oup // 2, oup // 2, 3, padding=1, groups=oup // 2)
        self.conv = nn.Conv2d(oup, 32, 1)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.primary(x).relu()
        x = torch.cat([x1, self.cheap(x1)], dim=1)[:, : self.oup, :, :]
        return self.fc(self.conv(x).relu().mean((2, 3)))


class PartialConv(nn.Module):
    """FasterNet: a convolution on the first quarter of the channels, written in place."""

    def __init__(self, dim: int = 64, div: int = 4) -> None:
        super().__init__()
        self.dim_conv = dim // div
        self.stem = nn.Conv2d(3, dim, 3, padding=1)
        self.partial = nn.Conv2d(self.dim_conv, self.dim_conv, 3, padding=1, bias=False)
        self.mlp = nn.Sequential(nn.Conv2d(dim, 2 * dim, 1), nn.GELU(), nn.Conv2d(2 * dim, dim, 1))
        self.fc = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = x.clone()
        y[:, : self.dim_conv, :, :] = self.partial(y[:, : self.dim_conv, :, :])
        return self.fc((x + self.mlp(y)).mean((2, 3)))


class TemporalShift(nn.Module):
    """TSM: an eighth of the channels comes from the next frame, an eighth from the last one, by slice assignment."""

    def __init__(self, width: int = 64, segments: int = 4) -> None:
        super().__init__()
        self.segments, self.fold_div = segments, 8
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.conv = nn.Conv2d(width, 32, 3, padding=1)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(0, 1)).relu()
        nt, c, h, w = x.shape
        x = x.view(nt // self.segments, self.segments, c, h, w)
        fold = c // self.fold_div
        out = torch.zeros_like(x)
        out[:, :-1, :fold] = x[:, 1:, :fold]
        out[:, 1:, fold : 2 * fold] = x[:, :-1, fold : 2 * fold]
        out[:, :, 2 * fold :] = x[:, :, 2 * fold :]
        return self.fc(self.conv(out.view(nt, c, h, w)).relu().mean((2, 3)))


class ConstantSlice(nn.Module):
    """A literal start: after pruning the slice may keep its length and read shifted channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 64, 3, padding=1)
        self.left = nn.Conv2d(32, 32, 1)
        self.right = nn.Conv2d(32, 32, 1)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu()
        x = self.left(x[:, :32]) * torch.sigmoid(self.right(x[:, 32:]))
        return self.fc(x.mean((2, 3)))


class OverlappingSlices(nn.Module):
    """Two literal windows that share channels, one of them `narrow`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 64, 3, padding=1)
        self.a = nn.Conv2d(40, 32, 1)
        self.b = nn.Conv2d(40, 32, 1)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu()
        return self.fc((self.a(x[:, :40]) + self.b(x.narrow(1, 24, 40))).relu().mean((2, 3)))


class StridedChannels(nn.Module):
    """Even and odd channels are separate inputs: `x[:, ::2]`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 64, 3, padding=1)
        self.even = nn.Conv2d(32, 24, 1)
        self.odd = nn.Conv2d(32, 24, 1)
        self.fc = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu()
        return self.fc((self.even(x[:, ::2]) + self.odd(x[:, 1::2])).relu().mean((2, 3)))


class FlipChannels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(64, 32, 1)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        x = torch.cat((F.relu(x), F.relu(-x.flip(1))), 1)  # CReLU, mirrored
        return self.fc(self.conv2(x).relu().mean((2, 3)))


class FlipAdd(nn.Module):
    """x + flip(x) couples channel i with channel n - 1 - i."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 32, 1)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        return self.fc(self.conv2(F.relu(x + torch.flip(x, dims=(1,)))).relu().mean((2, 3)))


class RollChannels(nn.Module):
    """AS-MLP: chunks of the channels, rolled in space; then the channels themselves rolled by half."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.width = width
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 1)
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.conv1(x).relu().chunk(3, dim=1)
        x = torch.cat([torch.roll(part, shift, 2) for part, shift in zip(parts, (-1, 0, 1), strict=True)], 1)
        x = torch.roll(self.conv2(x), self.width // 2, dims=1)
        return self.fc(x.relu().mean((2, 3)))


class ShortcutA(nn.Module):
    """CIFAR ResNet, option A: the shortcut is strided and padded with zero channels on both sides."""

    def __init__(self, inner: int = 16, outer: int = 32) -> None:
        super().__init__()
        self.pad = (outer - inner) // 2
        self.stem = nn.Conv2d(3, inner, 3, padding=1)
        self.conv1 = nn.Conv2d(inner, outer, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1)
        self.fc = nn.Linear(outer, 10)

    def shortcut(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad), "constant", 0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = self.conv2(self.conv1(x).relu()) + self.shortcut(x)
        return self.fc(x.relu().mean((2, 3)))


class LambdaLayer(nn.Module):
    def __init__(self, lambd: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, x: Tensor) -> Tensor:
        return self.lambd(x)


class ShortcutLambda(ShortcutA):
    """The same with the padding in a closure, where no attribute can be mended."""

    def __init__(self, inner: int = 16, outer: int = 32) -> None:
        super().__init__(inner, outer)
        self.shortcut = LambdaLayer(lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, outer // 4, outer // 4)))


class ZerosShortcut(nn.Module):
    """PyramidNet: the residual of fewer channels gets `torch.zeros` appended, of a size taken at run time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 24, 3, padding=1)
        self.conv2 = nn.Conv2d(24, 40, 3, padding=1)
        self.fc = nn.Linear(40, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).relu()
        y = self.conv2(x)
        zeros = torch.zeros(x.size(0), y.size(1) - x.size(1), *x.shape[2:], dtype=x.dtype, device=x.device)
        return self.fc((y + torch.cat((x, zeros), 1)).relu().mean((2, 3)))


class IndexChannels(nn.Module):
    """Advanced indexing: a permutation in a buffer, a gather of every third channel, an `index_select`."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.register_buffer("order", torch.randperm(width))
        self.register_buffer("third", torch.arange(0, width, 3))
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 1)
        self.conv3 = nn.Conv2d(width // 3, 32, 1)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.conv1(x).relu()[:, self.order])
        return self.fc(self.conv3(x.index_select(1, self.third).relu()).mean((2, 3)))


class IndexRepeated(nn.Module):
    """Numbers that count from the end, repeat and leave channels out, on two axes; and one buffer that two calls read."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.register_buffer("some", torch.cat((torch.arange(-1, -17, -1), torch.arange(8), torch.arange(8))))
        self.register_buffer("last", torch.arange(width - 1, -1, -1), persistent=False)
        self.register_buffer("shared", torch.randperm(24))
        self.conv1, self.conv2 = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(32, width, 1)
        self.hidden, self.wide = nn.Linear(width, 24), nn.Linear(24, 96)
        self.fc = nn.Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.conv1(x).relu()[:, self.some]).relu()
        x = self.hidden(x.mean((2, 3)).index_select(-1, self.last))
        return self.fc(self.wide(x[:, self.shared].relu() + x.sin()[:, self.shared]).relu())


class Unbind(nn.Module):
    """Heads taken apart with unbind and put back with stack."""

    def __init__(self, parts: int = 2, width: int = 32) -> None:
        super().__init__()
        self.parts, self.width = parts, width
        self.conv = nn.Conv2d(3, parts * width, 3, padding=1)
        self.heads = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(parts))
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu()
        parts = x.reshape(x.size(0), self.parts, self.width, *x.shape[2:]).unbind(1)
        x = torch.stack([head(part) for head, part in zip(self.heads, parts, strict=True)], dim=0).sum(dim=0)
        return self.fc(x.relu().mean((2, 3)))


CASES = {
    "channel_shuffle": Case(build=seeded(ShuffleUnit), inputs=IMAGE, locked=FC),
    "channel_shuffle_v2": Case(build=seeded(ShuffleV2Unit), inputs=IMAGE, locked=FC),
    "split_even": Case(build=seeded(SplitEven), inputs=IMAGE, locked=FC),
    "split_uneven": Case(build=seeded(SplitUneven), inputs=IMAGE, locked=FC),
    "res2net": Case(build=seeded(Res2Net), inputs=IMAGE, locked=FC),
    "ghost": Case(build=seeded(Ghost), inputs=IMAGE, locked=FC),
    "partial_conv": Case(build=seeded(PartialConv), inputs=IMAGE, locked=FC),
    "temporal_shift": Case(build=seeded(TemporalShift), inputs=lambda: torch.ones(2, 4, 3, 16, 16).cumsum(1), locked=FC),
    "constant_slice": Case(build=seeded(ConstantSlice), inputs=IMAGE, locked=FC),
    "overlapping_slices": Case(build=seeded(OverlappingSlices), inputs=IMAGE, locked=FC),
    "strided_channels": Case(build=seeded(StridedChannels), inputs=IMAGE, locked=FC),
    "flip_channels": Case(build=seeded(FlipChannels), inputs=IMAGE, locked=FC),
    "flip_add": Case(build=seeded(FlipAdd), inputs=IMAGE, locked=FC),
    "roll_channels": Case(build=seeded(RollChannels), inputs=IMAGE, locked=FC),
    "shortcut_option_a": Case(build=seeded(ShortcutA), inputs=IMAGE, locked=FC),
    "shortcut_lambda": Case(build=seeded(ShortcutLambda), inputs=IMAGE, locked=FC),
    "shortcut_zeros": Case(build=seeded(ZerosShortcut), inputs=IMAGE, locked=FC),
    "index_channels": Case(build=seeded(IndexChannels), inputs=IMAGE, locked=FC),
    "index_repeated": Case(build=seeded(IndexRepeated), inputs=IMAGE, locked=FC | {"hidden"}),
    "unbind_stack": Case(build=seeded(Unbind), inputs=IMAGE, locked=FC),
}
