"""The retrace must catch a pruned model that runs and yet reads the wrong channels."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pruning_core as pc
from pruning_core.inputs import ExampleInputs
from pruning_core.planner import make_plan, throwaway
from pruning_core.study import study
from pruning_core.verify import Mismatch, compare
from tests.awkward import AWKWARD
from tests.models import seeded


class TwoHalves(nn.Module):
    """Reads its channels by positions that it holds itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = 0, 24
        self.width = 24
        self.conv = nn.Conv2d(3, 48, 3)
        self.left, self.right = nn.Conv2d(24, 8, 1), nn.Conv2d(24, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        left = y[:, self.first : self.first + self.width]
        return self.left(left) + self.right(y[:, self.second : self.second + self.width])


def test_shifted_channels_are_caught_though_all_shapes_fit() -> None:
    subject = study(seeded(TwoHalves)(), ExampleInputs.of(torch.randn(1, 3, 8, 8)))
    plan, draft = make_plan(subject, pc.PruningSpec(ratio=0.5))
    pruned = throwaway(subject, list(plan.slices), list(plan.mends), [])
    assert (pruned.width, pruned.second) == (12, 12)
    assert compare(draft.prediction, subject.retrace(pruned)) is None
    pruned.second = 11
    found = compare(draft.prediction, subject.retrace(pruned))
    assert found is not None
    assert found.kind == "argument"


def test_a_changed_constant_is_caught() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.scale = nn.Linear(8, 16), nn.Linear(16, 4), 0.5

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x) * self.scale)

    subject = study(seeded(Scaled)(), ExampleInputs.of(torch.randn(2, 8)))
    plan, draft = make_plan(subject, pc.PruningSpec(ratio=0.5))
    pruned = throwaway(subject, list(plan.slices), list(plan.mends), [])
    pruned.scale = 1.0
    found = compare(draft.prediction, subject.retrace(pruned))
    assert found is not None
    assert (found.kind, found.factor) == ("constant", 2.0)


def test_an_unknown_op_locks_and_says_so() -> None:
    @torch.library.custom_op("secateur_test::opaque", mutates_args=())
    def opaque(x: Tensor) -> Tensor:
        return x.flip(1).clone()

    opaque.register_fake(lambda x: torch.empty_like(x))
    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, 16, 1), _Call(opaque), nn.Conv2d(16, 32, 1), nn.Conv2d(32, 4, 1)))()
    plan = pc.plan(model, torch.randn(1, 3, 4, 4), pc.PruningSpec())
    reasons = {lock.group: lock.reason for lock in plan.locked}
    assert reasons["0"] == "locked: no rule for secateur_test.opaque"
    assert [cut.layers for cut in plan.cuts] == [("2",)]


def test_a_rule_for_a_custom_op_in_five_lines() -> None:
    @torch.library.custom_op("secateur_test::swish", mutates_args=())
    def swish(x: Tensor) -> Tensor:
        return x * x.sigmoid()

    swish.register_fake(lambda x: torch.empty_like(x))

    @pc.rule("secateur_test.swish")
    def swish_rule(ctx: pc.Context, x: pc.Sym) -> object:
        return x.axes

    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, 16, 1), _Call(swish), nn.Conv2d(16, 4, 1)))()
    result = pc.prune(model, torch.randn(1, 3, 4, 4), pc.PruningSpec(), check="numeric")
    assert [cut.layers for cut in result.plan.cuts] == [("0",)]
    with pytest.raises(pc.SpecError, match="exists"):
        pc.rule("secateur_test.swish")(swish_rule)


class _Call(nn.Module):
    def __init__(self, fn: object) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x)  # type: ignore[operator, no-any-return]


def test_a_number_made_into_a_tensor_is_seen() -> None:
    """On the meta device its value would leave no trace: RAFT divides by the root of a tensor made of a width."""

    class Divides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(8, 32), nn.Linear(32, 24), nn.Linear(24, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            return self.c(self.b(y / torch.sqrt(torch.tensor(float(y.shape[-1])))).relu())

    result = pc.prune(seeded(Divides)(), torch.randn(2, 8), pc.PruningSpec(), check="numeric")
    assert [cut.layers for cut in result.plan.cuts] == [("b",)]
    assert any("made into a tensor depends on a size" in lock.reason for lock in result.plan.locked)


class SharedQueries(nn.Module):
    """Attention with PyTorch's own scale, whose queries (and keys, if `both`) go somewhere else, too."""

    def __init__(self, both: bool) -> None:
        super().__init__()
        self.heads, self.both = 2, both
        self.q, self.k, self.v = (nn.Linear(16, 32) for _ in range(3))
        self.out, self.side = nn.Linear(32, 4), nn.Linear(32, 4)

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)
        y = nn.functional.scaled_dot_product_attention(self.split(q), self.split(k), self.split(v))
        return self.out(y.transpose(1, 2).flatten(2)) + self.side(q + k if self.both else q)


