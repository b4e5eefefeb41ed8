"""Weights that are not where a pruner looks: bare parameters, lists, ties, parametrizations, generated kernels."""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils import weight_norm as hooked_weight_norm

from tests.models import IMAGE, Case, normal, seeded, tokens

FC = frozenset({"fc"})


class BareParameters(nn.Module):
    """No layers at all: `F.conv2d`, `F.linear`, `@` and `addmm` on parameters."""

    def __init__(self, width: int = 24, hidden: int = 48) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(width, 3, 3, 3) / 5)
        self.kernel_bias = nn.Parameter(torch.randn(width))
        self.w1, self.b1 = nn.Parameter(torch.randn(hidden, width) / 5), nn.Parameter(torch.randn(hidden))
        self.w2 = nn.Parameter(torch.randn(hidden, 32) / 7)
        self.w3, self.b3 = nn.Parameter(torch.randn(32, 10) / 6), nn.Parameter(torch.randn(10))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.kernel, self.kernel_bias, padding=1).relu().mean((2, 3))
        x = F.linear(x, self.w1, self.b1).relu() @ self.w2
        return torch.addmm(self.b3, x.relu(), self.w3)


class ParameterLists(nn.Module):
    """An MLP in a `ParameterList` and per-layer scales in a `ParameterDict`."""

    def __init__(self, widths: tuple[int, ...] = (24, 64, 48, 10)) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(widths))
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(b, a) / math.sqrt(a)) for a, b in pairs)
        self.biases = nn.ParameterList(nn.Parameter(torch.randn(b)) for _, b in pairs)
        self.scales = nn.ParameterDict({str(i): nn.Parameter(torch.rand(b) + 0.5) for i, (_, b) in enumerate(pairs)})

    def forward(self, x: Tensor) -> Tensor:
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = F.linear(x if i == 0 else x.relu(), weight, bias) * self.scales[str(i)]
        return x


class TiedEmbedding(nn.Module):
    """A language model whose decoder is its embedding."""

    def __init__(self, vocabulary: int = 60, dim: int = 48) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim)
        self.fc1, self.fc2 = nn.Linear(dim, 128), nn.Linear(128, dim)
        self.decoder = nn.Linear(dim, vocabulary, bias=False)
        self.decoder.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        return self.decoder(x + self.fc2(F.gelu(self.fc1(x))))


class TiedAutoencoder(nn.Module):
    """The decoder uses the encoder's weights transposed, functionally."""

    def __init__(self) -> None:
        super().__init__()
        self.enc1, self.enc2 = nn.Linear(24, 64), nn.Linear(64, 32)
        self.bias1, self.bias2 = nn.Parameter(torch.randn(64)), nn.Parameter(torch.randn(24))

    def forward(self, x: Tensor) -> Tensor:
        z = self.enc2(self.enc1(x).relu()).relu()
        return F.linear(F.linear(z, self.enc2.weight.t(), self.bias1).relu(), self.enc1.weight.t(), self.bias2)


class SharedBlock(nn.Module):
    """ALBERT: one block applied four times, with a different scale each time."""

    def __init__(self, dim: int = 48) -> None:
        super().__init__()
        self.stem = nn.Linear(24, dim)
        self.block = nn.Sequential(nn.Linear(dim, 96), nn.ReLU(), nn.Linear(96, dim))
        self.scales = nn.Parameter(torch.randn(4, dim) / 4)
        self.fc = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for scale in self.scales:
            x = x + scale * self.block(x)
        return self.fc(x)


class WeightNormed(nn.Module):
    """Weight norm, the parametrization, on convolutions and linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = parametrizations.weight_norm(nn.Conv1d(4, 32, 3, padding=1))
        self.conv2 = parametrizations.weight_norm(nn.Conv1d(32, 48, 3, padding=1))
        self.hidden = parametrizations.weight_norm(nn.Linear(48, 32))
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.hidden(self.conv2(self.conv1(x).relu()).relu().mean(2)).relu())


class HookedWeightNorm(nn.Module):
    """Weight norm, the old one: a forward pre-hook that sets `weight` from `weight_g` and `weight_v`."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.conv1 = _hooked(nn.Conv1d(4, 32, 3, padding=1))
            self.conv2 = _hooked(nn.Conv1d(32, 48, 3, padding=1))
        self.fc = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv2(self.conv1(x).relu()).relu().mean(2))


def _hooked(layer: nn.Module) -> nn.Module:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and all over the published vocoders
        return hooked_weight_norm(layer)


