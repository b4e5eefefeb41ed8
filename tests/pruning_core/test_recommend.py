"""The recommendation: shown before anything is cut, and the same cut when it is handed back."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

import pruning_core as pc
from pipelines.models import small_resnet
from tests.awkward import AWKWARD

X = torch.zeros(2, 1, 8, 8)
IMAGES = torch.rand(96, 1, 8, 8, generator=torch.Generator().manual_seed(3))


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return small_resnet(width=16).eval()


class Split(nn.Module):
    """One layer whose parts are cut apart from each other."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(12, 96)
        self.a, self.b = nn.Linear(48, 20), nn.Linear(48, 20)

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.qkv(x).chunk(2, dim=1)
        return self.a(one.relu()) + self.b(two.relu())


@pytest.mark.parametrize(
    ("spec", "calibration"),
    [
        (pc.PruningSpec(ratio=0.6, allocator="slamp"), None),
        (pc.PruningSpec(ratio=0.3, round_mode="up", round_to=4), None),
        (pc.PruningSpec(budget={"macs": "2.5x"}), IMAGES),
        (pc.PruningSpec(ratio=0.5, allocator="slamp"), IMAGES),
    ],
    ids=["slamp", "uniform", "budget-reconstruction", "slamp-reconstruction"],
)
def test_handed_back_it_keeps_the_same_channels(spec: pc.PruningSpec, calibration: Tensor | None) -> None:
    model = resnet()
    recommendation = pc.recommend(model, X, spec, calibration)
    wanted = pc.plan(model, X, spec, calibration)
    again = pc.plan(model, X, recommendation.spec(), calibration)
    assert again.cuts == wanted.cuts
    from_options = pc.PruningSpec.from_dict(recommendation.to_dict())
    assert pc.plan(model, X, from_options, calibration).cuts == wanted.cuts


def test_a_row_per_group_with_its_numbers() -> None:
    model = resnet()
    found = pc.recommend(model, X, pc.PruningSpec(ratio=0.5, exclude=["stage2.1.conv1"]))
    rows = {row.name: row for row in found.rows}
    stem = rows["stem.0"]
    assert stem.layers[0] == "stem.0"
    assert {"stage1.0.conv2", "stage1.1.conv2"} <= set(stem.layers)
    assert (stem.width, stem.kept, stem.ratio) == (16, 8, 0.5)
    scores = [0.0, 1.0]
    assert stem.score_min is not None
    assert stem.score_max is not None
    assert scores[0] < stem.score_min < stem.score_max < scores[1]  # shares of the sum of a layer's norms
    assert sum(row.macs_share for row in found.rows) == pytest.approx(1)
    assert rows["head"].reason == "locked: reaches the model output"
    assert rows["stage2.1.conv1"].reason == 'excluded by "stage2.1.conv1"'
    assert set(found.ratios) == {"stem.0", "stage1.0.conv1", "stage1.1.conv1", "stage2.0.conv1", "stage2.0.conv2"}
    assert list(found.to_pandas()["name"]) == list(rows)
    assert "stage1.0.conv1" in str(found)
    with pytest.raises(dataclasses.FrozenInstanceError):
        stem.ratio = 0.1  # type: ignore[misc]


def test_the_total_is_what_pruning_brings() -> None:
    model, spec = resnet(), pc.PruningSpec(budget={"macs": "2.5x"})
    found = pc.recommend(model, X, spec)
    report = pc.prune(model, X, spec).report
    assert (found.before, found.after) == (report.before, report.after)
    assert f"MACs {report.macs_before:,} -> {report.macs_after:,} (2.5" in str(found)
    assert "ms" not in found.total


def test_the_model_is_untouched() -> None:
    model = resnet()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pc.recommend(model, X, pc.PruningSpec(budget={"params": "3x"}), IMAGES)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_edited_ratios_are_what_is_cut() -> None:
    model = resnet()
    found = pc.recommend(model, X, pc.PruningSpec(ratio=0.5))
    spec = found.edited({**found.ratios, "stage1.0.conv1": 0.25, "stem.0": 0.0})
    widths = {cut.group: len(cut.keep) for cut in pc.plan(model, X, spec).cuts}
    assert widths["stage1.0.conv1"] == 12
    assert "stem.0" not in widths


@pytest.mark.parametrize("allocator", ["uniform", "slamp"])
def test_what_the_table_says_is_what_is_cut_whatever_the_steps(allocator: str) -> None:
    torch.manual_seed(0)
    for model, x in (resnet(), X), (small_resnet(width=32).eval(), X), (Split(), torch.zeros(2, 12)):
        found = pc.recommend(model, x, pc.PruningSpec(ratio=0.6, allocator=allocator, steps=3, round_to=8))
        table = {row.name: row.kept for row in found.rows if row.kept < row.width}
        assert table
        plan = pc.plan(model, x, found.spec())
        assert {cut.group: len(cut.keep) * cut.positions for cut in plan.cuts} == table
        again = pc.plan(model, x, pc.PruningSpec.from_dict(found.to_dict()))
        assert again.cuts == plan.cuts


