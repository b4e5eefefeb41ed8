"""What a layer's name means: a group may be named by any layer that has its channels on its output."""

import pytest
import torch
from torch import nn

import pruning_core as pc
from tests.models import seeded

X = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def net() -> nn.Module:
    """'1' is a norm, '3' depthwise, '4' a PReLU; '5' reads what '0' makes; '8' has one output, which cannot be cut."""
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.PReLU(8),
            nn.Conv2d(8, 12, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 1),
        )
    )()  # fmt: skip


def kept(**options: object) -> dict[str, int]:
    spec = pc.PruningSpec(min_channels=1, round_to=1, **options)  # type: ignore[arg-type]
    return {cut.group: len(cut.keep) for cut in pc.plan(net(), X, spec).cuts}


@pytest.mark.parametrize("name", ["0", "1", "3", "4"])
def test_any_layer_that_hands_the_channels_on_names_their_group(name: str) -> None:
    assert kept(exclude=(name,)) == {"5": 6}
    assert kept(include=(name,)) == {"0": 4}
    assert kept(allocator="per_layer", ratios={name: 0.25}) == {"0": 6}
    assert kept(ratios={name: 0.25}) == {"0": 6}
    assert kept(ratio=0.5, ratios={name: 0.25}) == {"0": 6, "5": 6}
    assert kept(index={name: "0,1"}) == {"0": 6}


def test_a_layer_means_what_it_produces_and_not_what_it_reads() -> None:
    assert kept(exclude=("5",)) == {"0": 4}
    assert kept(include=("5",)) == {"5": 6}
    assert kept(allocator="per_layer", ratios={"5": 0.25}) == {"5": 9}
    assert kept(index={"5": "0,11"}) == {"5": 10}


@pytest.mark.parametrize(
    "options", [{"exclude": ("8",)}, {"include": ("8",)}, {"ratios": {"8": 0.5}}, {"index": {"8": "0"}}]
)
def test_a_layer_that_only_reads_is_an_error_with_the_right_name(options: dict[str, object]) -> None:
    with pytest.raises(pc.SpecError, match="'8' has no output channels") as caught:
        kept(**options)
    assert "use '5'" in caught.value.fix


def test_names_of_one_group_that_disagree() -> None:
    with pytest.raises(pc.SpecError, match="different ratios"):
        kept(ratios={"0": 0.5, "1": 0.25})
    with pytest.raises(pc.SpecError, match="name different channels"):
        kept(index={"0": "1", "1": "2"})
    assert kept(index={"0": "1", "1": "1"}) == {"0": 7}


@pytest.mark.parametrize("allocator", ["per_layer", "slamp"])
def test_a_ratio_for_a_layer_that_cannot_be_cut_is_an_error(allocator: str) -> None:
    model = seeded(lambda: nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8)))()
    with pytest.raises(pc.SpecError, match="ratios: '2' cannot be cut: locked: reaches the model output"):
        pc.plan(model, torch.randn(2, 3), pc.PruningSpec(allocator=allocator, ratios={"2": 0.5, "0": 0.25}, min_channels=1))
    plan = pc.plan(model, torch.randn(2, 3), pc.PruningSpec(allocator=allocator, ratios={"*": 0.5}, min_channels=1))
    assert [cut.group for cut in plan.cuts] == ["0"]  # a glob means those that can be cut


def test_an_index_that_names_no_channel() -> None:
    with pytest.raises(pc.SpecError, match=r"index\['0'\] names no channel"):
        pc.plan(net(), X, pc.PruningSpec(index={"0": ""}))


def test_what_an_index_takes_is_told_as_a_share_of_the_whole_model() -> None:
    plan = pc.plan(net(), X, pc.PruningSpec(index={"0": "0,1"}))
    assert (plan.prunable_before, plan.prunable_after) == (20, 18)  # eight channels, and twelve that nobody named


def test_an_index_into_one_part_of_a_grouped_convolution_says_that_all_parts_lose() -> None:
    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1, groups=4), nn.Conv2d(8, 2, 1)))()
    plan = pc.plan(model, X, pc.PruningSpec(index={"1": "0"}))
    assert [len(cut.keep) * cut.positions for cut in plan.cuts] == [4]
    assert "each channel goes from all parts at once" in str(plan)
