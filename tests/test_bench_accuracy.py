"""The parts of the accuracy benchmark that could be wrong without anybody noticing."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.bench.accuracy_tables import BEST, best_peer, by_cell, render
from tests.bench.oracle import count_macs
from tests.bench.pruners import ROUNDS, smallest_ratio
from tests.bench.small_nets import NETS
from tests.bench.training import Teacher, accuracy, train


@pytest.mark.parametrize("steps", [10, 16, 97, 100_000])
@pytest.mark.parametrize("target", [0.9, 0.55, 0.25, 0.14, 0.02])
def test_the_ratio_is_the_smallest_that_meets_the_target(steps: int, target: float) -> None:
    def macs(ratio: float) -> int:
        return round(1e6 * (1 - int(ratio * steps) / steps) ** 2)  # channels go one by one, MACs with their square

    ratio = smallest_ratio(macs, target * 1e6)
    assert macs(ratio) <= target * 1e6
    near = macs(ratio) >= 0.98 * target * 1e6
    a_channel_less = macs(ratio - 1 / steps - 2**-ROUNDS) > target * 1e6
    assert near or a_channel_less


def test_a_target_out_of_reach_says_so() -> None:
    with pytest.raises(ValueError, match="300 MACs are left"):
        smallest_ratio(lambda ratio: 300, 200)


def test_the_nets_are_what_the_tables_say() -> None:
    image = torch.zeros(1, 1, 28, 28)
    macs = {name: count_macs(make().eval(), image) for name, make in NETS.items()}
    # stem; four of 16; two of 32; the way there and back; by hand, as the sizes are 28, 14 and 7
    sixteen = 4 * 16 * 16 * 9 * 784
    later = sum((c // 2 * c * 9 + 3 * c * c * 9 + c // 2 * c) * side**2 for c, side in ((32, 14), (64, 7)))
    assert macs["residual"] == 16 * 9 * 784 + sixteen + later + 640
    assert macs["vgg"] > macs["residual"] > macs["mobile"] > 5e6


def record(method: str, accuracy: float, seed: int = 0, stage: str = "cut") -> dict[str, object]:
    base = {"net": "residual", "seed": seed, "factor": 4.0, "method": method, "stage": stage, "source": 0.92}
    return base | {"accuracy": accuracy, "macs": 4.05, "prune_seconds": 1.0}


def test_the_peer_that_trains_longest_is_the_best_after_the_longest_training_of_all() -> None:
    records = [
        record("tp-bn-global", 0.3),
        record("tp-taylor-global", 0.2),
        record("tp-bn-global", 0.5, stage="steps100"),
        record("tp-taylor-global", 0.6, stage="steps100"),
        record("ours", 0.9, stage="steps100"),
        record("tp-bn-global", 0.8, stage="epoch1"),  # of the other it is not known yet
    ]
    assert best_peer(records, 2) == "tp-taylor-global"
    assert best_peer(records, 3) is None


def test_the_peer_is_given_its_best_variant_for_every_seed_and_stage() -> None:
    records = [
        record("tp-bn-global", 0.5),
        record("tp-taylor-global", 0.4),
        record("tp-bn-global", 0.3, seed=1),
        record("tp-taylor-global", 0.6, seed=1),
        record("tp-bn-global", 0.8, stage="epoch1"),
        record("ours", 0.9),
        record("ours", 0.7, seed=1),
        {**record("tp-bn-uniform", 0), "error": "it broke"},
    ]
    cells = by_cell(records)
    assert sorted(r["accuracy"] for r in cells["residual", 4.0, BEST, "cut"]) == [0.5, 0.6]
    assert [r["accuracy"] for r in cells["residual", 4.0, BEST, "epoch1"]] == [0.8]
    table = render(records, markdown=True)
    assert "| ours | 80.00% |" in table
    assert "55.00% (bn-global, taylor-global)" in table
    assert "80.00% (1 of 2 seeds)" in table
    assert "tp-bn-uniform" in table.splitlines()[-1]


def test_training_teaches_each_image_with_its_own_answers() -> None:
    """Four images with a bright column each; the labels say nothing, so only the teacher can have taught it."""
    torch.manual_seed(0)
    x = torch.zeros(256, 1, 4, 4)
    column = torch.arange(256) % 4
    x[torch.arange(256), 0, :, column] = 1
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    with torch.no_grad():
        teacher[1].weight.copy_(3 * torch.eye(4).repeat(1, 4))  # the column is the class
        teacher[1].bias.zero_()
    student = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    taught = replace(Teacher.of(teacher, x), weight=1.0, epochs=math.inf)
    train(student, x, torch.zeros(256, dtype=torch.long), steps=60, rate=0.1, seed=0, teacher=taught)
    assert accuracy(student, x, column) == 1
    assert not student.training
