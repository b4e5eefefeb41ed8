"""The recommendation on whole nets: what was measured of the reference product, as far as it does not hang on weights."""

import numpy as np
import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core.allocators import ALLOCATORS, Budget, ScoredGroup, round_kept
from pruning_core.select import best_channels
from tests.yolox import YoloxS

WIDTHS = (64, 128, 128, 256, 256, *[512] * 6, *[1024] * 2)
STRIDED = (1, 3, 5, 11)  # blocks that halve the image


def mobilenet_v1() -> nn.Module:
    def conv(before: int, after: int, size: int, stride: int, groups: int = 1) -> tuple[nn.Module, ...]:
        layer = nn.Conv2d(before, after, size, stride, size // 2, groups=groups, bias=False)
        return layer, nn.BatchNorm2d(after), nn.ReLU()

    torch.manual_seed(0)
    layers, width = [*conv(3, 32, 3, 2)], 32
    for number, after in enumerate(WIDTHS):
        layers += [*conv(width, width, 3, 1 + (number in STRIDED), width), *conv(width, after, 1, 1)]
        width = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1000)).eval()


def test_half_of_mobilenet_v1_is_2992_of_5984_channels() -> None:
    spec = pc.PruningSpec(ratio=0.5, allocator="slamp", slamp_p=1, criterion="l2_norm", round_to=1, min_channels=1)
    plan = pc.plan(mobilenet_v1(), torch.zeros(1, 3, 32, 32), spec)
    assert plan.prunable_before == 5984
    assert plan.prunable_before - plan.prunable_after == 2992


def test_yolox_s_has_10944_channels_of_which_the_widest_layers_keep_about_55() -> None:
    """The reference product keeps 3,248 at 0.7, on average 50, 56, 55 of 128, 256, 512: of trained weights, and rounded.

    Of random weights, whose filters are more alike than trained ones, it is what the ratio leaves, and near 50 of each.
    """
    torch.manual_seed(0)
    model, x = YoloxS().eval(), torch.randn(1, 3, 64, 64)
    assert sum(p.numel() for p in model.parameters()) == 8_968_255  # 9.0 M in the paper
    spec = pc.PruningSpec(ratio=0.7, allocator="slamp", slamp_p=1, criterion="l2_norm", round_to=1, min_channels=1)
    plan = pc.prune(model, x, spec, check="numeric").plan
    assert plan.prunable_before == 10944
    assert plan.prunable_after == 10944 - int(0.7 * 10944)
    kept = {width: np.mean([len(c.keep) for c in plan.cuts if c.width == width]) for width in (128, 256, 512)}
    assert kept == pytest.approx({128: 50, 256: 56, 512: 55}, rel=0.12)
    assert not any(c.width == 32 for c in plan.cuts)  # the reference's 32 wide layers keep 27


def test_kept_widths_grow_far_slower_than_widths() -> None:
    """Norms of Gaussian filters, three layers of each width: wide layers keep about one number, narrow ones most."""
    rng = np.random.default_rng(0)
    filters = {f"{width}.{k}": rng.standard_normal((width, 64)) for width in (32, 64, 128, 256, 512) for k in range(3)}
    groups = [ScoredGroup(n, (n,), np.linalg.norm(filter_, axis=1), None, 1) for n, filter_ in filters.items()]

    def kept(ratio: float) -> dict[str, int]:
        budget = Budget(ratio, {}, min_channels=1, round_to=1, round_mode="nearest", slamp_p=1)
        asked = ALLOCATORS["slamp"](groups, budget)
        assert sum(asked.values()) == 2976 - int(ratio * 2976), "the ratio is the share of all channels"
        counts = {group.name: round_kept(asked[group.name], group, budget) for group in groups}
        assert all(int(g.scores.argmax()) in best_channels(g, counts[g.name]) for g in groups)
        return counts

    found = kept(0.7)
    narrow, middle, wide = (sum(found[f"{width}.{k}"] for k in range(3)) / 3 for width in (32, 128, 512))
    assert narrow <= middle <= wide < 3 * narrow, "sixteen times the width, not thrice the channels"
    assert wide < 1.1 * middle
    assert set(kept(0.995).values()) == {1}, "to the last, every layer has its best channel"
