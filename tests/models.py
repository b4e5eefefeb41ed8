"""Tiny nets with hand-written truth: which layers must lose the same channels, which must keep them all."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Inputs = Tensor | tuple[Tensor, ...] | dict[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A net and what is true of it."""

    build: Callable[[], nn.Module]  # seeded, eval mode, no parameter or statistic left at its default
    inputs: Callable[[], Inputs]  # seeded
    coupled: tuple[frozenset[str], ...] = ()  # each: all layers, norms included, whose outputs lose the same channels
    locked: frozenset[str] = frozenset()  # layers whose output width must never change
    approximate: bool = False  # a reduction (norm, softmax, mean, max) runs over a pruned axis: no exact mask oracle


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> Callable[[], nn.Module]:
    """A factory of `make()` in eval mode whose norms, biases and statistics are random, so that a wrong cut shows."""

    def build() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = make().eval()
            with torch.no_grad():
                for module in model.modules():
                    _randomise(module)
        return model

    return build


def _randomise(module: nn.Module) -> None:
    """Spread what PyTorch initialises to a constant: norm scales, biases, running statistics, PReLU slopes."""
    for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
        if not tensor.is_floating_point() or tensor.numel() < 2 or bool((tensor != tensor.flatten()[0]).any()):
            continue
        positive = name == "running_var" or bool(tensor.flatten()[0] > 0)
        tensor.add_(torch.rand_like(tensor) - 0.5 if positive else 0.1 * torch.randn_like(tensor))


def normal(*shapes: tuple[int, ...], seed: int = 1) -> Callable[[], Inputs]:
    """A factory of one normal tensor, or of a tuple of them."""

    def inputs() -> Inputs:
        rng = torch.Generator().manual_seed(seed)
        tensors = tuple(torch.randn(shape, generator=rng) for shape in shapes)
        return tensors[0] if len(tensors) == 1 else tensors

    return inputs


def tokens(*shapes: tuple[int, ...], high: int, seed: int = 1) -> Callable[[], Inputs]:
    """A factory of one tensor of ids in [0, high), or of a tuple of them."""

    def inputs() -> Inputs:
        rng = torch.Generator().manual_seed(seed)
        tensors = tuple(torch.randint(high, shape, generator=rng) for shape in shapes)
        return tensors[0] if len(tensors) == 1 else tensors

    return inputs


IMAGE = normal((2, 3, 16, 16))


class ConvStack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(32, 24, 3, padding=1)
        self.fc = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(F.gelu(self.conv2(x)), 2)
        return self.fc(self.conv3(x).relu().mean((2, 3)))


class Residual(nn.Module):
    """A basic block with identity, then one that halves the image and projects its shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.conv1 = nn.Conv2d(16, 32, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 16, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(16)
        self.conv3 = nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(32)
        self.conv4 = nn.Conv2d(32, 48, 3, padding=1, bias=False)
        self.bn4 = nn.BatchNorm2d(48)
        self.shortcut = nn.Conv2d(16, 48, 1, stride=2)
        self.fc = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        x = F.relu(self.shortcut(x) + self.bn4(self.conv4(F.relu(self.bn3(self.conv3(x))))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class DepthwiseSeparable(nn.Module):
    """An inverted residual: expand, depthwise, project."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.expand = nn.Conv2d(16, 64, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.depthwise = nn.Conv2d(64, 64, 3, padding=1, groups=64, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.project = nn.Conv2d(64, 16, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(16)
        self.head = nn.Conv2d(16, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        h = F.relu6(self.bn1(self.expand(x)))
        h = F.relu6(self.bn2(self.depthwise(h)))
        return self.head(x + self.bn3(self.project(h)))


class Grouped(nn.Module):
    """A grouped convolution between two dense ones: every group loses the same number of channels, on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(3, 32, 1)
        self.grouped = nn.Conv2d(32, 64, 3, padding=1, groups=2)
        self.expand = nn.Conv2d(64, 32, 1)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.grouped(F.relu(self.reduce(x))))
        return self.fc(F.relu(self.expand(x)).amax((-2, -1)))


class DenseConcat(nn.Module):
    """Each layer reads all earlier ones; each loses its own channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.conv3 = nn.Conv2d(32, 24, 3, padding=1)
        self.bn = nn.BatchNorm2d(56)
        self.fc = nn.Linear(56, 10)

    def forward(self, x: Tensor) -> Tensor:
        a = self.conv1(x).relu()
        b = self.conv2(a).relu()
        c = self.conv3(torch.cat([a, b], 1)).relu()
        return self.fc(self.bn(torch.cat([a, b, c], 1)).relu().mean((2, 3)))


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3, padding=1)
        self.squeeze = nn.Linear(32, 16)
        self.excite = nn.Linear(16, 32)
        self.head = nn.Conv2d(32, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu()
        gate = self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid()
        return self.head(x * gate[:, :, None, None])


class FlattenLinear(nn.Module):
    """Flattened at 4 x 4: one channel is 16 inputs of the linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.bn = nn.BatchNorm2d(16)
        self.hidden = nn.Linear(16 * 4 * 4, 64)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.bn(self.conv(x)).relu(), 4)
        return self.fc(self.hidden(torch.flatten(x, 1)).relu())


class SharedWeights(nn.Module):
    """One convolution applied three times ties its own inputs to its outputs; two heads share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.body = nn.Conv2d(16, 16, 3, padding=1)
        self.left = nn.Linear(16, 32)
        self.right = nn.Linear(16, 32)
        self.right.weight = self.left.weight
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(3):
            x = self.body(x).relu()
        x = x.mean((2, 3))
        return self.fc(self.left(x).relu() * self.right(x).sigmoid())


def _sets(*members: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(names.split()) for names in members)


FC = frozenset({"fc"})

NETS: Mapping[str, Case] = {
    "conv_stack": Case(build=seeded(ConvStack), inputs=IMAGE, coupled=_sets("conv1 bn1", "conv2", "conv3"), locked=FC),
    "residual": Case(
        build=seeded(Residual),
        inputs=IMAGE,
        coupled=_sets("stem conv2 bn2", "conv1 bn1", "conv3 bn3", "conv4 bn4 shortcut"),
        locked=FC,
    ),
    "depthwise_separable": Case(
        build=seeded(DepthwiseSeparable),
        inputs=IMAGE,
        coupled=_sets("stem project bn3", "expand bn1 depthwise bn2"),
        locked=frozenset({"head"}),
    ),
    "grouped": Case(build=seeded(Grouped), inputs=IMAGE, coupled=_sets("reduce", "grouped", "expand"), locked=FC),
    "dense_concat": Case(build=seeded(DenseConcat), inputs=IMAGE, coupled=_sets("conv1", "conv2", "conv3"), locked=FC),
    "squeeze_excite": Case(
        build=seeded(SqueezeExcite),
        inputs=IMAGE,
        coupled=_sets("conv excite", "squeeze"),
        locked=frozenset({"head"}),
    ),
    "flatten_linear": Case(build=seeded(FlattenLinear), inputs=IMAGE, coupled=_sets("conv bn", "hidden"), locked=FC),
    "shared_weights": Case(build=seeded(SharedWeights), inputs=IMAGE, coupled=_sets("stem body", "left right"), locked=FC),
}
