"""Rows times the weight's matrix must be what the call itself computes, for every kind of layer."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pruning_core.inputs import ExampleInputs
from pruning_core.observe.calls import LayerCall, layer_calls
from pruning_core.study import study

IMAGE = (3, 8, 9, 10)
LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(5, 7), (4, 5)),
    "linear over tokens": (nn.Linear(5, 7, bias=False), (2, 3, 5)),
    "linear of one vector": (nn.Linear(5, 7), (5,)),
    "conv1d": (nn.Conv1d(4, 6, 3, padding=1), (2, 4, 11)),
    "conv2d": (nn.Conv2d(8, 6, 3, stride=2, padding=1), IMAGE),
    "conv2d, dilated": (nn.Conv2d(8, 6, (3, 2), dilation=(2, 1), bias=False), IMAGE),
    "conv2d, same": (nn.Conv2d(8, 6, 4, padding="same"), IMAGE),
    "conv2d, grouped": (nn.Conv2d(8, 12, 3, groups=4, padding=1), IMAGE),
    "conv2d, depthwise": (nn.Conv2d(8, 8, 3, groups=8), IMAGE),
    "conv3d": (nn.Conv3d(2, 3, 2, stride=(1, 2, 1)), (2, 2, 4, 5, 6)),
    "transposed 1d": (nn.ConvTranspose1d(4, 6, 3), (2, 4, 5)),
    "transposed 2d": (nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1, output_padding=1), IMAGE),
    "transposed 2d, grouped, dilated": (nn.ConvTranspose2d(8, 6, 3, stride=2, dilation=2, groups=2), IMAGE),
}


class ByHand(nn.Module):
    """Weights that lie the other way round."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(5, 7)), nn.Parameter(torch.randn(7))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weight) + x @ torch.ones(5, 7)


LAYERS["addmm"] = (ByHand(), (4, 5))
LAYERS["a convolution of one image without a batch"] = (nn.Conv2d(3, 4, 3), (3, 6, 6))


def only_call(layer: nn.Module, x: Tensor) -> LayerCall:
    calls = layer_calls(study(layer, ExampleInputs.of(x)).trace)
    return calls[0]


@pytest.mark.parametrize("name", LAYERS)
def test_rows_times_matrix_is_the_output(name: str) -> None:
    layer, shape = LAYERS[name]
    layer = layer.double()
    torch.manual_seed(0)
    x = torch.randn(*shape, dtype=torch.float64)
    call = only_call(layer, x)
    weight, bias = layer.get_parameter(call.weight), layer.get_parameter(call.bias) if call.bias else None
    y = torch.addmm(bias, x, weight) if isinstance(layer, ByHand) else layer(x)
    count = y.numel() // y.shape[call.channel_axis]
    rows = torch.randperm(count)[: count // 2 + 1]
    matrix = call.to_matrix(weight, call.groups)  # [G, O, K]
    got = call.input_rows(x, tuple(weight.shape), call.groups, rows) @ matrix.transpose(1, 2)  # [G, N, O]
    want = call.output_rows(y, rows)
    if bias is not None:
        want = want - bias
    torch.testing.assert_close(got.transpose(0, 1).reshape(len(rows), -1), want)
    torch.testing.assert_close(call.from_matrix(matrix, tuple(weight.shape)), weight)


def test_a_weight_that_two_calls_read_says_so() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.once = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.once(F.relu(self.layer(self.layer(x))))

    calls = layer_calls(study(Twice(), ExampleInputs.of(torch.randn(2, 4))).trace)
    assert [(call.weight, call.only) for call in calls] == [
        ("layer.weight", False),
        ("layer.weight", False),
        ("once.weight", True),
    ]
