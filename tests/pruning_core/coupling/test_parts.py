"""Parts of a split axis that lose positions of their own: heads, and the inputs of grouped convolutions."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pruning_core as pc
from pruning_core.coupling.analysis import Decisions, resolve
from pruning_core.coupling.groups import channel_groups
from pruning_core.inputs import ExampleInputs
from pruning_core.observe.observations import gamma_of
from pruning_core.planner import keeps_function, make_plan
from pruning_core.reorder import Reorder
from pruning_core.study import study
from tests.awkward import AWKWARD
from tests.models import seeded

TOKENS = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))
EXACT = pc.PruningSpec(
    ratio=0.5,
    criterion="l2_norm",
    allocator="uniform",
    min_channels=1,
    round_to=1,
    reshape_axis="inner",
    group_policy="none",
)


class Attention(nn.Module):
    """Heads of four positions; with `shared`, one scale serves the queries of all heads."""

    def __init__(self, heads: int = 2, kv_heads: int = 2, *, shared: bool = False) -> None:
        super().__init__()
        self.heads, self.kv_heads = heads, kv_heads
        self.q, self.k, self.v = (nn.Linear(8, 4 * n) for n in (heads, kv_heads, kv_heads))
        self.scale = nn.Parameter(torch.linspace(0.5, 2, 4)) if shared else 1.0
        self.out = nn.Linear(4 * heads, 8)

    def forward(self, x: Tensor) -> Tensor:
        q = (self.q(x).unflatten(2, (self.heads, -1)) * self.scale).transpose(1, 2)
        k = self.k(x).unflatten(2, (self.kv_heads, -1)).transpose(1, 2)
        v = self.v(x).unflatten(2, (self.kv_heads, -1)).transpose(1, 2)
        k, v = (t.repeat_interleave(self.heads // self.kv_heads, 1) for t in (k, v))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def with_row_norms(layer: nn.Linear | nn.Conv2d, norms: list[float]) -> None:
    """Rows of these lengths."""
    weight = layer.weight.data.flatten(1)
    weight *= (torch.tensor(norms) / weight.norm(dim=1))[:, None]


def test_each_head_keeps_its_own_best_positions() -> None:
    """Values of head 0 are best at 3 and 1, of head 1 at 0 and 2: rows 1, 3, 4, 6."""
    model = seeded(Attention)()
    with_row_norms(model.v, [1, 5, 2, 6, 9, 1, 8, 2])
    result = pc.prune(model, TOKENS, EXACT, check="numeric")
    pruned, kept = result.model, [1, 3, 4, 6]
    assert result.plan.rows_kept("v.weight") == tuple(kept)
    torch.testing.assert_close(pruned.v.weight, model.v.weight[kept])
    torch.testing.assert_close(pruned.v.bias, model.v.bias[kept])
    torch.testing.assert_close(pruned.out.weight, model.out.weight[:, kept])
    assert all(cut.apart for cut in result.plan.cuts)


def test_heads_that_share_their_keys_lose_the_positions_of_these() -> None:
    """Two query heads look at each of two key heads: a position goes from all three."""
    model = seeded(lambda: Attention(4, 2))()
    with_row_norms(model.k, [9, 1, 9, 1, 1, 9, 1, 9])
    with_row_norms(model.q, [1.0] * 16)
    result = pc.prune(model, TOKENS, EXACT, check="numeric")
    assert result.plan.rows_kept("k.weight") == (0, 2, 5, 7)
    assert result.plan.rows_kept("q.weight") == (0, 2, 4, 6, 9, 11, 13, 15)


def test_several_rounds_end_where_one_does() -> None:
    """Nothing is repaired in between, so each round ranks alike: two positions of four, one at a time."""
    model = seeded(Attention)()
    with_row_norms(model.v, [3, 5, 2, 6, 9, 1, 8, 2])
    result = pc.prune(model, TOKENS, replace(EXACT, steps=2), check="numeric")
    assert result.plan.rows_kept("v.weight") == (1, 3, 4, 6)


def test_what_all_parts_share_ties_them() -> None:
    result = pc.prune(seeded(lambda: Attention(shared=True))(), TOKENS, EXACT, check="numeric")
    assert {cut.group: cut.apart for cut in result.plan.cuts} == {"q": False, "v": True}
    assert "group_policy 'none': the positions that a channel of q stands for only go together" in str(result.plan)


@pytest.mark.parametrize("name", ["mha_self", "attention_sdpa", "attention_einsum"])
def test_whole_heads_go_as_a_whole(name: str) -> None:
    """The positions of a head are summed over: none may lose other heads than its neighbours. No values, no second look."""
    case = AWKWARD[name]
    model, x = case.build().to("meta"), case.inputs().to("meta")
    plan = pc.plan(model, x, replace(EXACT, reshape_axis="outer"))
    assert max(cut.positions for cut in plan.cuts) > 1
    assert not any(cut.apart for cut in plan.cuts)


def test_a_sum_over_the_heads_ties_them() -> None:
    result = pc.prune(seeded(Summed)(), TOKENS, EXACT, check="numeric")
    assert [cut.apart for cut in result.plan.cuts] == [False]


class Summed(nn.Module):
    """Every head's values, and their sum over the heads, added to each."""

    def __init__(self) -> None:
        super().__init__()
        self.v, self.out = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        v = self.v(x).unflatten(2, (4, -1))
        return self.out((v + v.sum(2, keepdim=True)).flatten(2))


