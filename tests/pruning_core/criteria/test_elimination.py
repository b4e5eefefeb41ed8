"""Backward elimination against least squares that NumPy solves anew for every subset."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pruning_core.criteria import elimination
from pruning_core.criteria.elimination import Reader, eliminate, repair, with_common_constant
from pruning_core.criteria.reconstruction import FRACTIONS, along_order


def least_error(x: Tensor, w: Tensor, kept: list[int]) -> float:
    """Mean over rows of the squared error of the outputs, with the kept inputs doing their best."""
    y = (x @ w).numpy()
    fit, *_ = np.linalg.lstsq(x[:, kept].numpy(), y, rcond=None)
    return float(((y - x[:, kept].numpy() @ fit) ** 2).sum() / len(y))


@pytest.fixture(autouse=True)
def _hardly_any_ridge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elimination, "RIDGE", 1e-12)


def sample(rows: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(3)
    mix = torch.randn(inputs, inputs, generator=rng, dtype=torch.float64)
    return torch.randn(rows, inputs, generator=rng, dtype=torch.float64) @ mix, torch.randn(
        inputs, outputs, generator=rng, dtype=torch.float64
    )


def test_each_removal_costs_what_least_squares_says() -> None:
    x, w = sample(200, 6, 4)
    reader = Reader((x.T @ x / len(x))[None], w[None], torch.arange(6)[:, None])
    damage = eliminate([reader], 6)
    kept, last = list(range(6)), 0.0
    for channel in damage.argsort(stable=True).tolist()[:-1]:
        best = min(kept, key=lambda i: least_error(x, w, [k for k in kept if k != i]))
        assert channel == best
        kept.remove(channel)
        now = least_error(x, w, kept)
        assert float(damage[channel]) == pytest.approx(now - last, rel=1e-6)
        last = now


def test_one_constant_for_all_kernel_positions_is_the_joint_least_squares() -> None:
    """The last of three inputs goes; two outputs of three positions each. NumPy solves for six weights and a bias."""
    x, w = sample(300, 3, 6)
    x += torch.tensor([1.0, -2.0, 3.0])
    with_one = torch.cat([x, torch.ones(300, 1, dtype=torch.float64)], dim=1)
    gram = with_one.T @ with_one / len(x)
    kept, gone = torch.tensor([0, 1]), torch.tensor([2])
    moved = repair(gram, gone, torch.tensor([0, 1, 3]), constant=True).T @ w[2:]
    found = with_common_constant(moved, gram, kept, taps=3)
    for output in range(2):
        mine = slice(3 * output, 3 * output + 3)
        design = np.zeros((900, 7))
        for tap in range(3):
            design[300 * tap : 300 * tap + 300, 2 * tap : 2 * tap + 2] = x[:, :2].numpy()
        design[:, 6] = 1
        wanted = (x[:, 2:] @ w[2:, mine]).T.flatten().numpy()
        best, *_ = np.linalg.lstsq(design, wanted, rcond=None)
        assert found[:2, mine].T.flatten().tolist() == pytest.approx(best[:6].tolist(), rel=1e-3)
        assert found[2, mine].tolist() == pytest.approx([best[6]] * 3, rel=1e-3)


def test_readers_of_some_channels_are_one_that_sees_no_more_of_them() -> None:
    """Two groups of a convolution, each with channels of its own: the Gram matrix of all, without what lies between."""
    x, w = sample(200, 8, 4)
    gram = x.T @ x / len(x)
    gram[:4, 4:] = gram[4:, :4] = 0
    whole = eliminate([Reader(gram[None], w[None], torch.arange(8)[:, None])], 8)
    halves = [
        Reader(
            gram[None, k : k + 4, k : k + 4], w[None, k : k + 4], torch.arange(4)[:, None], channels=torch.arange(k, k + 4)
        )
        for k in (0, 4)
    ]
    torch.testing.assert_close(eliminate(halves, 8), whole)


def test_channels_of_several_inputs_and_several_readers_go_as_one() -> None:
    x, w = sample(300, 6, 3)
    other, v = sample(300, 3, 2)
    pairs = torch.tensor([[0, 3], [1, 4], [2, 5]])
    readers = [
        Reader((x.T @ x / len(x))[None], w[None], pairs),
        Reader((other.T @ other / len(other))[None], v[None], torch.arange(3)[:, None]),
    ]

    def cost(kept: list[int]) -> float:
        return least_error(x, w, pairs[kept].flatten().tolist()) + least_error(other, v, kept)

    first = min(range(3), key=lambda i: cost([k for k in range(3) if k != i]))
    damage = eliminate(readers, 3)
    assert int(damage.argmin()) == first
    assert float(damage.min()) == pytest.approx(cost([k for k in range(3) if k != first]), rel=1e-6)


def test_groups_of_a_convolution_add_up() -> None:
    x, w = sample(200, 4, 3)
    z, v = sample(250, 4, 3)
    members = torch.arange(4)[:, None]
    gram = torch.stack([x.T @ x / len(x), z.T @ z / len(z)])
    both = eliminate([Reader(gram, torch.stack([w, v]), members)], 4)
    apart = eliminate([Reader(gram[:1], w[None], members), Reader(gram[1:], v[None], members)], 4)
    torch.testing.assert_close(both, apart)


def test_removals_that_cost_alike_keep_their_order() -> None:
    """Of four copies three go for nothing, and of dead inputs all: whoever sorts the damages finds the order again."""
    x, w = sample(200, 3, 2)
    x = torch.cat([x, x[:, :1], x[:, :1], x[:, :1], torch.zeros(200, 2, dtype=torch.float64)], dim=1)
    w = torch.cat([w, w[:1], w[:1], w[:1], torch.ones(2, 2, dtype=torch.float64)])
    damage = eliminate([Reader((x.T @ x / len(x))[None], w[None], torch.arange(8)[:, None])], 8)
    assert len(damage.unique()) == 8
    compared = along_order(damage.numpy(), np.linspace(1, 5, len(FRACTIONS)))
    assert np.argsort(-compared, kind="stable").tolist() == damage.argsort(descending=True, stable=True).tolist()


def test_a_copy_of_another_channel_goes_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elimination, "RIDGE", 1e-6)
    x, w = sample(200, 5, 4)
    x[:, 3] = 2 * x[:, 1]
    damage = eliminate([Reader((x.T @ x / len(x))[None], w[None], torch.arange(5)[:, None])], 5)
    assert int(damage.argmin()) in {1, 3}
    assert float(damage.min()) < 1e-4 * float(damage.median())


def test_dead_and_constant_inputs_are_no_trouble() -> None:
    x, w = sample(100, 4, 2)
    x[:, 2] = 0
    x[:, 3] = 5
    damage = eliminate([Reader((x.T @ x / len(x))[None], w[None], torch.arange(4)[:, None])], 4)
    assert bool(damage.isfinite().all())
    assert int(damage.argmin()) == 2


def test_wide_groups_lose_several_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elimination, "STEPS", 2)
    x, w = sample(100, 6, 2)
    damage = eliminate([Reader((x.T @ x / len(x))[None], w[None], torch.arange(6)[:, None])], 6)
    assert bool((damage >= 0).all())
    assert bool(damage.isfinite().all())


def test_of_two_copies_one_stays_though_several_go_at_once() -> None:
    """512 channels, each twice: half can go for next to nothing, as long as it is one of each pair."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(1024, 256, generator=rng, dtype=torch.float64).relu().repeat_interleave(2, dim=1)
    w = torch.randn(512, 8, generator=rng, dtype=torch.float64)
    damage = eliminate([Reader((x.T @ x / len(x))[None], w[None], torch.arange(512)[:, None])], 512)
    kept = damage.argsort(descending=True)[:256]
    assert len(set((kept // 2).tolist())) == 256


def test_copies_in_several_inputs_stay_apart_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elimination, "STEPS", 4)
    rng = torch.Generator().manual_seed(0)
    half = torch.randn(200, 8, generator=rng, dtype=torch.float64)
    x = half.repeat_interleave(2, dim=1)  # 8 channels of 2 inputs; two and two are copies
    order = torch.tensor([0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15]).reshape(8, 2)
    w = torch.randn(16, 3, generator=rng, dtype=torch.float64)
    damage = eliminate([Reader((x.T @ x / len(x))[None], w[None], order)], 8)
    kept = damage.argsort(descending=True)[:4]
    assert len(set((kept // 2).tolist())) == 4


def test_repair_by_hand() -> None:
    """Two inputs with x1 = 2 x0: the second is expressed by the first with weight 2."""
    gram = torch.tensor([[1.0, 2.0], [2.0, 4.0]])
    torch.testing.assert_close(
        repair(gram, torch.tensor([1]), torch.tensor([0])), torch.tensor([[2.0]], dtype=torch.float64)
    )


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_the_unit_of_the_activations_does_not_matter(unit: float) -> None:
    """Neither for what the kept inputs take over nor for the mean, which stays as it was."""
    x, w = sample(200, 6, 4)
    x += 1
    gone, kept = torch.tensor([1, 4]), torch.tensor([0, 2, 3, 5, 6])

    def with_one(scale: float) -> torch.Tensor:
        data = torch.cat([scale * x, torch.ones(len(x), 1, dtype=torch.float64)], dim=1)
        return data.T @ data / len(x)

    shares, same = repair(with_one(1.0), gone, kept, True), repair(with_one(unit), gone, kept, True)
    torch.testing.assert_close(same[:, :-1], shares[:, :-1])
    torch.testing.assert_close(same[:, -1], unit * shares[:, -1])
    means = x[:, kept[:-1]].mean(0) @ shares[:, :-1].T + shares[:, -1]
    torch.testing.assert_close(means, x[:, gone].mean(0), rtol=1e-4, atol=0)

    weight = torch.cat([w, torch.zeros(1, 4, dtype=torch.float64)])[None]
    members = torch.arange(6)[:, None]
    damage = eliminate([Reader(with_one(1.0)[None], weight, members, constant=True)], 6)
    scaled = eliminate([Reader(with_one(unit)[None], weight / unit, members, constant=True)], 6)
    torch.testing.assert_close(scaled, damage)


def test_a_constant_stays_solvable() -> None:
    """Inputs that are constant themselves, and dead ones, beside the constant; and nothing but the constant."""
    x = torch.ones(50, 4, dtype=torch.float64)
    x[:, 1], x[:, 2] = 5, 0
    gram = x.T @ x / len(x)
    assert bool(repair(gram, torch.tensor([0]), torch.tensor([1, 2, 3]), True).isfinite().all())
    torch.testing.assert_close(
        repair(gram, torch.tensor([0, 1]), torch.tensor([3]), True).float(), torch.tensor([[1.0], [5.0]]), rtol=1e-4, atol=0
    )
