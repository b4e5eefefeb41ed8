"""Scores of a group's members from what was observed, and which members can be seen."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import pruning_core as pc
from pruning_core.calibration import Calibration
from pruning_core.coupling.analysis import Decisions, resolve
from pruning_core.coupling.groups import ChannelGroup, channel_groups
from pruning_core.coupling.structure import structures
from pruning_core.criteria import CRITERIA, NEEDS
from pruning_core.draft import make_draft
from pruning_core.errors import ModelError, SpecError
from pruning_core.observe.gradients import observe_gradients
from pruning_core.observe.observations import Observations, observe
from pruning_core.scoring import Scorer, scored, scored_members, unseen
from pruning_core.study import Subject
from tests.awkward import AWKWARD
from tests.models import NETS as PRUNED
from tests.models import SqueezeExcite, seeded
from tests.pruning_core.observe.nets import NETS, data, labelled, subject_of

SPEC = pc.PruningSpec().resolved(False)
BY_MEMBER = [name for name in CRITERIA if "damage" not in NEEDS[name]]  # `reconstruction` scores whole groups


def prunable(subject: Subject) -> list[ChannelGroup]:
    return [g for g in channel_groups(resolve(subject.trace, Decisions())) if not g.reason]


def residual() -> tuple[Subject, Calibration]:
    case = PRUNED["residual"]
    x, target = data((6, 3, 16, 16), 10)
    return subject_of(case.build(), x[:2]), labelled(x, target, 4)


@pytest.mark.parametrize("name", BY_MEMBER)
def test_every_criterion_scores_every_group_of_a_residual_net(name: str) -> None:
    subject, calibration = residual()
    scorer = Scorer(subject.tensors, name, observe(subject, calibration, NEEDS[name]))
    groups = prunable(subject)
    assert len(groups) == 4
    for group in groups:
        scores = scored(group, scorer, SPEC).scores
        assert scores.shape == (group.channels,)
        assert ((scores >= 0) & (scores < 1)).all()
        bare = name == "apoz" and group.name in {"stem", "shortcut"}  # added up before the ReLU: no zeros, all score alike
        assert len(set(scores.tolist())) == 1 if bare else len(set(scores.tolist())) > group.channels // 2
    assert not unseen(groups, scorer)


@pytest.mark.parametrize("name", [name for name in BY_MEMBER if "gamma" not in NEEDS[name]])
def test_every_criterion_but_bn_scale_cuts_a_transformer(name: str) -> None:
    build, shape = NETS["transformer"]
    x, target = data(shape)
    subject = subject_of(build(), x[:2])
    scorer = Scorer(subject.tensors, name, observe(subject, labelled(x, target, 4), NEEDS[name]))
    draft = make_draft(
        resolve(subject.trace, Decisions()), scorer, pc.PruningSpec(criterion=name, min_channels=1).resolved(False)
    )
    assert len(draft.kept["up"]) == 6


def test_taylor_is_one_sum_over_every_slice_of_a_coupled_group() -> None:
    """The stem's width: its own filter, conv2's and bn2's, and what reads it; |.| only once."""
    subject, calibration = residual()
    gradients = observe_gradients(subject.model, calibration).mean
    scorer = Scorer(subject.tensors, "taylor", observe(subject, calibration, {"gradients"}))
    group = next(g for g in prunable(subject) if g.name == "stem")
    want = torch.zeros(group.channels)
    for member in group.members:
        if member.tensor in gradients:  # running statistics have none
            product = subject.tensors[member.tensor].detach() * gradients[member.tensor]
            want += product.movedim(member.axis, 0).flatten(1).sum(1) if product.ndim > 1 else product
    found = torch.from_numpy(scored(group, scorer, replace(SPEC, normalizer="none")).scores).float()
    torch.testing.assert_close(found, want.abs(), rtol=1e-4, atol=1e-6)
    seen = {m.tensor for m in scored_members(group, scorer)}
    assert {"stem.weight", "conv2.weight", "bn2.weight", "bn2.bias", "conv1.weight"} <= seen