def grouped() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 6, 3, groups=2), nn.ReLU(), nn.Conv2d(6, 4, 1))


def test_each_group_of_a_convolution_keeps_its_own_best_inputs() -> None:
    """Of the inputs of group 0 the best are 0 and 3, of group 1 they are 1 and 2."""
    model = seeded(grouped)()
    with_row_norms(model[0], [7, 1, 2, 8, 1, 5, 6, 2])
    image = torch.randn(2, 3, 6, 6)
    pruned = pc.prune(model, image, replace(EXACT, exclude=("2",)), check="numeric").model
    torch.testing.assert_close(pruned[0].weight, model[0].weight[[0, 3, 5, 6]])
    torch.testing.assert_close(pruned[2].weight[:3], model[2].weight[:3, [0, 3]])
    torch.testing.assert_close(pruned[2].weight[3:], model[2].weight[3:, [1, 2]])


def transposed() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.ConvTranspose2d(8, 6, 2, 2, groups=2), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 1)
    )


def with_output_norms(layer: nn.ConvTranspose2d, norms: list[float]) -> None:
    """Outputs whose weights have these lengths, group after group."""
    rows = layer.weight.data.unflatten(0, (layer.groups, -1))  # [G, I, O, *K]
    rows *= (torch.tensor(norms).reshape(layer.groups, -1) / rows.square().sum(dim=(1, 3, 4)).sqrt())[:, None, :, None, None]


def test_each_group_of_a_transposed_convolution_keeps_its_own_best_outputs() -> None:
    """Of group 0 the best is 2, of group 1 it is 0. Its weight holds both at the same place of other rows."""
    model = seeded(transposed)()
    with_output_norms(model[2], [1, 2, 8, 9, 3, 4])
    spec = replace(EXACT, ratio=0.6, exclude=("0",))
    result = pc.prune(model, torch.randn(2, 3, 6, 6), spec, check="numeric")
    pruned = result.model
    torch.testing.assert_close(pruned[2].weight, torch.cat([model[2].weight[:4, [2]], model[2].weight[4:, [0]]]))
    torch.testing.assert_close(pruned[2].bias, model[2].bias[[2, 3]])
    torch.testing.assert_close(pruned[3].running_var, model[3].running_var[[2, 3]])
    torch.testing.assert_close(pruned[4].weight, model[4].weight[:, [2, 3]])
    assert [(cut.width, cut.positions, cut.apart) for cut in result.plan.cuts] == [(3, 2, True)]
    assert not result.plan.notes