@pytest.mark.parametrize(("both", "scaled"), [(False, {"k.weight", "k.bias"}), (True, set())])
def test_only_rows_that_nothing_else_reads_are_scaled(both: bool, scaled: set[str]) -> None:
    model = seeded(lambda: SharedQueries(both))()
    result = pc.prune(model, torch.randn(2, 5, 16), pc.PruningSpec(min_channels=1), check="numeric")
    assert {r.tensor for r in result.plan.rescales} == scaled


def test_a_scale_is_folded_through_rotary_positions() -> None:
    """Sums, products with tables, interleaving and a bias in three parts lie between the layer and the attention."""
    case = AWKWARD["rotary_sdpa"]
    result = pc.prune(case.build(), case.inputs(), pc.PruningSpec(ratio=0.5), check="numeric")
    assert {(r.tensor, min(r.positions), len(r.positions)) for r in result.plan.rescales} == {
        ("qkv.weight", 0, 48),
        ("q_bias", 0, 48),
    }
    assert any(cut.tensor == "qkv.weight" and cut.axis == 0 for cut in result.plan.slices)


class Folded(nn.Module):
    """A scale over a width, with a way round it that the scaled rows must not take."""

    def __init__(self, way: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.way, self.a, self.b = way, nn.Linear(8, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b(self.way(y, y.sin() if y.shape[0] > 99 else y))


WAYS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], bool]] = {
    "alone": (lambda y, _: (y / y.shape[1]).relu(), True),
    "sum_of_both": (lambda y, z: ((y + z.flip(1)) / y.shape[1]).relu(), True),
    "times_table": (lambda y, _: ((y * y.new_ones(1)) / y.shape[1]).relu(), True),
    "plus_constant": (lambda y, _: ((y + 1) / y.shape[1]).relu(), False),
    "plus_tensor": (lambda y, _: ((y + torch.ones_like(y)) / y.shape[1]).relu(), False),
    "squared": (lambda y, z: ((y * z) / y.shape[1]).relu(), False),
    "read_beside": (lambda y, z: (y / y.shape[1]).relu() + z, False),
    "after_relu": (lambda y, _: y.relu() / y.shape[1], False),
    "written_before": (lambda y, _: ((y * 1.0).add_(1) / y.shape[1]).relu(), False),
}


@pytest.mark.parametrize("name", sorted(WAYS))
def test_a_constant_is_folded_only_where_all_that_it_meets_scales(name: str) -> None:
    way, folds = WAYS[name]
    model = seeded(lambda: nn.Sequential(Folded(way), nn.Linear(4, 64), nn.Linear(64, 4)))()
    result = pc.prune(model, torch.randn(3, 8), pc.PruningSpec(min_channels=2), check="numeric")
    assert bool(result.plan.rescales) is folds


def test_group_norm_loses_whole_groups_and_knows_it() -> None:
    """Eight groups of four: half of the groups go, the statistics of the others stay exact."""
    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, 32, 1), nn.GroupNorm(8, 32), nn.ReLU(), nn.Conv2d(32, 4, 1)))()
    result = pc.prune(model, torch.randn(1, 3, 4, 4), pc.PruningSpec(), check="numeric")
    norm = result.model[1]  # type: ignore[index]
    assert (norm.num_groups, norm.num_channels) == (4, 16)
    assert not result.plan.approximate


class Picks(nn.Module):
    """Reads one channel by a position: the axis is gone afterwards, so no id shows which channel it was."""

    def __init__(self, held: bool) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 32, 3), nn.Linear(32, 4)
        self.held, self.channel = held, 9

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        picked = y[:, self.channel] if self.held else y[:, 9]
        return self.fc(y.mean((2, 3))) + picked.mean((1, 2))[:, None]


def test_a_channel_picked_by_a_position_is_the_planned_one() -> None:
    """An attribute that holds the position follows the cut; a literal cannot, so the channels stay."""
    x = torch.randn(2, 3, 8, 8)
    held = pc.prune(seeded(lambda: Picks(held=True))(), x, pc.PruningSpec(), check="numeric")
    kept = next(c.keep for c in held.plan.slices if c.tensor == "conv.weight" and c.axis == 0)
    assert kept[held.model.channel] == 9  # type: ignore[index]
    assert len(kept) < 32
    with pytest.raises(pc.ModelError, match="no channel of this model can be pruned"):
        pc.prune(seeded(lambda: Picks(held=False))(), x, pc.PruningSpec())