class SpectralNormed(nn.Module):
    """A discriminator: spectral norm divides every weight by its largest singular value."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = parametrizations.spectral_norm(nn.Conv2d(3, 32, 3, stride=2, padding=1))
        self.conv2 = parametrizations.spectral_norm(nn.Conv2d(32, 48, 3, stride=2, padding=1))
        self.hidden = parametrizations.spectral_norm(nn.Linear(48, 32))
        self.fc = nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.conv2(F.leaky_relu(self.conv1(x), 0.2)), 0.2)
        return self.fc(self.hidden(x.mean((2, 3))).relu())


class Symmetric(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.triu() + x.triu(1).transpose(-1, -2)


class Masked(nn.Module):
    """Multiplied by a fixed mask of the weight's shape."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask


class Parametrized(nn.Module):
    """User parametrizations: a symmetric square weight, a masked one, and two with low-rank factors."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.stem = nn.Linear(24, dim)
        self.square = nn.Linear(dim, dim)
        parametrize.register_parametrization(self.square, "weight", Symmetric())
        self.masked = nn.Linear(dim, 64)
        parametrize.register_parametrization(self.masked, "weight", Masked((torch.rand(64, dim) > 0.3).float()))
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.fc(self.masked(x + self.square(x)).relu())


class StandardisedConv2d(nn.Conv2d):
    """Weight standardisation: mean and deviation over the inputs of each filter, at every forward."""

    def forward(self, x: Tensor) -> Tensor:
        mean = self.weight.mean(dim=(1, 2, 3), keepdim=True)
        deviation = self.weight.std(dim=(1, 2, 3), keepdim=True, correction=0) + 1e-5
        return self._conv_forward(x, (self.weight - mean) / deviation, self.bias)


class ScaledStandardised(nn.Module):
    """NF-Nets: every filter is standardised by `batch_norm` over a reshape that adds an axis before and merges three."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 48, 3, padding=1)
        self.gain1, self.gain2 = nn.Parameter(torch.rand(32, 1, 1, 1)), nn.Parameter(torch.rand(48, 1, 1, 1))
        self.fc = nn.Linear(48, 10)

    def standardised(self, x: Tensor, conv: nn.Conv2d, gain: Tensor) -> Tensor:
        w = conv.weight
        flat = F.batch_norm(w.reshape(1, w.shape[0], -1), None, None, weight=(gain * 0.3).view(-1), training=True)
        return F.conv2d(x, flat.reshape_as(w), conv.bias, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.standardised(x, self.conv1, self.gain1).relu()
        return self.fc(self.standardised(x, self.conv2, self.gain2).relu().mean((2, 3)))


class WeightStandardised(nn.Module):
    """Pruned inputs change the statistics of the filters that read them: approximate."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = StandardisedConv2d(3, 32, 3, padding=1), StandardisedConv2d(32, 48, 3, padding=1)
        self.fc = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv2(self.conv1(x).relu()).relu().mean((2, 3)))


class LowRank(nn.Module):
    """LoRA: a base weight plus a product of two thin ones, merged at every forward."""

    def __init__(self, dim: int = 64, rank: int = 16) -> None:
        super().__init__()
        self.stem, self.base = nn.Linear(24, dim), nn.Linear(dim, dim)
        self.lora_a, self.lora_b = nn.Parameter(torch.randn(rank, dim) / 8), nn.Parameter(torch.randn(dim, rank) / 8)
        self.scaling = 2.0
        self.fc = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        weight = self.base.weight + self.scaling * (self.lora_b @ self.lora_a)
        return self.fc(F.linear(x, weight, self.base.bias).relu())


class DynamicConv(nn.Module):
    """Kernels mixed per sample by attention, then one grouped convolution with groups = batch."""

    def __init__(self, width: int = 32, outer: int = 48, kernels: int = 4) -> None:
        super().__init__()
        self.in_planes, self.out_planes, self.kernels = width, outer, kernels
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.attention = nn.Sequential(nn.Linear(width, 16), nn.ReLU(), nn.Linear(16, kernels))
        self.weight = nn.Parameter(torch.randn(kernels, outer, width, 3, 3) / 17)
        self.bias = nn.Parameter(torch.randn(kernels, outer))
        self.fc = nn.Linear(outer, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        b, _c, h, w = x.shape
        mix = (self.attention(x.mean((2, 3))) / 30).softmax(1)
        weight = torch.mm(mix, self.weight.view(self.kernels, -1)).view(-1, self.in_planes, 3, 3)
        bias = torch.mm(mix, self.bias).view(-1)
        y = F.conv2d(x.view(1, -1, h, w), weight, bias, padding=1, groups=b).view(b, self.out_planes, h, w)
        return self.fc(y.relu().mean((2, 3)))


class HyperNetwork(nn.Module):
    """A layer writes the weights of another one."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.width = width
        self.stem = nn.Linear(24, width)
        self.code = nn.Linear(5, 32)
        self.generate = nn.Linear(32, width * 10)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        weight = self.generate(self.code(code).relu()).view(-1, 10, self.width)
        return torch.einsum("bow,bw->bo", weight, self.stem(x).relu())


class Experts(nn.Module):
    """Mixture of experts: stacked expert weights [E, in, out], dense soft routing by einsum."""

    def __init__(self, dim: int = 48, hidden: int = 64, experts: int = 4) -> None:
        super().__init__()
        self.stem, self.router = nn.Linear(24, dim), nn.Linear(dim, experts)
        self.up = nn.Parameter(torch.randn(experts, dim, hidden) / 7)
        self.down = nn.Parameter(torch.randn(experts, hidden, dim) / 8)
        self.fc = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        gate = self.router(x).softmax(-1)
        h = F.gelu(torch.einsum("bnd,edh->bneh", x, self.up))
        return self.fc(x + torch.einsum("bneh,ehd,bne->bnd", h, self.down, gate))


class PReluChannels(nn.Module):
    """One slope per channel, as a module and by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.act1 = nn.Conv2d(3, 32, 3, padding=1), nn.PReLU(32)
        self.conv2 = nn.Conv2d(32, 48, 3, padding=1)
        self.alpha = nn.Parameter(torch.full((1, 48, 1, 1), 0.25))
        self.fc = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.act1(self.conv1(x)))
        return self.fc((x.clamp(min=0) + self.alpha * x.clamp(max=0)).mean((2, 3)))


class EmbeddingBagNet(nn.Module):
    """Ids pooled by an `EmbeddingBag`, a second table added."""

    def __init__(self, dim: int = 48) -> None:
        super().__init__()
        self.bag, self.kind = nn.EmbeddingBag(60, dim, mode="mean"), nn.Embedding(60, dim)
        self.hidden = nn.Linear(dim, 64)
        self.fc = nn.Linear(64, 10)

    def forward(self, ids: Tensor) -> Tensor:
        return self.fc(self.hidden(self.bag(ids) + self.kind(ids[:, 0])).relu())


SEQUENCE = normal((2, 12, 24))

CASES = {
    "bare_parameters": Case(build=seeded(BareParameters), inputs=IMAGE),
    "parameter_list": Case(build=seeded(ParameterLists), inputs=normal((4, 24))),
    "tied_embedding": Case(build=seeded(TiedEmbedding), inputs=tokens((2, 12), high=60)),
    "tied_autoencoder": Case(build=seeded(TiedAutoencoder), inputs=normal((4, 24))),
    "shared_block": Case(build=seeded(SharedBlock), inputs=normal((4, 24)), locked=FC),
    "weight_norm": Case(build=seeded(WeightNormed), inputs=normal((2, 4, 20)), locked=FC, approximate=True),
    "weight_norm_hooked": Case(build=seeded(HookedWeightNorm), inputs=normal((2, 4, 20)), locked=FC, approximate=True),
    "spectral_norm": Case(build=seeded(SpectralNormed), inputs=IMAGE, locked=FC, approximate=True),
    "parametrized": Case(build=seeded(Parametrized), inputs=normal((4, 24)), locked=FC),
    "scaled_standardised": Case(build=seeded(ScaledStandardised), inputs=IMAGE, locked=FC, approximate=True),
    "weight_standardised": Case(build=seeded(WeightStandardised), inputs=IMAGE, locked=FC, approximate=True),
    "low_rank": Case(build=seeded(LowRank), inputs=normal((4, 24)), locked=FC),
    "dynamic_conv": Case(build=seeded(DynamicConv), inputs=IMAGE, locked=FC),
    "hyper_network": Case(build=seeded(HyperNetwork), inputs=normal((4, 24), (4, 5))),
    "experts": Case(build=seeded(Experts), inputs=SEQUENCE, locked=FC),
    "prelu_channels": Case(build=seeded(PReluChannels), inputs=IMAGE, locked=FC),
    "embedding_bag": Case(build=seeded(EmbeddingBagNet), inputs=tokens((3, 6), high=60), locked=FC),
}
