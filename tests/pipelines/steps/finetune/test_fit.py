"""What training does to a module, and what it tells."""

import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipelines.config import Distillation
from pipelines.data import ArraySplit, Data
from pipelines.steps.evaluate import evaluate
from pipelines.steps.finetune import Epoch, Stopped, Trained, finetune
from pipelines.tasks import Classification, task_of
from tests.pipelines.steps.finetune.nets import net, options


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_training_learns_and_tells_how(data: Data, tmp_path: Path, optimizer: str) -> None:
    module, seen, batches = net(), [], []
    trained = finetune(
        module,
        data,
        task_of(data),
        options(optimizer=optimizer),
        tmp_path,
        on_epoch=seen.append,
        on_batches=lambda done, of: batches.append((done, of)),
    )
    curve = trained.curve
    assert [epoch.number for epoch in curve] == [1, 2, 3, 4, 5]
    assert [epoch.steps for epoch in curve] == [6, 12, 18, 24, 30]
    assert list(curve) == seen
    assert batches == [(number, 30) for number in range(1, 31)]
    assert curve[-1].train_loss < curve[0].train_loss / 2
    assert curve[0].learning_rate > curve[-2].learning_rate > curve[-1].learning_rate == 0
    assert all(epoch.seconds > 0 for epoch in curve)
    assert (trained.kept, trained.batch_size, trained.accumulate, trained.notes) == (5, 16, 1, ())
    assert evaluate(module, data.test, task_of(data)) == {"accuracy": 1.0}
    assert curve[-1].val_metric == evaluate(module, data.validation, task_of(data))["accuracy"]
    assert not module.training
    assert not (tmp_path / "checkpoints").exists()


