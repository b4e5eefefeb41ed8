"""Channels that turn into space, grouped and transposed convolutions, one and three dimensions, Fourier mixing."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.models import IMAGE, Case, normal, seeded

FC = frozenset({"fc"})
HEAD = frozenset({"head"})


class PixelShuffleNet(nn.Module):
    """Super resolution: the upsampling convolution loses r x r channels at a time."""

    def __init__(self, width: int = 32, r: int = 2) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.up = nn.Sequential(nn.Conv2d(width, width * r * r, 3, padding=1), nn.PixelShuffle(r), nn.PReLU())
        self.head = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.up(self.conv1(x).relu()))


class PixelUnshuffleNet(nn.Module):
    """Down by `pixel_unshuffle`, then depth-to-space by view and permute."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.conv2 = nn.Conv2d(4 * width, 4 * width, 1)
        self.head = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(F.pixel_unshuffle(self.conv1(x).relu(), 2)).relu()
        n, c, h, w = x.shape
        x = x.view(n, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2).contiguous().view(n, c // 4, 2 * h, 2 * w)
        return self.head(x)


class Focus(nn.Module):
    """YOLOv5 stem and patch merging: four strided slices of the image concatenated along channels."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(12, width, 3, padding=1)
        self.norm, self.reduction = nn.BatchNorm2d(4 * width), nn.Conv2d(4 * width, 48, 1)
        self.fc = nn.Linear(48, 10)

    @staticmethod
    def merge(x: Tensor) -> Tensor:
        return torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.merge(self.conv1(self.merge(x)).relu())
        return self.fc(self.reduction(self.norm(x)).relu().mean((2, 3)))


class TransposedConvs(nn.Module):
    """A generator: plain transposed convolutions from a vector viewed as an image."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.init_size, self.width = 4, width
        self.project = nn.Linear(24, width * self.init_size**2)
        self.up1, self.bn1 = nn.ConvTranspose2d(width, 48, 4, stride=2, padding=1), nn.BatchNorm2d(48)
        self.up2 = nn.ConvTranspose2d(48, 24, 4, stride=2, padding=1, bias=False)
        self.head = nn.ConvTranspose2d(24, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.project(z).view(z.shape[0], self.width, self.init_size, self.init_size)
        return self.head(self.up2(self.bn1(self.up1(x)).relu()).relu()).tanh()


class GroupedTransposed(nn.Module):
    """Transposed convolutions with groups, and a depthwise one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3, padding=1)
        self.up = nn.ConvTranspose2d(32, 64, 2, stride=2, groups=2)
        self.depthwise = nn.ConvTranspose2d(64, 64, 4, stride=2, padding=1, groups=64)
        self.head = nn.Conv2d(64, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.depthwise(self.up(self.conv(x).relu()).relu()).relu())


class ResNextBlock(nn.Module):
    """Many narrow groups: pruning within a group leaves 4 channels of 8."""

    def __init__(self, width: int = 64, groups: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 48, 3, padding=1)
        self.conv1, self.bn1 = nn.Conv2d(48, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=groups, bias=False)
        self.bn2, self.conv3 = nn.BatchNorm2d(width), nn.Conv2d(width, 48, 1)
        self.fc = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.conv3(self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu())
        return self.fc((x + y).relu().mean((2, 3)))


class GroupedChain(nn.Module):
    """Grouped convolutions with different group counts in a row, without a dense one between; a depth multiplier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 48, 3, padding=1)
        self.conv1 = nn.Conv2d(48, 96, 3, padding=1, groups=2)
        self.conv2 = nn.Conv2d(96, 48, 3, padding=1, groups=3)
        self.multiply = nn.Conv2d(48, 96, 3, padding=1, groups=48)
        self.fc = nn.Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.conv1(self.stem(x).relu()).relu()).relu()
        return self.fc(self.multiply(x).relu().mean((2, 3)))


class Conv1dNet(nn.Module):
    """Speech front end: strided 1-D convolutions, a depthwise one, attention pooling over time."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv1d(1, 24, 10, stride=5), nn.BatchNorm1d(24)
        self.conv2, self.depthwise = nn.Conv1d(24, width, 3, stride=2), nn.Conv1d(width, width, 5, groups=width)
        self.score = nn.Conv1d(width, 1, 1)
        self.fc = nn.Linear(2 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.conv2(self.bn1(self.conv1(x)).relu()).relu())
        weights = self.score(x).softmax(dim=-1)
        mean = (x * weights).sum(-1)
        deviation = ((x - mean[..., None]) ** 2 * weights).sum(-1).clamp(min=1e-9).sqrt()
        return self.fc(torch.cat([mean, deviation], dim=1))


class Conv3dNet(nn.Module):
    """R(2+1)D: spatial then temporal convolutions, 3-D pooling, residual with projection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv3d(3, 16, (1, 3, 3), padding=(0, 1, 1)), nn.BatchNorm3d(16)
        self.space = nn.Conv3d(16, 36, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1), bias=False)
        self.time = nn.Conv3d(36, 32, (3, 1, 1), padding=(1, 0, 0), bias=False)
        self.shortcut = nn.Conv3d(16, 32, 1, stride=(1, 2, 2))
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.stem(x)).relu()
        x = (self.time(self.space(x).relu()) + self.shortcut(x)).relu()
        return self.fc(F.adaptive_avg_pool3d(F.max_pool3d(x, 2), 1).flatten(1))


