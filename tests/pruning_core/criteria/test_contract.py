"""Every registered criterion, the day it lands."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pruning_core.criteria import CRITERIA, NEEDS, ChannelView, Features
from pruning_core.errors import SpecError

# by how much scores grow when the weights, and when what was observed, are three times as large
SCALES = {
    "l2_norm": (3, 1),
    "l1_norm": (3, 1),
    "geometric_median": (3, 1),
    "random": (1, 1),
    "taylor": (3, 3),
    "fisher": (9, 9),
    "hessian": (9, 9),
    "activation": (1, 3),
    "apoz": (1, 1),
    "nuclear_norm": (1, 3),
    "bn_scale": (1, 3),
    "reconstruction": (1, 9),
}


def full_view(seed: int, channels: int, rest: int) -> ChannelView:
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng)

    return ChannelView(
        "w",
        draw(channels, rest),
        grad_CR=draw(channels, rest),
        square_CR=draw(channels, rest).square(),
        features=Features(draw(channels).abs(), torch.rand(channels, generator=rng), draw(channels).abs()),
        gamma_C=draw(channels).abs(),
        damage_C=draw(channels).square(),
        samples=5,
    )


def permuted(view: ChannelView, perm: Tensor) -> ChannelView:
    f = view.features
    assert f is not None
    assert f.nuclear_C is not None
    assert view.grad_CR is not None
    assert view.square_CR is not None
    assert view.gamma_C is not None
    assert view.damage_C is not None
    return replace(
        view,
        weight_CR=view.weight_CR[perm],
        grad_CR=view.grad_CR[perm],
        square_CR=view.square_CR[perm],
        features=Features(f.magnitude_C[perm], f.zeros_C[perm], f.nuclear_C[perm]),
        gamma_C=view.gamma_C[perm],
        damage_C=view.damage_C[perm],
    )


def louder(view: ChannelView, factor: float) -> ChannelView:
    """What would have been observed with gradients, maps and BatchNorm scales so much larger."""
    f = view.features
    assert f is not None
    assert f.nuclear_C is not None
    assert view.grad_CR is not None
    assert view.square_CR is not None
    assert view.gamma_C is not None
    assert view.damage_C is not None
    return replace(
        view,
        grad_CR=view.grad_CR * factor,
        square_CR=view.square_CR * factor**2,
        features=Features(f.magnitude_C * factor, f.zeros_C, f.nuclear_C * factor),
        gamma_C=view.gamma_C * factor,
        damage_C=view.damage_C * factor**2,
    )


@pytest.mark.parametrize("name", list(CRITERIA))
@given(seed=st.integers(0, 2**31), channels=st.integers(1, 9), rest=st.integers(1, 9))
def test_one_score_per_channel_that_scales(name: str, seed: int, channels: int, rest: int) -> None:
    view = full_view(seed, channels, rest)
    scores = CRITERIA[name](view)
    assert scores.shape == (channels,)
    assert bool((scores >= 0).all())
    with_weights, with_observations = SCALES[name]
    torch.testing.assert_close(CRITERIA[name](replace(view, weight_CR=view.weight_CR * 3)), scores * with_weights)
    torch.testing.assert_close(CRITERIA[name](louder(view, 3)), scores * with_observations)


@pytest.mark.parametrize("name", [name for name in CRITERIA if name != "random"])  # its scores belong to positions
@given(seed=st.integers(0, 2**31), channels=st.integers(1, 9), rest=st.integers(1, 9))
def test_scores_follow_their_channel(name: str, seed: int, channels: int, rest: int) -> None:
    view = full_view(seed, channels, rest)
    perm = torch.randperm(channels, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(CRITERIA[name](permuted(view, perm)), CRITERIA[name](view)[perm])


@pytest.mark.parametrize("name", list(CRITERIA))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_precision_gives_single_precision_scores(name: str, dtype: torch.dtype) -> None:
    view = full_view(0, 4, 6)
    scores = CRITERIA[name](replace(view, weight_CR=view.weight_CR.to(dtype)))
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, CRITERIA[name](view), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", [name for name in CRITERIA if NEEDS.get(name)])
def test_a_missing_observation_is_named_with_a_way_out(name: str) -> None:
    with pytest.raises(SpecError, match=f"criterion '{name}' needs .* found none") as caught:
        CRITERIA[name](ChannelView("conv.weight", torch.ones(2, 3)))
    assert "conv.weight" in caught.value.where
    assert "or use 'l2_norm'" in caught.value.fix
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301


def test_singular_values_may_be_what_is_missing() -> None:
    view = ChannelView("w", torch.ones(2, 3), features=Features(torch.ones(2), torch.zeros(2)))
    with pytest.raises(SpecError, match="singular values"):
        CRITERIA["nuclear_norm"](view)


FILTERS = torch.tensor([[3.0, 4], [1, 1], [0, 0]])
SEEN = ChannelView(
    "w",
    FILTERS,
    grad_CR=torch.tensor([[1.0, -2], [0.5, 0.25], [7, 7]]),
    square_CR=torch.tensor([[1.0, 4], [0.5, 0.25], [7, 7]]),
    features=Features(torch.tensor([1.0, 2, 3]), torch.tensor([0.25, 1, 0]), torch.tensor([4.0, 5, 6])),
    gamma_C=torch.tensor([0.5, 0, 2]),
    samples=2,
)


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("l2_norm", [5.0, 2**0.5, 0.0]),
        ("l1_norm", [7.0, 2.0, 0.0]),
        ("geometric_median", [13**0.5 + 5, 13**0.5 + 2**0.5, 5 + 2**0.5]),  # (3,4) (1,1) (0,0)
        ("taylor", [5.0, 0.75, 0.0]),  # |3 - 8|, 0.5 + 0.25
        ("fisher", [146.0, 1.5, 0.0]),  # 2 samples: 2 (9 * 1 + 16 * 4), 2 (0.5 + 0.25)
        ("hessian", [146.0, 1.5, 0.0]),
        ("activation", [1.0, 2.0, 3.0]),
        ("apoz", [0.75, 0.0, 1.0]),
        ("nuclear_norm", [4.0, 5.0, 6.0]),
        ("bn_scale", [0.5, 0.0, 2.0]),
    ],
)
def test_by_hand(name: str, want: list[float]) -> None:
    torch.testing.assert_close(CRITERIA[name](SEEN), torch.tensor(want))


def test_random_depends_on_seed_and_name_only() -> None:
    view = ChannelView("a", torch.ones(16, 2), seed=3)
    scores = CRITERIA["random"](view)
    assert torch.equal(scores, CRITERIA["random"](replace(view, weight_CR=torch.zeros(16, 5))))
    assert not torch.equal(scores, CRITERIA["random"](replace(view, seed=4)))
    assert not torch.equal(scores, CRITERIA["random"](replace(view, name="b")))
    assert len(scores.unique()) == 16


def test_random_is_the_same_in_another_process() -> None:
    code = (
        "import torch; from pruning_core.criteria import *; "
        "print(CRITERIA['random'](ChannelView('a', torch.ones(4, 2), seed=3)).tolist())"
    )
    env = {**os.environ, "PYTHONHASHSEED": "77"}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert out.strip() == str(CRITERIA["random"](ChannelView("a", torch.ones(4, 2), seed=3)).tolist())


def test_random_leaves_the_global_state_alone() -> None:
    before = torch.get_rng_state()
    CRITERIA["random"](ChannelView("a", torch.ones(4, 2)))
    assert torch.equal(before, torch.get_rng_state())


def test_a_misspelt_name_suggests_the_nearest() -> None:
    with pytest.raises(SpecError, match="did you mean 'l2_norm'"):
        CRITERIA["l2norm"]
