from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipelines.config import Distillation, Finetune
from pipelines.data import ArraySplit, Data
from pipelines.steps.evaluate import evaluate
from pipelines.steps.finetune import Epoch, ShuffledBatches, Stopped, finetune
from pipelines.tasks import Classification, task_of


def blobs(images: int, seed: int) -> ArraySplit:
    """Three well separated clouds of points."""
    rng = np.random.default_rng(seed)
    y = np.arange(images) % 3
    centres = np.array([[2.0, 0], [-2, 2], [-2, -2]])
    return ArraySplit((centres[y] + rng.normal(size=(images, 2)) * 0.3).astype(np.float32), y)


@pytest.fixture
def data() -> Data:
    return Data("blobs", 3, blobs(90, 0), blobs(30, 1), blobs(30, 2), "digest", (2,))


@pytest.fixture(autouse=True)
def _nothing_is_left_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield
    assert not list(folder.iterdir())


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def options(**changes: Any) -> Finetune:
    return Finetune(**{"epochs": 5, "learning_rate": 0.02, "batch_size": 16, **changes})


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_training_learns_and_tells_how(data: Data, tmp_path: Path, optimizer: str) -> None:
    module, seen = net(), []
    curve = finetune(module, data, task_of(data), options(optimizer=optimizer), tmp_path, on_epoch=seen.append)
    assert [epoch.number for epoch in curve] == [1, 2, 3, 4, 5]
    assert list(curve) == seen
    assert curve[-1].train_loss < curve[0].train_loss / 2
    assert evaluate(module, data.test, task_of(data)) == {"accuracy": 1.0}
    assert not module.training


def test_the_seed_fixes_the_result(data: Data, tmp_path: Path) -> None:
    curves: list[tuple[Epoch, ...]] = []
    for seed in (3, 3, 4):
        torch.manual_seed(torch.seed())  # the global state of others does not matter
        curves.append(finetune(net(), data, task_of(data), options(seed=seed), tmp_path))
    assert curves[0] == curves[1] != curves[2]


def test_no_epochs_means_no_change(data: Data, tmp_path: Path) -> None:
    module = net()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert finetune(module, data, task_of(data), options(epochs=0), tmp_path) == ()
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_an_order_to_stop_is_followed_within_a_batch(data: Data, tmp_path: Path) -> None:
    asked = iter([False, False, True])
    with pytest.raises(Stopped):
        finetune(net(), data, task_of(data), options(epochs=1000), tmp_path, should_stop=lambda: next(asked))
    assert next(asked, None) is None


def test_a_teacher_is_followed_and_left_alone(data: Data, tmp_path: Path) -> None:
    teacher, student = net(1), net(2)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    wanted = options(epochs=30, distillation=Distillation(weight=1.0, temperature=1.0))
    finetune(student, data, task_of(data), wanted, tmp_path, teacher=teacher)
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
    x = torch.from_numpy(data.test.x)
    answers = [nn.functional.softmax(module(x), dim=1).detach() for module in (student, teacher.eval())]
    assert float((answers[0] - answers[1]).abs().max()) < 0.1  # though the teacher knows nothing of the labels


def test_the_distillation_loss_is_zero_only_where_both_agree() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5], [0.0, 0.0, 3.0]], dtype=torch.float64)
    assert Classification(2).distillation_loss(logits, logits + 7, 4.0) == pytest.approx(0, abs=1e-12)
    p, q = (torch.softmax(v / 4, dim=1) for v in (logits, logits.flip(1)))
    by_hand = float((q * (q / p).log()).sum() / 2 * 16)
    assert Classification(2).distillation_loss(logits, logits.flip(1), 4.0) == pytest.approx(by_hand)


@pytest.mark.parametrize(("images", "batches"), [(16, 1), (17, 1), (18, 2), (32, 2), (33, 2), (2, 1)])
def test_no_batch_has_one_image(images: int, batches: int) -> None:
    split = ArraySplit(np.arange(images, dtype=np.float32)[:, None], np.zeros(images, dtype=np.int64))
    shuffled = ShuffledBatches(split, 16, seed=0)
    sizes = [len(y) for _, y in shuffled]
    assert len(sizes) == len(shuffled) == batches
    assert min(sizes) > 1
    first, second = ([float(v) for x, _ in shuffled for v in x] for _ in range(2))
    assert images == 2 or first != second


def test_evaluate_counts_right_answers() -> None:
    module = nn.Identity().train()
    split = ArraySplit(np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0]], np.array([0, 1, 2, 0, 1]))
    assert evaluate(module, split, Classification(4)) == {"accuracy": pytest.approx(3 / 5)}
    assert not module.training
