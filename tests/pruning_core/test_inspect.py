"""The layer table, and manual control over what goes."""

import pytest
import torch
from torch import nn

import pruning_core as pc
from tests.awkward import AWKWARD
from tests.models import IMAGE, NETS, seeded


def test_table_of_a_residual_net() -> None:
    net = NETS["residual"]
    report = pc.inspect(net.build(), net.inputs())
    frame = report.to_pandas().set_index("name")
    assert frame.loc["fc", "prunable"] == 0
    assert frame.loc["fc", "reason"] == "locked: reaches the model output"
    assert report.params == sum(p.numel() for p in net.build().parameters())
    assert frame["macs"].sum() == report.macs
    assert "layer" in str(report).splitlines()[0]


def test_transposed_convolutions_are_as_wide_as_their_outputs() -> None:
    """Grouped, the weight holds three; depthwise, it follows its producer and still has a row of its own."""
    up = nn.ConvTranspose2d(8, 6, 2, 2, groups=2)
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ConvTranspose2d(8, 8, 2, 2, groups=8), up, nn.Conv2d(6, 4, 1)).eval()
    rows = {row.name: row for row in pc.inspect(net, torch.randn(2, 3, 6, 6)).layers}
    assert {name: (row.width, row.prunable, row.group) for name, row in rows.items()} == {
        "0": (8, 8, "0"),
        "1": (8, 8, "0"),
        "2": (6, 6, "2"),
        "3": (4, 0, ""),
    }


def test_exclude_include_and_ratios() -> None:
    net = NETS["conv_stack"]

    def widths(**options: object) -> dict[str, int]:
        plan = pc.plan(net.build(), net.inputs(), pc.PruningSpec(**options))  # type: ignore[arg-type]
        return {cut.group: len(cut.keep) for cut in plan.cuts}

    assert set(widths()) == {"conv1", "conv2", "conv3"}
    assert set(widths(exclude=("conv2",))) == {"conv1", "conv3"}
    assert set(widths(include=("conv[12]",))) == {"conv1", "conv2"}
    assert widths(allocator="per_layer", ratios={"conv2": 0.25}) == {"conv2": 24}


@pytest.mark.parametrize(("axis", "heads", "width"), [("inner", 4, 8), ("outer", 2, 16)])
def test_reshape_axis_chooses_head_size_or_heads(axis: str, heads: int, width: int) -> None:
    """Four heads of 16: `inner` halves the size of each, `outer` halves their number."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads, self.width = 4, 16
            self.qkv, self.out = nn.Linear(24, 3 * 64), nn.Linear(64, 24)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = self.qkv(x).view(*x.shape[:2], 3, self.heads, self.width).permute(2, 0, 3, 1, 4)
            scores = (q @ k.transpose(-1, -2) / 4).softmax(-1)
            return self.out((scores @ v).transpose(1, 2).flatten(2))

    result = pc.prune(
        seeded(Attention)(), torch.randn(2, 5, 24), pc.PruningSpec(reshape_axis=axis, min_channels=1), check="numeric"
    )
    assert (result.model.heads, result.model.width) == (heads, width)


@pytest.mark.parametrize(
    ("axis", "sizes"),
    [
        (-1, {(12, 32)}),
        ("inner", {(12, 32)}),
        (-2, {(6, 64)}),
        ("outer", {(6, 64)}),
        ("auto", {(12, 32), (6, 64)}),
    ],
)
def test_768_channels_as_12_heads_of_64(axis: str, sizes: set[tuple[int, int]]) -> None:
    """(B, 768, N) -> (B, 12, 64, N)."""

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads, self.width = 12, 64
            self.project, self.out = nn.Conv1d(5, 768, 1), nn.Conv1d(768, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            split = self.project(x).reshape(x.shape[0], self.heads, self.width, x.shape[2])
            return self.out(split.softmax(2).flatten(1, 2))

    result = pc.prune(seeded(Heads)(), torch.randn(2, 5, 7), pc.PruningSpec(reshape_axis=axis), check="numeric")
    assert (result.model.heads, result.model.width) in sizes
    assert result.model.project.out_channels == 384  # type: ignore[union-attr]


@pytest.mark.parametrize(("axis", "groups"), [("within", 4), ("whole", 2)])
def test_group_axis_thins_groups_or_drops_them(axis: str, groups: int) -> None:
    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, 32, 1), nn.Conv2d(32, 32, 3, groups=4), nn.Conv2d(32, 4, 1)))()
    result = pc.prune(model, IMAGE(), pc.PruningSpec(group_axis=axis), check="numeric")
    assert result.model[1].groups == groups  # type: ignore[index, union-attr]
    assert result.model[1].out_channels == 16  # type: ignore[index, union-attr]


def test_a_folded_constant_is_in_the_plan() -> None:
    case = AWKWARD["attention_runtime_scale"]
    plan = pc.plan(case.build(), case.inputs(), pc.PruningSpec())
    assert {round(r.factor, 6) for r in plan.rescales} == {round(0.5**0.5, 6)}
    assert "scaled" in str(plan)