def caught(model: nn.Module, x: Tensor, spoil: Callable[[nn.Module], None]) -> Mismatch | None:
    """Plan, spoil the pruned throw-away copy, and look at it again."""
    subject = study(model, ExampleInputs.of(x))
    plan, draft = make_plan(subject, pc.PruningSpec(ratio=0.5))
    pruned = throwaway(subject, list(plan.slices), list(plan.mends), list(plan.rescales))
    assert compare(draft.prediction, subject.retrace(pruned), plan.rescales) is None
    spoil(pruned)
    return compare(draft.prediction, subject.retrace(pruned), plan.rescales)


class Numbers(nn.Module):
    """One number or choice of each kind, all of which the pruned run has to repeat."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 32), nn.Linear(32, 4)
        self.eps, self.value, self.order, self.start, self.shift = 1e-5, 0.5, 2.0, 2, 3
        self.first, self.returns, self.number, self.mode = True, (0, 1), 7, "ij,jk->ik"
        self.register_buffer("table", torch.linspace(0, 1, 12))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, int]:
        y = self.a(x)
        table = F.pad(torch.roll(self.table[self.start : self.start + 6], self.shift, 0), (0, 2), value=self.value)
        size = (
            torch.linalg.vector_norm(table, self.order) + F.batch_norm(table[None], table, table.abs(), eps=self.eps).sum()
        )
        one, two = y.sin(), y.cos()
        y = one - two if self.first else two - one
        out = self.b(y) * size
        both = (out, torch.einsum(self.mode, out, out.mT))
        return both[self.returns[0]], both[self.returns[1]], self.number


@pytest.mark.parametrize(
    ("attribute", "value", "kind"),
    [
        ("eps", 1e-3, "argument"),
        ("value", 0.7, "argument"),
        ("order", 3.0, "argument"),
        ("start", 3, "argument"),
        ("shift", 2, "argument"),
        ("mode", "ij,jk->ki", "argument"),
        ("first", False, "argument"),
        ("returns", (1, 0), "different"),
        ("number", 8, "different"),
    ],
)
def test_every_argument_of_every_call_is_compared(attribute: str, value: object, kind: str) -> None:
    found = caught(seeded(Numbers)(), torch.randn(4, 8), lambda pruned: setattr(pruned, attribute, value))
    assert found is not None
    assert found.kind == kind


def test_another_constant_than_the_folded_one_is_caught() -> None:
    """A constant that is folded into weights must have changed by what was folded, not by anything."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.more = nn.Linear(8, 32), nn.Linear(32, 4), 1.0

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            return self.b((y * (self.more / y.shape[1])).relu())

    x = torch.randn(2, 8)
    assert pc.plan(seeded(Scaled)(), x, pc.PruningSpec()).rescales
    found = caught(seeded(Scaled)(), x, lambda pruned: setattr(pruned, "more", 1.5))
    assert found is not None
    assert found.kind == "constant"
    assert found.factor == pytest.approx(3.0)


def test_other_tensors_of_the_same_shapes_are_caught() -> None:
    """Two outputs of one shape that change places: no shape and no number shows it."""

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.turned = nn.Linear(8, 32), nn.Linear(32, 4), nn.Linear(32, 4), False

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.a(x)
            one, two = self.b(y), self.c(y)
            return (two, one) if self.turned else (one, two)

    found = caught(seeded(Pair)(), torch.randn(2, 8), lambda pruned: setattr(pruned, "turned", True))
    assert found is not None
    assert found.detail == "other tensors are returned"


def test_rounding_decides_no_branch() -> None:
    """How many rows are left hangs on the last bits of single precision, as the boxes of a detector do."""

    class Rounds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(8, 1000), nn.Linear(1000, 256), nn.Linear(1000, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            rows = int(((self.b(y) * 2**22) % 2 > 1).sum().item())
            return self.c(y.relu()) + torch.zeros(rows, 1).sum(0)

    model = seeded(Rounds)()
    result = pc.prune(model, torch.randn(8, 8, generator=torch.Generator().manual_seed(0)), pc.PruningSpec())
    assert "a" in {layer for cut in result.plan.cuts for layer in cut.layers}