def test_fisher_is_a_sum_over_samples() -> None:
    subject, calibration = residual()
    squares = observe_gradients(subject.model, calibration, mean=False, square=True).square["conv1.weight"]
    want = 6 * (subject.tensors["conv1.weight"].detach().square() * squares).sum((1, 2, 3))
    scorer = Scorer(subject.tensors, "fisher", observe(subject, calibration, {"squares"}))
    member = next(m for g in prunable(subject) for m in g.members if m.tensor == "conv1.weight" and m.produces)
    torch.testing.assert_close(torch.from_numpy(scorer.positions(member)).float(), want)


def test_members_that_the_criterion_cannot_see_have_no_say() -> None:
    """The stem has no BatchNorm of its own; conv2, which is added to it, has."""
    subject, _ = residual()
    scorer = Scorer(subject.tensors, "bn_scale", observe(subject, None, {"gamma"}))
    group = next(g for g in prunable(subject) if "stem" in g.layers)
    assert [m.tensor for m in scored_members(group, scorer)] == ["conv2.weight"]
    gamma = subject.tensors["bn2.weight"].detach().abs().double().numpy()
    assert scored(group, scorer, SPEC).scores == pytest.approx(gamma / gamma.sum(), rel=1e-6)


def test_no_batch_norm_is_an_error_that_names_the_layer() -> None:
    subject = subject_of(seeded(SqueezeExcite)(), torch.randn(2, 3, 8, 8))
    scorer = Scorer(subject.tensors, "bn_scale", observe(subject, None, {"gamma"}))
    group = next(g for g in prunable(subject) if "squeeze" in g.layers)
    with pytest.raises(ModelError, match="no BatchNorm") as caught:
        scored(group, scorer, SPEC)
    assert caught.value.where == "layer 'squeeze'"
    assert "exclude 'squeeze'" in caught.value.fix
    assert "finds no BatchNorm" in unseen(prunable(subject), scorer)["squeeze"]


def test_no_feature_map_is_an_error_that_names_the_layer() -> None:
    """The width of an LSTM is nobody's feature map here."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.fc = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.lstm(x)[0][:, -1])

    x = torch.randn(4, 5, 6)
    subject = subject_of(Net().eval(), x)
    scorer = Scorer(subject.tensors, "activation", observe(subject, Calibration(x), {"features"}))
    (group,) = prunable(subject)
    with pytest.raises(SpecError, match="no feature map") as caught:
        scored(group, scorer, SPEC)
    assert "lstm" in caught.value.where


@pytest.mark.parametrize("name", [name for name in CRITERIA if NEEDS[name] - {"gamma"}])
@pytest.mark.parametrize("observations", [None, Observations()])
def test_without_observations_the_criterion_says_what_is_missing(name: str, observations: Observations | None) -> None:
    subject, _ = residual()
    with pytest.raises(SpecError, match=r"needs .* found none"):
        scored(prunable(subject)[0], Scorer(subject.tensors, name, observations), SPEC)


def test_bfloat16_weights_are_scored_with_all_criteria() -> None:
    case = PRUNED["residual"]
    x, target = data((6, 3, 16, 16), 10)
    subject = subject_of(case.build().bfloat16(), x[:2].bfloat16())
    for name in BY_MEMBER:
        seen = observe(subject, labelled(x.bfloat16(), target, 3), NEEDS[name])
        for group in prunable(subject):
            assert len(scored(group, Scorer(subject.tensors, name, seen), SPEC).scores) == group.channels


def test_seed_of_random() -> None:
    subject, _ = residual()
    member = prunable(subject)[0].root
    first, again, other = (Scorer(subject.tensors, "random", seed=seed).positions(member) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_constant_maps_give_equal_scores() -> None:
    """Zero inputs: every position of a map is the same, singular values are few, nothing is NaN."""
    case = PRUNED["residual"]
    subject = subject_of(case.build(), torch.zeros(2, 3, 16, 16))
    for name in ("activation", "apoz", "nuclear_norm"):
        seen = observe(subject, Calibration(torch.zeros(4, 3, 16, 16)), NEEDS[name])
        for group in prunable(subject):
            scores = scored(group, Scorer(subject.tensors, name, seen), SPEC).scores
            assert ((scores >= 0) & (scores <= 1)).all()


class Blocks(nn.Module):
    """Two blocks that are alike but for names and widths, and one without a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.a1, self.n1, self.b1 = nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Conv2d(16, 8, 1)
        self.a2, self.n2, self.b2 = nn.Conv2d(8, 24, 1), nn.BatchNorm2d(24), nn.Conv2d(24, 8, 1)
        self.a3, self.b3 = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 1)
        self.fc = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.b1(self.n1(self.a1(x)).relu())
        x = x + self.b2(self.n2(self.a2(x)).relu())
        x = x + self.b3(self.a3(x).relu())
        return self.fc(x.mean((2, 3)))


