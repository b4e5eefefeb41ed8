"""The model of the recipes: a small residual CNN for small images."""

from typing import cast

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """conv - norm - relu - conv - norm, added to the input (through a 1 x 1 convolution where the shape changes)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """x [N, inputs, H, W] -> [N, outputs, H / stride, W / stride]"""
        y = nn.functional.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return nn.functional.relu(y + self.shortcut(x))


class SmallResNet(nn.Module):
    def __init__(self, width: int, classes: int, channels: int, stages: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.stage1 = nn.Sequential(ResidualBlock(width, width), ResidualBlock(width, width))
        self.later = [f"stage{number}" for number in range(2, stages + 1)]
        for name in self.later:
            self.add_module(
                name, nn.Sequential(ResidualBlock(width, 2 * width, stride=2), ResidualBlock(2 * width, 2 * width))
            )
            width *= 2
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, channels, H, W] -> logits [N, classes]"""
        x = self.stage1(self.stem(x))
        for name in self.later:
            x = self.get_submodule(name)(x)
        return cast(Tensor, self.head(x.mean(dim=(2, 3))))


def small_resnet(width: int = 32, classes: int = 10, channels: int = 1, stages: int = 2) -> nn.Module:
    """A residual network of two blocks per stage; `width` channels in the first, twice as many in each further one."""
    return SmallResNet(width, classes, channels, stages)
