"""Channels that are viewed, folded into other axes, repeated or expanded."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.models import IMAGE, Case, seeded

FC = frozenset({"fc"})


class Maxout(nn.Module):
    """Max over k consecutive channels, by view and amax."""

    def __init__(self, width: int = 32, k: int = 2) -> None:
        super().__init__()
        self.width, self.k = width, k
        self.conv = nn.Conv2d(3, width * k, 3, padding=1)
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = x.view(x.shape[0], self.width, self.k, x.shape[2], x.shape[3]).amax(2)
        return self.fc(x.mean((2, 3)))


class Rearranged(nn.Module):
    """einops style: `b (g c) (h p1) (w p2) -> (b h w) (p1 p2) (g c)` and back, all by reshape and permute."""

    def __init__(self, width: int = 48, patch: int = 4) -> None:
        super().__init__()
        self.patch = patch
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.lift = nn.Linear(width, 2 * width)
        self.drop = nn.Linear(2 * width, width)
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x, p = self.conv(x), self.patch
        b, c, h, w = x.shape
        y = x.reshape(b, c, h // p, p, w // p, p).permute(0, 2, 4, 3, 5, 1).reshape(-1, p * p, c)
        y = self.drop(F.gelu(self.lift(y)))
        y = y.reshape(b, h // p, w // p, p, p, c).permute(0, 5, 1, 3, 2, 4).reshape(b, c, h, w)
        return self.fc((x + y).mean((2, 3)))


class Repeated(nn.Module):
    """`repeat` tiles the channels, `repeat_interleave` doubles each of them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 24, 1)
        self.conv3 = nn.Conv2d(48, 32, 1)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.conv1(x).relu().repeat(1, 2, 1, 1)).relu()
        return self.fc(self.conv3(x.repeat_interleave(2, dim=1)).relu().mean((2, 3)))


class ExpandGlobal(nn.Module):
    """A pooled vector expanded over the image with hard-coded sizes and concatenated (PSP, image-level features)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.pooled = nn.Linear(32, 24)
        self.conv2 = nn.Conv2d(56, 32, 1)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).relu()
        g = self.pooled(x.mean((2, 3))).unsqueeze(-1).unsqueeze(-1).expand(-1, 24, 16, 16)
        return self.fc(self.conv2(torch.cat([x, g], 1)).relu().mean((2, 3)))


class HardCodedView(nn.Module):
    """Sizes from attributes in every view, with a literal product among them."""

    def __init__(self, channels: int = 32, side: int = 4) -> None:
        super().__init__()
        self.channels, self.side = channels, side
        self.flat_dim = channels * side * side
        self.conv = nn.Conv2d(3, channels, 3, stride=4, padding=1)
        self.mix = nn.Linear(channels, channels)
        self.hidden = nn.Linear(self.flat_dim, 64)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu().view(-1, self.channels, self.side * self.side).transpose(1, 2)
        x = self.mix(x).transpose(1, 2).reshape(-1, self.flat_dim)
        return self.fc(self.hidden(x).relu())


class LiteralView(nn.Module):
    """The sizes are literals in the code: no attribute can be mended, so the axes must be locked."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, stride=4, padding=1)
        self.conv2 = nn.Conv2d(32, 16, 3, padding=1)
        self.hidden = nn.Linear(16 * 4 * 4, 64)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.conv1(x).relu()).relu().view(-1, 256)
        return self.fc(self.hidden(x).relu())


class SqueezeUnsqueeze(nn.Module):
    """Linear layers as 1x1 convolutions, 1-D convolutions over an unsqueezed axis, movedim, swapaxes."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.conv1d = nn.Conv1d(width, 2 * width, 1)
        self.point = nn.Conv2d(2 * width, width, 1)
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.conv(x).relu(), 1).squeeze(-1)
        x = self.conv1d(x).relu().unsqueeze(3)
        x = self.point(x).squeeze().unsqueeze(1).movedim(1, 2).swapaxes(1, 2)
        return self.fc(x.squeeze(1))


CASES = {
    "maxout": Case(build=seeded(Maxout), inputs=IMAGE, locked=FC),
    "rearranged": Case(build=seeded(Rearranged), inputs=IMAGE, locked=FC),
    "repeated": Case(build=seeded(Repeated), inputs=IMAGE, locked=FC),
    "expand_global": Case(build=seeded(ExpandGlobal), inputs=IMAGE, locked=FC),
    "hard_coded_view": Case(build=seeded(HardCodedView), inputs=IMAGE, locked=FC),
    "literal_view": Case(build=seeded(LiteralView), inputs=IMAGE, locked=FC),
    "squeeze_unsqueeze": Case(build=seeded(SqueezeUnsqueeze), inputs=IMAGE, locked=FC),
}