def test_the_seed_fixes_the_result_and_the_randomness_of_others_is_left_alone(data: Data, tmp_path: Path) -> None:
    curves: list[tuple[Epoch, ...]] = []
    for seed in (3, 3, 4):
        torch.manual_seed(torch.seed())  # the global state of others does not matter
        module = net(dropout=0.5)
        before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[union-attr]
        curves.append(finetune(module, data, task_of(data), options(seed=seed), tmp_path).curve)
        assert torch.equal(before[0], torch.get_rng_state())
        assert before[1:] == (random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[union-attr]
    assert curves[0] == curves[1] != curves[2]


def test_no_epochs_means_no_change(data: Data, tmp_path: Path) -> None:
    module = net()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert finetune(module, data, task_of(data), options(epochs=0), tmp_path) == Trained()
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_an_order_to_stop_is_followed_within_a_batch(data: Data, tmp_path: Path) -> None:
    asked = iter([False, False, True])
    with pytest.raises(Stopped):
        finetune(net(), data, task_of(data), options(epochs=1000), tmp_path, should_stop=lambda: next(asked))
    assert next(asked, None) is None


def test_accumulated_batches_make_the_step_of_one_large_batch(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    split = ArraySplit(rng.normal(size=(33, 2)).astype(np.float32), np.arange(33) % 3)  # 32 after the lonely last one
    data = Data("points", 3, split, split, split, "digest", (2,))
    modules = []
    for batch_size, accumulate in ((16, 1), (4, 4)):
        torch.manual_seed(0)
        module = nn.Linear(2, 3).double()
        doubled = nn.Sequential(_Double(), module)
        wanted = options(epochs=3, batch_size=batch_size, accumulate=accumulate, gradient_clip=0.1, optimizer="sgd")
        trained = finetune(doubled, data, task_of(data), wanted, tmp_path)
        assert [epoch.steps for epoch in trained.curve] == [2, 4, 6]
        modules.append(module)
    torch.testing.assert_close(modules[0].weight, modules[1].weight, rtol=1e-9, atol=1e-12)


class _Double(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.double()


def test_a_gradient_is_cut_to_the_length_asked_for(data: Data, tmp_path: Path) -> None:
    module = nn.Linear(2, 3)
    before = torch.cat([p.detach().flatten() for p in module.parameters()]).clone()
    wanted = options(
        epochs=1, batch_size=90, optimizer="sgd", learning_rate=1.0, gradient_clip=0.001, weight_decay=0, schedule="cosine"
    )
    finetune(module, data, task_of(data), wanted, tmp_path)
    after = torch.cat([p.detach().flatten() for p in module.parameters()])
    assert float((after - before).norm()) == pytest.approx(0.001 * 1.9, rel=1e-3)  # Nesterov: the gradient and 0.9 of it


def test_the_budget_of_time_ends_it_and_the_rate_has_fallen_by_then(data: Data, tmp_path: Path) -> None:
    wanted = options(epochs=10**6, minutes=0.02)
    began = time.monotonic()
    trained = finetune(net(), data, task_of(data), wanted, tmp_path, on_batches=lambda *_: time.sleep(0.002))
    assert time.monotonic() - began < 60
    assert len(trained.curve) < 10**5
    assert trained.curve[-1].learning_rate < 0.02 * 0.05
    assert "budget of 0.02 minutes" in trained.notes[0]
    assert trained.kept == len(trained.curve)


def scripted(values: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.steps.finetune.learner import Learner

    left = iter(values)
    monkeypatch.setattr(Learner, "validate", lambda self: next(left))


@pytest.mark.parametrize(
    ("higher", "values", "kept", "epochs"),
    [
        (True, [0.5, 0.9, 0.9, 0.7, 0.8], 2, 4),
        (False, [0.5, 0.2, 0.3, 0.2, 0.1], 2, 4),
        (True, [0.1, 0.2, 0.3, 0.4, 0.5], 5, 5),
    ],
)
def test_the_best_by_the_validation_split_is_kept_and_patience_ends(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, higher: bool, values: list[float], kept: int, epochs: int
) -> None:
    scripted(values, monkeypatch)
    task = Classification(3, higher_is_better=higher)
    module, states = net(), []
    trained = finetune(
        module,
        data,
        task,
        options(keep="best", patience=2),
        tmp_path,
        on_epoch=lambda _: states.append({n: t.clone() for n, t in module.state_dict().items()}),
    )
    assert (trained.kept, len(trained.curve)) == (kept, epochs)
    assert all(torch.equal(states[kept - 1][name], tensor) for name, tensor in module.state_dict().items())
    assert bool(trained.notes) == (epochs < 5)


def test_bfloat16_runs_and_leaves_float32_weights(data: Data, tmp_path: Path) -> None:
    seen: set[torch.dtype] = set()
    module = net()
    module[0].register_forward_hook(lambda _layer, _x, y: seen.add(y.dtype))  # type: ignore[operator]
    trained = finetune(module, data, task_of(data), options(hardware={"precision": "bf16"}), tmp_path)
    assert seen == {torch.bfloat16}
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert trained.curve[-1].val_metric == 1


def test_a_teacher_is_followed_and_left_alone(data: Data, tmp_path: Path) -> None:
    teacher, student = net(1), net(2)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    wanted = options(epochs=30, distillation=Distillation(weight=1.0, epochs=None, temperature=1.0))
    finetune(student, data, task_of(data), wanted, tmp_path, teacher=teacher)
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
    x = torch.from_numpy(data.test.x)  # type: ignore[attr-defined]
    answers = [nn.functional.softmax(module(x), dim=1).detach() for module in (student, teacher.eval())]
    assert float((answers[0] - answers[1]).abs().max()) < 0.1  # though the teacher knows nothing of the labels


def test_evaluate_counts_right_answers() -> None:
    module = nn.Identity().train()
    split = ArraySplit(np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0]], np.array([0, 1, 2, 0, 1]))
    assert evaluate(module, split, Classification(4)) == {"accuracy": pytest.approx(3 / 5)}
    assert not module.training


def test_several_processes_train_one_model(data: Data, tmp_path: Path) -> None:
    """Two of them on the CPU, each with half of the batches; the result comes back to this one."""
    module, seen = net(), []
    wanted: Any = options(epochs=3, batch_size=8, hardware={"devices": 2, "strategy": "ddp_fork"})
    trained = finetune(module, data, task_of(data), wanted, tmp_path, on_epoch=seen.append)
    assert [epoch.steps for epoch in trained.curve] == [6, 12, 18]
    assert seen == list(trained.curve)
    assert evaluate(module, data.validation, task_of(data))["accuracy"] == trained.curve[-1].val_metric > 0.9
