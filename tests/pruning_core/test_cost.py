"""Costs against numbers worked by hand."""

import torch
from torch import nn

import pruning_core as pc


def test_conv_and_linear_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 16, 10))
    found = pc.cost(model, torch.randn(1, 3, 4, 4))
    assert found.macs == 8 * 16 * 3 * 9 + 10 * 128
    assert found.params == 8 * 27 + 8 + 16 + 1280 + 10
    assert found.buffers == 8 + 8 + 1
    assert found.size_bytes == 4 * (found.params + 16) + 8
    assert found.peak_activation_bytes == 4 * (128 + 128)


def test_grouped_transposed_and_attention_by_hand() -> None:
    assert pc.cost(nn.Conv2d(8, 8, 3, groups=8), torch.randn(1, 8, 5, 5)).macs == 9 * 8 * 9
    assert pc.cost(nn.ConvTranspose2d(4, 6, 2, stride=2), torch.randn(1, 4, 3, 3)).macs == 9 * 4 * 6 * 4
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    x = torch.randn(1, 5, 8)
    projections, products = 5 * 8 * 24 + 5 * 8 * 8, 2 * (2 * 5 * 5 * 4)
    assert pc.cost(attention, (x, x, x)).macs == projections + products


def test_batch_is_counted() -> None:
    model = nn.Linear(8, 4)
    assert pc.cost(model, torch.randn(6, 8)).macs == 6 * pc.cost(model, torch.randn(1, 8)).macs


def test_a_tied_weight_counts_once() -> None:
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    model[1].weight = model[0].weight  # type: ignore[assignment]
    assert pc.cost(model, torch.randn(1, 8)).params == 64
