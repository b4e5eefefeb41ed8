"""The three nets of the accuracy benchmark, for images [N, 1, 28, 28] in ten classes."""

from collections.abc import Callable, Mapping
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 10


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut, which is a 1x1 convolution where the width or the size changes."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(width, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.c2, self.b2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        changes = stride > 1 or width != out
        self.down = nn.Sequential(*_norm(nn.Conv2d(width, out, 1, stride, bias=False))) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.b1(self.c1(x)))
        return F.relu(self.b2(self.c2(inner)) + self.down(x))


class Residual(nn.Module):
    """A ResNet in the CIFAR manner: a 3x3 stem of 16, three stages of two blocks of 16, 32 and 64."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_norm(nn.Conv2d(1, 16, 3, 1, 1, bias=False)), nn.ReLU())
        widths = (16, 16, 16, 32, 32, 64, 64)
        self.blocks = nn.Sequential(*(Block(i, o, 1 if i == o else 2) for i, o in pairwise(widths)))
        self.fc = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))


class Vgg(nn.Module):
    """Plain 3x3 convolutions with pooling in between, and a head of two linear layers on the flattened maps."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 1
        for stage in (32, 64, 128):
            for _ in range(2):
                layers += [*_norm(nn.Conv2d(width, stage, 3, 1, 1, bias=False)), nn.ReLU()]
                width = stage
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(width * 3 * 3, 128), nn.ReLU(), nn.Linear(128, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class InvertedResidual(nn.Module):
    """Widen four times, filter each channel alone, narrow; a shortcut where the shape stays (MobileNetV2)."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        wide = 4 * width
        self.layers = nn.Sequential(
            *_norm(nn.Conv2d(width, wide, 1, bias=False)),
            nn.ReLU6(),
            *_norm(nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False)),
            nn.ReLU6(),
            *_norm(nn.Conv2d(wide, out, 1, bias=False)),
        )
        self.shortcut = stride == 1 and width == out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.shortcut else self.layers(x)


class Mobile(nn.Module):
    """MobileNetV2 in small: a stem of 16, inverted residuals of 16, 24, 32 and 64, a 1x1 layer of 128."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_norm(nn.Conv2d(1, 16, 3, 1, 1, bias=False)), nn.ReLU6())
        widths = (16, 16, 24, 24, 32, 32, 64, 64)
        self.blocks = nn.Sequential(*(InvertedResidual(i, o, 1 if i == o else 2) for i, o in pairwise(widths)))
        self.top = nn.Sequential(*_norm(nn.Conv2d(64, 128, 1, bias=False)), nn.ReLU6())
        self.fc = nn.Linear(128, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.top(self.blocks(self.stem(x))).mean((2, 3)))


def _norm(conv: nn.Conv2d) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    return conv, nn.BatchNorm2d(conv.out_channels)


NETS: Mapping[str, Callable[[], nn.Module]] = {"residual": Residual, "vgg": Vgg, "mobile": Mobile}
