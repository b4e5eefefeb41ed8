"""YOLOX-S (Ge et al., arXiv 2107.08430): depth 0.33, width 0.5; built here for its widths, without trained weights."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv(inner: int, outer: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(inner, outer, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outer), nn.SiLU())


class Bottleneck(nn.Module):
    def __init__(self, width: int, *, shortcut: bool) -> None:
        super().__init__()
        self.layers, self.shortcut = nn.Sequential(conv(width, width), conv(width, width, 3)), shortcut

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.shortcut else self.layers(x)


class Csp(nn.Module):
    """Cross-stage partial: bottlenecks on one half of the channels, the other half beside them."""

    def __init__(self, inner: int, outer: int, depth: int, *, shortcut: bool = True) -> None:
        super().__init__()
        half = outer // 2
        self.main, self.side, self.join = conv(inner, half), conv(inner, half), conv(outer, outer)
        self.blocks = nn.Sequential(*(Bottleneck(half, shortcut=shortcut) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.join(torch.cat([self.blocks(self.main(x)), self.side(x)], 1))


class Pyramid(nn.Module):
    """Pooled at three sizes, side by side."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.narrow, self.wide = conv(width, width // 2), conv(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.narrow(x)
        return self.wide(torch.cat([x, *(F.max_pool2d(x, k, 1, k // 2) for k in (5, 9, 13))], 1))


class Head(nn.Module):
    def __init__(self, inner: int, classes: int, width: int = 128) -> None:
        super().__init__()
        self.stem = conv(inner, width)
        self.of_class, self.of_box = (nn.Sequential(conv(width, width, 3), conv(width, width, 3)) for _ in range(2))
        self.classes, self.box, self.object = (nn.Conv2d(width, n, 1) for n in (classes, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        boxes = self.of_box(x)
        return torch.cat([self.box(boxes), self.object(boxes), self.classes(self.of_class(x))], 1)


class YoloxS(nn.Module):
    """[N, 3, H, W] -> for three strides [N, 85, H / s, W / s]."""

    def __init__(self, classes: int = 80) -> None:
        super().__init__()
        self.focus = conv(12, 32, 3)
        self.dark2 = nn.Sequential(conv(32, 64, 3, 2), Csp(64, 64, 1))
        self.dark3 = nn.Sequential(conv(64, 128, 3, 2), Csp(128, 128, 3))
        self.dark4 = nn.Sequential(conv(128, 256, 3, 2), Csp(256, 256, 3))
        self.dark5 = nn.Sequential(conv(256, 512, 3, 2), Pyramid(512), Csp(512, 512, 1, shortcut=False))
        self.lateral, self.top4 = conv(512, 256), Csp(512, 256, 1, shortcut=False)
        self.reduce, self.top3 = conv(256, 128), Csp(256, 128, 1, shortcut=False)
        self.down4, self.out4 = conv(128, 128, 3, 2), Csp(256, 256, 1, shortcut=False)
        self.down5, self.out5 = conv(256, 256, 3, 2), Csp(512, 512, 1, shortcut=False)
        self.heads = nn.ModuleList(Head(width, classes) for width in (128, 256, 512))

    def forward(self, x: Tensor) -> list[Tensor]:
        corners = [x[..., i::2, j::2] for j in (0, 1) for i in (0, 1)]
        c3 = self.dark3(self.dark2(self.focus(torch.cat(corners, 1))))
        c4 = self.dark4(c3)
        c5 = self.lateral(self.dark5(c4))
        p4 = self.reduce(self.top4(torch.cat([F.interpolate(c5, scale_factor=2), c4], 1)))
        p3 = self.top3(torch.cat([F.interpolate(p4, scale_factor=2), c3], 1))
        n4 = self.out4(torch.cat([self.down4(p3), p4], 1))
        n5 = self.out5(torch.cat([self.down5(n4), c5], 1))
        return [head(x) for head, x in zip(self.heads, (p3, n4, n5), strict=True)]