def test_parts_of_a_layer_have_names_of_their_own() -> None:
    torch.manual_seed(0)
    model, x = Split(), torch.zeros(2, 12)
    found = pc.recommend(model, x, pc.PruningSpec(ratio=0.5, allocator="slamp"))
    assert set(found.ratios) == {"qkv[0:48]", "qkv[48:96]"}
    plan = pc.plan(model, x, found.edited({"qkv[0:48]": 0.25, "qkv[48:96]": 0.25}))
    assert {cut.group: len(cut.keep) for cut in plan.cuts} == {"qkv[0:48]": 36, "qkv[48:96]": 36}


@pytest.mark.parametrize("name", ["tied_autoencoder", "low_rank"])
def test_groups_that_share_a_layer_or_have_none_can_be_handed_back(name: str) -> None:
    """A weight that makes channels on two axes, and channels between two factors of a weight that no layer makes alone."""
    case = AWKWARD[name]
    model, x = case.build(), case.inputs()
    spec = pc.PruningSpec(budget={"params": "3.5x"}, criterion="l1_norm", normalizer="max", round_to=4)
    wanted, found = pc.plan(model, x, spec), pc.recommend(model, x, spec)
    assert pc.plan(model, x, found.spec()).cuts == wanted.cuts
    assert sum(row.macs_share for row in found.rows) == pytest.approx(1)


def test_coupled_layers_must_agree() -> None:
    model = resnet()
    for ratios in {"stem.0": 0.3, "stage1.0.conv2": 0.5}, {"stem*": 0.3, "stage1.?.conv2": 0.5}:
        for allocator in "per_layer", "slamp", "uniform":
            with pytest.raises(pc.SpecError, match="cut together have different ratios: stem") as caught:
                pc.plan(model, X, pc.PruningSpec(allocator=allocator, ratios=ratios))
            assert "name one of them" in caught.value.fix
    same = pc.PruningSpec(allocator="per_layer", ratios={"stem.0": 0.5, "stage1.0.conv2": 0.5, "stage1.*": 0.25})
    widths = {cut.group: len(cut.keep) for cut in pc.plan(model, X, same).cuts}
    assert widths == {"stem.0": 8, "stage1.0.conv1": 12, "stage1.1.conv1": 12}  # a name counts before a glob


def test_what_makes_no_sense_is_refused() -> None:
    model = resnet()
    with pytest.raises(pc.SpecError, match=r"did you mean 'stage1\.0\.conv1'"):
        pc.recommend(model, X, pc.PruningSpec(allocator="per_layer", ratios={"stage1.0.conv11": 0.5}))
    with pytest.raises(pc.SpecError, match="index says already"):
        pc.recommend(model, X, pc.PruningSpec(index={"stem.0": "1"}))
    with pytest.raises(pc.SpecError, match="needs calibration data"):
        pc.recommend(model, X, pc.PruningSpec(criterion="reconstruction"))
    with pytest.raises(pc.SpecError, match="needs calibration data"):
        pc.prune(model, X, pc.PruningSpec(recalibrate_bn=True))
    with pytest.raises(pc.SpecError, match=r"2\.5 is not a channel number"):
        pc.PruningSpec(index={"stem.0": 2.5})  # type: ignore[dict-item]
    assert pc.PruningSpec(index={"stem.0": 3}).index == {"stem.0": (3,)}  # type: ignore[dict-item]


@pytest.mark.usefixtures("steady_clock")
def test_latency_by_the_table_is_told() -> None:
    latencies = pc.LatencyTable(threads=1)
    result = pc.prune(resnet(), torch.zeros(16, 1, 8, 8), pc.PruningSpec(budget={"latency_ms": "1.5x"}), latencies=latencies)
    assert result.report.predicted_ms is not None
    before, after = result.report.predicted_ms
    assert 0 < after <= before / 1.5 * 1.001
    assert "latency by the table" in str(result.report)
    told = pc.recommend(
        resnet(), torch.zeros(16, 1, 8, 8), pc.PruningSpec(budget={"latency_ms": "1.5x"}), latencies=latencies
    )
    assert told.predicted_ms == result.report.predicted_ms
    assert told.total.endswith("ms by the latency table")
    assert pc.LatencyTable.from_json(latencies.to_json()).known == latencies.known