class FourierMixing(nn.Module):
    """FNet mixes over channels and time by FFT, whose channels lock; its feed-forward layers remain."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(24, dim)
        self.lift, self.drop = nn.Linear(dim, 128), nn.Linear(128, dim)
        self.fc = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + torch.fft.fft(torch.fft.fft(x, dim=-1), dim=-2).real
        return self.fc((x + self.drop(F.gelu(self.lift(x)))).mean(1))


class SpectralConv(nn.Module):
    """Fourier neural operator: FFT over space only, complex weights [in, out, modes] by einsum."""

    def __init__(self, width: int = 24, modes: int = 5) -> None:
        super().__init__()
        self.width, self.modes = width, modes
        self.lift = nn.Conv1d(2, width, 1)
        self.weight = nn.Parameter(torch.randn(width, width, modes, dtype=torch.cfloat) / width)
        self.skip, self.head = nn.Conv1d(width, width, 1), nn.Conv1d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lift(x)
        spectrum = torch.fft.rfft(x)
        out = torch.zeros(x.shape[0], self.width, x.size(-1) // 2 + 1, dtype=spectrum.dtype, device=x.device)
        out[:, :, : self.modes] = torch.einsum("bix,iox->box", spectrum[:, :, : self.modes], self.weight)
        return self.head(F.gelu(torch.fft.irfft(out, n=x.size(-1)) + self.skip(x)))


class UnfoldFold(nn.Module):
    """im2col: `F.unfold` multiplies channels by the window, a linear layer reads them, `F.fold` puts them back."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.mix = nn.Linear(width * 4, width * 4)
        self.head = nn.Conv2d(width, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu()
        patches = self.mix(F.unfold(x, 2, stride=2).transpose(1, 2)).relu()
        return self.head(F.fold(patches.transpose(1, 2), x.shape[-2:], 2, stride=2))


class SpatialTransformer(nn.Module):
    """Localisation net, `affine_grid` and `grid_sample` on feature maps."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.localise = nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, 6))
        self.conv2 = nn.Conv2d(width, 48, 3, padding=1)
        self.fc = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).relu()
        theta = self.localise(x.mean((2, 3))).view(-1, 2, 3)
        x = F.grid_sample(x, F.affine_grid(theta, list(x.size()), align_corners=False), align_corners=False)
        return self.fc(self.conv2(x).relu().mean((2, 3)))


CASES = {
    "pixel_shuffle": Case(build=seeded(PixelShuffleNet), inputs=IMAGE, locked=HEAD),
    "pixel_unshuffle": Case(build=seeded(PixelUnshuffleNet), inputs=IMAGE, locked=HEAD),
    "focus": Case(build=seeded(Focus), inputs=IMAGE, locked=FC),
    "transposed_conv": Case(build=seeded(TransposedConvs), inputs=normal((2, 24)), locked=HEAD),
    "transposed_conv_grouped": Case(build=seeded(GroupedTransposed), inputs=IMAGE, locked=HEAD),
    "resnext": Case(build=seeded(ResNextBlock), inputs=IMAGE, locked=FC),
    "grouped_chain": Case(build=seeded(GroupedChain), inputs=IMAGE, locked=FC),
    "conv1d": Case(build=seeded(Conv1dNet), inputs=normal((2, 1, 200)), locked=FC),
    "conv3d": Case(build=seeded(Conv3dNet), inputs=normal((2, 3, 4, 16, 16)), locked=FC),
    "fourier_mixing": Case(build=seeded(FourierMixing), inputs=normal((2, 12, 24)), locked=FC | {"embed", "drop"}),
    "spectral_conv": Case(build=seeded(SpectralConv), inputs=normal((2, 2, 32)), locked=HEAD),
    "unfold_fold": Case(build=seeded(UnfoldFold), inputs=IMAGE, locked=HEAD),
    "spatial_transformer": Case(build=seeded(SpatialTransformer), inputs=IMAGE, locked=FC),
}