def test_structure_knows_no_names_and_no_widths() -> None:
    subject = subject_of(seeded(Blocks)(), torch.randn(2, 3, 6, 6))
    found = structures(prunable(subject), subject.trace)
    assert found["a1"] == found["a2"]
    assert len({found["a1"], found["a3"], found["stem"]}) == 3


def test_structure_knows_the_operators() -> None:
    """A PReLU and a scale have one weight per channel each; only the operator differs."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.act = nn.Linear(4, 8), nn.PReLU(8)
            self.fc2, self.scale = nn.Linear(8, 12), nn.Parameter(torch.ones(12))
            self.fc3 = nn.Linear(12, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc3(self.fc2(self.act(self.fc1(x))) * self.scale)

    subject = subject_of(Net().eval(), torch.randn(2, 4))
    found = structures(prunable(subject), subject.trace)
    assert set(found) == {"fc1", "fc2"}
    assert found["fc1"] != found["fc2"]


@pytest.mark.parametrize("allocator", ["global", "isomorphic"])
def test_isomorphic_compares_only_what_is_alike(allocator: str) -> None:
    """Scores of a3 are a thousand times larger. One threshold spares it; its own kind of structure loses its share."""
    model = seeded(Blocks)()
    with torch.no_grad():
        model.a3.weight.mul_(1000)
    spec = pc.PruningSpec(allocator=allocator, normalizer="none", min_channels=1, round_to=1)
    plan = pc.plan(model, torch.randn(2, 3, 6, 6), spec)
    kept = {cut.group: len(cut.keep) for cut in plan.cuts}
    assert kept.get("a3", 16) == (16 if allocator == "global" else 8)
    if allocator == "isomorphic":
        assert kept["stem"] == 4
        assert kept["a1"] + kept["a2"] == 20
    else:
        assert sum(kept.get(name, width) for name, width in {"stem": 8, "a1": 16, "a2": 24, "a3": 16}.items()) == 32


@pytest.mark.parametrize("allocator", ["global", "isomorphic"])
def test_the_cut_model_is_right(allocator: str) -> None:
    case = PRUNED["residual"]
    result = pc.prune(case.build(), case.inputs(), pc.PruningSpec(allocator=allocator), check="numeric")
    assert result.report.mask_error is not None
    assert result.report.channels_after < result.report.channels_before


@pytest.mark.parametrize("name", ["gated_units", "lstm_head", "pixel_shuffle", "split_even", "attention_sdpa"])
@pytest.mark.parametrize("criterion", ["l2_norm", "reconstruction"])
def test_the_multiple_holds_of_rows_and_of_what_reads_them(name: str, criterion: str) -> None:
    """Where several rows make one channel (gates, halves that are multiplied), 24 rows may be 12 inputs of the next."""
    case = AWKWARD[name]
    model, x = case.build(), case.inputs()
    spec = pc.PruningSpec(ratio=0.4, criterion=criterion, allocator="uniform", round_to=8, min_channels=1)
    plan = pc.plan(model, x, spec, x)
    layers = [t for t, shape in plan.tensors if len(shape) > 1 and t.endswith("weight")]
    cut = [part for part in plan.slices if part.axis < 2 and part.tensor in layers]
    assert cut
    assert {len(part.keep) % 8 for part in cut} == {0}
