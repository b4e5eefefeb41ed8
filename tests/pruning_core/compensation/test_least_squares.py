"""What is constant, and what other inputs can stand in for, is taken over by the weight and the bias, or the norm behind."""

import pytest
import torch
from torch import nn

import pruning_core as pc
from tests.pruning_core.compensation.test_compensation import error


@pytest.mark.parametrize("compensation", ["least_squares", "sequential"])
def test_the_mean_of_what_is_gone_goes_into_the_norm_behind_a_layer_without_bias(compensation: str) -> None:
    """A channel that is always 3 is a constant to its reader; BatchNorm is the only one who can take it."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 6, 1, bias=False), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1)).eval()
    with torch.no_grad():
        net[0].weight[2] = 0
        net[0].bias[2] = 3
    x = torch.randn(64, 3, 4, 4)
    spec = pc.PruningSpec(index={"0": "2"}, compensation=compensation)
    result = pc.prune(net, x[:2], spec, calibration=x)
    torch.testing.assert_close(result.model(x), net(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("compensation", ["least_squares", "sequential"])
def test_groups_of_a_transposed_convolution_take_over_what_is_gone(compensation: str) -> None:
    """In each of its groups the last two inputs are copies of the first two."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.ConvTranspose2d(8, 6, 2, 2, groups=2), nn.Conv2d(6, 2, 1)).eval()
    with torch.no_grad():
        for parameter in net[0].parameters():
            parameter[[2, 3, 6, 7]] = parameter[[0, 1, 4, 5]]
    x = torch.randn(64, 3, 4, 4)
    bare, mended = (
        pc.prune(net, x[:2], pc.PruningSpec(index={"0": "2, 3"}, compensation=kind), x).model
        for kind in ("none", compensation)
    )
    lost = error(net, bare, x)
    assert lost > 1e-2
    assert error(net, mended, x) < 1e-3 * lost


@pytest.mark.parametrize(
    ("kernel", "stride", "compensation"),
    [(1, 1, "least_squares"), (2, 2, "least_squares"), (4, 2, "least_squares"), (2, 2, "sequential")],
)
def test_a_constant_reaches_each_output_of_a_transposed_convolution_by_a_share_of_the_kernel(
    kernel: int, stride: int, compensation: str
) -> None:
    torch.manual_seed(0)
    up = nn.ConvTranspose2d(3, 4, kernel, stride, padding=(kernel - stride) // 2)
    net = nn.Sequential(nn.Conv2d(3, 3, 1), up, nn.Conv2d(4, 2, 1)).eval()
    with torch.no_grad():
        net[0].weight[2], net[0].bias[2] = 0, 3
        up.weight[2] = torch.randn(4)[:, None, None]
    x = torch.randn(64, 3, 16, 16)
    with torch.no_grad():
        found, want = pc.prune(net, x[:2], pc.PruningSpec(index={"0": "2"}, compensation=compensation), x).model(x), net(x)
    torch.testing.assert_close(found[..., 2:-2, 2:-2], want[..., 2:-2, 2:-2], rtol=1e-2, atol=1e-2)