@pytest.mark.parametrize(("policy", "want"), [("sum", [10.0, 5.0, 12.0]), ("average", [5.0, 2.5, 6.0])])
def test_outputs_that_go_together_are_scored_group_by_group(policy: str, want: list[float]) -> None:
    """1 + 9, 2 + 3 and 8 + 4, and not the length of both together."""
    model = seeded(transposed)()
    with_output_norms(model[2], [1, 2, 8, 9, 3, 4])
    spec = replace(EXACT, normalizer="none", group_policy=policy)
    found = pc.recommend(model, torch.randn(2, 3, 6, 6), spec)
    row = next(row for row in found.rows if row.name == "2")
    assert (row.width, row.score_min, row.score_max) == (6, pytest.approx(min(want)), pytest.approx(max(want)))


def test_under_count_all_parts_lose_what_the_one_with_the_smallest_loss_does() -> None:
    """The four lowest are three of head 0 and one of head 1: each loses one."""
    model = seeded(Attention)()
    with_row_norms(model.v, [1, 2, 3, 9, 4, 5, 6, 7])
    result = pc.prune(model, TOKENS, replace(EXACT, group_policy="count"), check="numeric")
    assert result.plan.rows_kept("v.weight") == (1, 2, 3, 5, 6, 7)


@pytest.mark.parametrize("policy", ["none", "count"])
@pytest.mark.parametrize("criterion", ["taylor", "reconstruction", "nuclear_norm"])
def test_every_kind_of_criterion_and_several_rounds(criterion: str, policy: str) -> None:
    image = torch.randn(2, 3, 6, 6)
    for model, x in ((seeded(Attention)(), TOKENS), (seeded(grouped)(), image), (seeded(transposed)(), image)):
        wide = x.repeat(8, *[1] * (x.ndim - 1)) + 0.1 * torch.randn(16, *x.shape[1:])
        answers = model(wide).argmax(1)
        data = pc.Calibration([(wide, answers)], labelled=True)
        spec = replace(EXACT, criterion=criterion, group_policy=policy, steps=3)
        result = pc.prune(model, x, spec, data, check="numeric")
        again = pc.apply(model, pc.PruningPlan.from_json(result.plan.to_json()), x)
        bare = pc.prune(model, x, replace(spec, compensation="none", recalibrate_bn=False), data, check="numeric")
        assert policy == "count" or any(cut.apart for cut in result.plan.cuts)
        if criterion != "nuclear_norm" and policy == "none":  # repairs between the rounds may change what goes next
            assert [tuple(p.shape) for p in again.parameters()] == [tuple(p.shape) for p in bare.model.parameters()]


@pytest.mark.parametrize(
    "name",
    ["attention_sdpa", "linear_attention", "mha_cross", "transformer_encoder", "resnext", "gqa_rotary", "window_attention"],
)
def test_as_much_goes_as_with_the_same_positions_everywhere(name: str) -> None:
    case = AWKWARD[name]
    model, x = case.build(), case.inputs()
    own, same = (pc.prune(model, x, replace(EXACT, group_policy=p), check="numeric") for p in ("none", "sum"))
    assert own.report.after.params == same.report.after.params
    assert any(cut.apart for cut in own.plan.cuts)


def test_groups_of_different_numbers_in_a_row_are_tied() -> None:
    """Two groups feed three: no cut of their own positions keeps both numbers equal."""
    case = AWKWARD["grouped_chain"]
    own, same = (
        pc.prune(case.build(), case.inputs(), replace(EXACT, group_policy=p), check="numeric") for p in ("none", "sum")
    )
    assert own.report.after.params == same.report.after.params


def test_an_order_that_changes_the_function_is_found() -> None:
    model = seeded(Attention)()
    subject = study(model, ExampleInputs.of(TOKENS))
    plan, draft = make_plan(subject, EXACT)
    assert draft.reorders
    assert keeps_function(subject, draft)
    turned = tuple(np.roll(np.arange(8), 1).tolist())
    draft.reorders = [Reorder(tensor="q.weight", axis=0, order=turned)]
    assert not keeps_function(subject, draft)
    with pytest.raises(pc.VerifyError, match="not seen to be independent"):
        pc.apply(model, replace(plan, reorders=tuple(draft.reorders)), TOKENS)


class Branches(nn.Module):
    """The same channels read in two and in four groups."""

    def __init__(self, first: int, then: int) -> None:
        super().__init__()
        self.a, self.out = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 1)
        self.b, self.c = (nn.Conv2d(16, 16, 3, padding=1, groups=n) for n in (first, then))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        return self.out((self.b(x) + self.c(x)).relu())


