"""Criteria that look at every slice of a group: `taylor` by hand, and against what a removal does to the loss."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F

import pruning_core as pc
from pruning_core.calibration import Calibration
from pruning_core.coupling.analysis import Decisions, resolve
from pruning_core.coupling.groups import Member, channel_groups
from pruning_core.observe.observations import observe
from pruning_core.scoring import Scorer, scored
from pruning_core.slices import view_of_slices
from tests.models import seeded
from tests.pruning_core.observe.nets import subject_of

RAW = pc.PruningSpec(criterion="taylor", normalizer="none").resolved(False)


def taylor_of(
    model: nn.Module, calibration: Calibration, example: Tensor, spec: pc.PruningSpec = RAW
) -> dict[str, list[float]]:
    subject = subject_of(model, example)
    scorer = Scorer(subject.tensors, "taylor", observe(subject, calibration, {"gradients"}))
    groups = [g for g in channel_groups(resolve(subject.trace, Decisions())) if not g.reason]
    return {g.name: scored(g, scorer, spec).scores.tolist() for g in groups}


def output_itself(outputs: Tensor, _: object) -> Tensor:
    return outputs.mean()


def test_filters_biases_and_consumers_count_by_hand() -> None:
    """L = w2 . (W1 x + b): filter and bias of channel i have w2_i h_i together, the consumer's column w2_i h_i again.

    The filters alone, w2_i (W1_i x) = 15, 3, 4, would keep channel 0, which is silent: h_0 = 0.
    """
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 1], [3, 0], [0, 1]]))
        net[0].bias.copy_(torch.tensor([-3.0, 1, 0.5]))  # h = 0, 4, 2.5 at x = (1, 2)
        net[1].weight.copy_(torch.tensor([[5.0, 1, -2]]))
    x = torch.tensor([[1.0, 2]])
    found = taylor_of(net, Calibration([(x, x)], labelled=True, loss=output_itself), x)
    assert found == {"0": pytest.approx([0.0, 8.0, 10.0])}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 24, 3), nn.BatchNorm2d(24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.bn(self.conv(x))).mean((2, 3)))


def test_it_ranks_channels_like_the_change_of_the_loss() -> None:
    """Every channel removed alone. A shift of BatchNorm decides who speaks, and the filters do not know of it."""
    net = seeded(Net)()
    with torch.no_grad():
        net.get_parameter("bn.bias").copy_(torch.linspace(-1.5, 2.5, 24))
        net.get_parameter("fc.weight").mul_(0.2)
    rng = torch.Generator().manual_seed(0)
    x, target = torch.randn(32, 3, 6, 6, generator=rng), torch.randint(2, (32,), generator=rng)
    calibration = Calibration([(x, target)], labelled=True)

    def loss(model: nn.Module) -> float:
        return F.cross_entropy(model(x), target).item()

    with torch.no_grad():
        changes = [
            abs(loss(pc.prune(net, x[:2], pc.PruningSpec(index={"conv": (i,)}, compensation="none")).model) - loss(net))
            for i in range(24)
        ]
    scores = taylor_of(net, calibration, x[:2])["conv"]
    subject = subject_of(net, x[:2])
    gradients = observe(subject, calibration, {"gradients"}).gradients
    filters = (subject.tensors["conv.weight"].detach() * gradients["conv.weight"]).sum((1, 2, 3)).abs()
    assert spearmanr(scores, changes).statistic > 0.95
    assert spearmanr(filters.numpy(), changes).statistic < 0.7


def test_an_entry_counts_once_for_its_channel() -> None:
    """A square weight whose rows and columns are the same channels: row i + column i - the entry that both have."""
    weight, grad = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(0))
    channel_of = np.array([1, 0, -1, 1])
    members = [Member("w", 0, True, channel_of), Member("w", 1, False, channel_of)]
    for pair in (members, members[::-1]):
        view = view_of_slices(pair, 2, {"w": weight}, {"w": grad})
        assert view.grad_CR is not None
        effect = weight * grad
        mine = [(channel_of[:, None] == c) | (channel_of == c) for c in range(2)]
        want = torch.stack([effect[torch.from_numpy(m)].sum() for m in mine])
        torch.testing.assert_close((view.weight_CR * view.grad_CR).sum(1), want)


def test_channels_with_several_positions_or_none() -> None:
    grad = torch.tensor([1.0, 2, 3, 4, 5])
    members = [Member("b", 0, True, np.array([2, 0, -1, 2, 0]))]
    view = view_of_slices(members, 3, {"b": torch.ones(5)}, {"b": grad})
    assert view.grad_CR is not None
    assert view.grad_CR.tolist() == [[2, 5], [0, 0], [1, 4]]
    assert view.weight_CR.tolist() == [[1, 1], [0, 0], [1, 1]]


def test_complex_entries_are_pairs() -> None:
    weight = torch.tensor([[1 + 2j, 3 - 1j], [0 + 1j, 2 + 0j]])
    pairs = torch.view_as_real(weight)
    members = [Member("w", axis, axis == 0, np.arange(2)) for axis in (0, 1)]
    view = view_of_slices(members, 2, {"w": weight}, {"w": pairs})
    assert view.grad_CR is not None
    # |w|^2 of row and column, the diagonal once: 5 + 10 + 1, 1 + 4 + 10
    assert (view.weight_CR * view.grad_CR).sum(1).tolist() == [16, 15]


def test_blocks_of_rows_have_channels_of_their_own_on_an_axis() -> None:
    """Rows 0 and 1 read channels 0 1, rows 2 and 3 read 2 3; row k makes channel k, so (0, 0), (1, 1), ... count once."""
    effect = torch.arange(8.0).reshape(4, 2)
    members = [Member("w", 0, True, np.arange(4)), Member("w", 1, False, np.arange(4), blocks=2)]
    view = view_of_slices(members, 4, {"w": torch.ones(4, 2)}, {"w": effect})
    assert view.grad_CR is not None
    rows, columns = [1, 5, 9, 13], [0 + 2, 1 + 3, 4 + 6, 5 + 7]
    once = [0, 3, 4, 7]
    assert view.grad_CR.sum(1).tolist() == [r + c - o for r, c, o in zip(rows, columns, once, strict=True)]


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.n, self.b, self.fc = (
            nn.Conv2d(3, 16, 1),
            nn.BatchNorm2d(16),
            nn.Conv2d(16, 16, 3, groups=4),
            nn.Linear(16, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.b(self.n(self.a(x)).relu()).relu().mean((2, 3)))


@pytest.mark.parametrize("policy", ["sum", "average", "count", "none"])
def test_grouped_convolutions_under_every_group_policy(policy: str) -> None:
    x, target = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 4
    spec = pc.PruningSpec(criterion="taylor", group_policy=policy, min_channels=1, round_to=1)
    result = pc.prune(seeded(Grouped)(), x[:2], spec, Calibration([(x, target)], labelled=True))
    cut_groups = {cut.group for cut in result.plan.cuts}
    assert cut_groups == {"a", "b"} or (policy == "count" and cut_groups)  # `count`: one group that loses none keeps all
    for cut in result.plan.slices:
        if cut.tensor in {"a.weight", "b.weight"} and cut.axis == 0:
            assert len(set(np.bincount(np.array(cut.keep) // 4, minlength=4))) == 1  # as many in every group
            assert len(cut.keep) == 8 or policy == "count"
