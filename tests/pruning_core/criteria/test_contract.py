"""Every registered criterion, the day it lands."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pruning_core.criteria import CRITERIA, ChannelView
from pruning_core.errors import SpecError


@pytest.mark.parametrize("name", list(CRITERIA))
@given(seed=st.integers(0, 2**31), channels=st.integers(1, 9), rest=st.integers(1, 9))
def test_scores_follow_their_channel(name: str, seed: int, channels: int, rest: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    weight = torch.randn(channels, rest, generator=rng)
    perm = torch.randperm(channels, generator=rng)
    scores = CRITERIA[name](ChannelView("w", weight))
    assert scores.shape == (channels,)
    assert bool((scores >= 0).all())
    torch.testing.assert_close(CRITERIA[name](ChannelView("w", weight[perm])), scores[perm])
    torch.testing.assert_close(CRITERIA[name](ChannelView("w", weight * 3)), scores * 3)


@pytest.mark.parametrize("name", list(CRITERIA))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision_gives_single_precision_scores(name: str, dtype: torch.dtype) -> None:
    assert CRITERIA[name](ChannelView("w", torch.randn(4, 6).to(dtype))).dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("l2_norm", [5.0, 2**0.5, 0.0]),
        ("l1_norm", [7.0, 2.0, 0.0]),
        ("geometric_median", [13**0.5 + 5, 13**0.5 + 2**0.5, 5 + 2**0.5]),  # (3,4) (1,1) (0,0)
    ],
)
def test_by_hand(name: str, want: list[float]) -> None:
    scores = CRITERIA[name](ChannelView("w", torch.tensor([[3.0, 4], [1, 1], [0, 0]])))
    torch.testing.assert_close(scores, torch.tensor(want))


def test_a_misspelt_name_suggests_the_nearest() -> None:
    with pytest.raises(SpecError, match="did you mean 'l2_norm'"):
        CRITERIA["l2norm"]