@pytest.mark.parametrize("groups", [(2, 4), (4, 2)])
def test_channels_that_are_balanced_in_two_ways_are_tied(groups: tuple[int, int]) -> None:
    image = torch.randn(2, 3, 6, 6)
    own, same = (
        pc.prune(seeded(lambda: Branches(*groups), 3)(), image, replace(EXACT, group_policy=p), check="numeric")
        for p in ("none", "sum")
    )
    assert own.report.after.params == same.report.after.params


class TwoReaders(nn.Module):
    def __init__(self, layer: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.a, self.out = nn.Conv2d(3, 8, 1), nn.Conv2d(6, 4, 1)
        self.grouped, self.dense = layer(8, 6, 3, groups=2, padding=1), nn.Conv2d(8, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.out(self.grouped(y)) + self.out(self.dense(y))


@pytest.mark.parametrize("policy", ["sum", "none", "count"])
@pytest.mark.parametrize("layer", [nn.Conv2d, nn.ConvTranspose2d])
def test_a_grouped_reader_has_its_say_beside_a_dense_one(layer: Callable[..., nn.Module], policy: str) -> None:
    """The grouped one needs 2, 3, 6, 7, and is a thousand times as loud."""
    torch.manual_seed(0)
    model, images = TwoReaders(layer).eval(), torch.randn(64, 3, 6, 6)
    with torch.no_grad():
        model.grouped.weight.mul_(10)
        model.grouped.weight[([0, 1, 4, 5],) if layer is nn.ConvTranspose2d else (slice(None), [0, 1])] = 0
        model.dense.weight.mul_(0.1)[:, [2, 3, 6, 7]] *= 0.01
    spec = replace(EXACT, criterion="reconstruction", group_policy=policy, compensation="none", exclude=("grouped", "dense"))
    assert pc.plan(model, images[:2], spec, images).rows_kept("a.weight") == (2, 3, 6, 7)


@pytest.mark.parametrize("layer", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("allocator", ["uniform", "slamp"])
def test_each_group_of_a_reader_gives_up_what_it_can_mend(layer: Callable[..., nn.Module], allocator: str) -> None:
    """In group 0 channel 1 is twice channel 0, in group 1 channel 7 is half of channel 5: one of each pair goes."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 8, 1), layer(8, 6, 3, groups=2, padding=1), nn.Conv2d(6, 4, 1)).eval()
    with torch.no_grad():
        for one, other, factor in ((1, 0, 2.0), (7, 5, 0.5)):
            model[0].weight[one], model[0].bias[one] = factor * model[0].weight[other], factor * model[0].bias[other]
    images = torch.randn(64, 8, 6, 6)
    spec = replace(EXACT, ratio=0.25, criterion="reconstruction", allocator=allocator, exclude=("1",))
    kept = pc.plan(model, images[:2], spec, images).rows_kept("0.weight")
    assert kept is not None
    gone = set(range(8)) - set(kept)
    assert gone & {0, 1}
    assert gone & {5, 7}
    assert len(gone) == 2


class Insistent(nn.Module):
    """In bfloat16, and no other precision will do; it draws numbers too."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()
        self.bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.bfloat16
        return self.attention(F.dropout(x, 0.1, training=True))


def test_a_model_that_insists_on_its_precision_and_draws_numbers() -> None:
    plan = pc.plan(Insistent().eval(), TOKENS.bfloat16(), EXACT)
    assert plan.cuts
    assert all(cut.apart for cut in plan.cuts)


def test_the_last_layer_has_parts_too() -> None:
    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 6, 3, groups=2)))()
    plan = pc.prune(model, torch.randn(2, 3, 6, 6), EXACT, check="numeric").plan
    assert [cut.apart for cut in plan.cuts] == [True]


def test_channels_by_index_go_from_their_own_parts() -> None:
    model = seeded(Attention)()
    spec = pc.PruningSpec(index={"v": "0, 6"}, group_policy="none", reshape_axis="inner")
    result = pc.prune(model, TOKENS, spec, check="numeric")
    assert result.plan.rows_kept("v.weight") == (1, 2, 3, 4, 5, 7)
    assert not result.plan.notes
    with pytest.raises(pc.SpecError, match="lose different numbers"):
        pc.plan(model, TOKENS, replace(spec, index={"v": "0, 1, 6"}))


