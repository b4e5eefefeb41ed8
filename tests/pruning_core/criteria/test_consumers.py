"""Who reads the channels of a group, and where."""

import torch
from torch import nn

from pruning_core.coupling.analysis import Decisions, resolve
from pruning_core.coupling.groups import channel_groups
from pruning_core.coupling.parts import told_apart
from pruning_core.criteria.consumers import Consumer, consumers
from pruning_core.inputs import ExampleInputs
from pruning_core.observe.calls import layer_calls
from pruning_core.study import study


def readers_of_the_first(net: nn.Module, policy: str = "sum") -> list[Consumer]:
    trace = study(net.eval(), ExampleInputs.of(torch.randn(2, 3, 5, 5))).trace
    analysis = resolve(trace, Decisions(group_policy=policy))
    group = next(g for g in channel_groups(analysis) if g.name == "0")
    return consumers(told_apart([group], analysis).get("0", group), layer_calls(trace))


def test_a_depthwise_transposed_convolution_hands_channels_on() -> None:
    """Its outputs go with its inputs: nothing is lost there that somebody could mend."""
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ConvTranspose2d(8, 8, 2, groups=8), nn.Conv2d(8, 4, 1))
    assert [found.call.weight for found in readers_of_the_first(net)] == ["2.weight"]


def test_groups_read_the_same_channels_or_their_own() -> None:
    """Two groups of three inputs; a flattening reader would have several of each."""
    for layer in (nn.Conv2d(6, 4, 1, groups=2), nn.ConvTranspose2d(6, 4, 1, groups=2)):
        net = nn.Sequential(nn.Conv2d(3, 6, 1), layer, nn.Conv2d(4, 4, 1))
        (tied,) = readers_of_the_first(net)
        (part,) = tied.parts
        assert (part.groups.tolist(), part.channels.tolist(), part.inputs.tolist()) == ([0, 1], [0, 1, 2], [[0], [1], [2]])
        (apart,) = readers_of_the_first(net, "none")
        assert [(p.groups.tolist(), p.channels.tolist()) for p in apart.parts] == [([0], [0, 1, 2]), ([1], [3, 4, 5])]
