"""What a penalty learns of the channels."""

import torch
from torch import nn

import pruning_core as pc


def test_a_slice_has_a_channel_for_each_position_of_its_axis() -> None:
    """Also where a weight holds the outputs of several groups in other rows."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ConvTranspose2d(8, 6, 2, groups=2), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 1)
    ).eval()
    shapes = {name: p.shape for name, p in net.named_parameters()}
    found = [part for coupling in pc.couplings(net, torch.randn(2, 3, 5, 5)) for part in coupling.slices]
    assert ("1.weight", 1, (0, 1, 2)) in [(part.parameter, part.axis, part.channel_of) for part in found]
    assert all(len(part.channel_of) == shapes[part.parameter][part.axis] for part in found)