def test_outputs_of_a_transposed_convolution_by_index() -> None:
    """They are numbered as they come out: 1 and 5 are the second of group 0 and the third of group 1."""
    model = seeded(transposed)()
    spec = pc.PruningSpec(index={"2": "1, 5"}, group_policy="none")
    pruned = pc.prune(model, torch.randn(2, 3, 6, 6), spec, check="numeric").model
    torch.testing.assert_close(pruned[4].weight, model[4].weight[:, [0, 2, 3, 4]])
    tied = pc.prune(model, torch.randn(2, 3, 6, 6), replace(spec, index={"2": "1, 4"}, group_policy="sum")).model
    torch.testing.assert_close(tied[4].weight, model[4].weight[:, [0, 2, 3, 5]])


@pytest.mark.parametrize("order", [(0, 0, 2, 3), (1, 2, 3, 4), (0.0, 1.0, 2.0, 3.0)])
def test_an_order_names_every_place_once(order: tuple[int, ...]) -> None:
    with pytest.raises(pc.PlanError, match="every place of a block once"):
        Reorder(tensor="q.weight", axis=0, order=order)


@pytest.mark.parametrize(
    ("axis", "blocks", "order"), [(1, 2, (2, 1, 0, 3)), (0, 2, (1, 0, 3, 2)), (1, 0, ()), (-1, 1, (0, 1)), (1, 3, (0, 1))]
)
def test_an_order_stays_in_its_blocks(axis: int, blocks: int, order: tuple[int, ...]) -> None:
    with pytest.raises(pc.PlanError, match="block"):
        Reorder(tensor="q.weight", axis=axis, blocks=blocks, order=order)


def test_without_values_parts_are_told_apart_all_the_same() -> None:
    with torch.device("meta"):
        model = grouped()
    plan = pc.plan(model, torch.randn(2, 3, 6, 6, device="meta"), EXACT)
    assert [cut.apart for cut in plan.cuts if cut.positions > 1] == [True]


class InTwoGroupings(nn.Module):
    """One weight [8, 4] gives 8 outputs in two groups and 16 in four, each with a norm behind it."""

    def __init__(self, order: tuple[int, int] = (4, 2)) -> None:
        super().__init__()
        self.order = order
        self.a, self.weight = nn.Conv2d(3, 8, 1), nn.Parameter(torch.randn(8, 4, 1, 1))
        self.two, self.four = nn.BatchNorm2d(8), nn.BatchNorm2d(16)
        self.out = nn.Conv2d(24, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).relu()
        made = {n: F.conv_transpose2d(y, self.weight, groups=n) for n in self.order}
        return self.out(torch.cat((self.two(made[2]), self.four(made[4])), 1))


@pytest.mark.parametrize("criterion", ["l2_norm", "activation"])
@pytest.mark.parametrize("policy", ["sum", "none"])
def test_a_weight_in_two_groupings(criterion: str, policy: str) -> None:
    """What a map or a norm says is of one of them only, and not taken for the weight's."""
    model, image = seeded(InTwoGroupings)(), torch.randn(2, 3, 6, 6)
    spec = replace(EXACT, criterion=criterion, group_policy=policy)
    plan = pc.prune(model, image, spec, torch.randn(16, 3, 6, 6), check="numeric").plan
    assert plan.cuts


@pytest.mark.parametrize("order", [(2, 4), (4, 2)])
def test_a_weight_in_two_groupings_has_no_norm_of_its_own(order: tuple[int, int]) -> None:
    subject = study(seeded(lambda: InTwoGroupings(order))(), ExampleInputs.of(torch.randn(2, 3, 6, 6)))
    assert ("weight", 1) not in gamma_of(subject)
    members = [m for g in channel_groups(resolve(subject.trace, Decisions())) for m in g.members]
    assert [(m.blocks, len(m.channel_of)) for m in members if (m.tensor, m.axis) == ("weight", 1)] == [(2, 8)]
