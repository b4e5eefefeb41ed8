"""What goes wrong in a training, made to happen."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipelines.data import ArraySplit, Data
from pipelines.errors import TrainingError
from pipelines.steps.finetune import finetune
from pipelines.steps.finetune.memory import is_out_of_memory
from pipelines.tasks import task_of
from tests.pipelines.steps.finetune.nets import blobs, net, options


class BreaksAt(nn.Module):
    """A net whose answers are no numbers from training batch number `at` on."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.net, self.at, self.seen = net(), at, 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += self.training
        y: Tensor = self.net(x)
        return y * float("nan") if self.training and self.seen >= self.at else y


@pytest.mark.parametrize(("at", "where"), [(15, "epoch 3, step 15"), (13, "epoch 3, step 13"), (18, "epoch 3, step 18")])
def test_a_loss_that_is_no_number_ends_it_with_what_was_good(
    data: Data, tmp_path: Path, at: int, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    module, states = BreaksAt(at), []
    trained = finetune(
        module,
        data,
        task_of(data),
        options(),
        tmp_path,
        on_epoch=lambda _: states.append({n: t.clone() for n, t in module.state_dict().items()}),
    )
    assert len(trained.curve) == trained.kept == 2
    assert trained.notes == (f"stopped: the loss is no finite number in {where}; the weights of epoch 2 are kept",)
    assert trained.notes[0] in caplog.text
    assert all(torch.equal(states[1][name], tensor) for name, tensor in module.state_dict().items())


def test_nothing_good_is_an_error_that_says_where(data: Data, tmp_path: Path) -> None:
    with pytest.raises(TrainingError) as caught:
        finetune(BreaksAt(4), data, task_of(data), options(), tmp_path)
    assert "the loss is no finite number in epoch 1, step 4" in caught.value.what
    assert caught.value.where == "epoch 1, step 4"
    assert "learning_rate" in caught.value.fix
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301


def test_a_rate_that_is_far_too_high_is_found_out(data: Data, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(2, 8), nn.Linear(8, 8), nn.Linear(8, 3))
    with pytest.raises(TrainingError, match="diverged"):
        finetune(module, data, task_of(data), options(learning_rate=1e20, optimizer="sgd"), tmp_path)


def test_a_weight_that_is_no_number_after_the_last_step_is_found_out(data: Data, tmp_path: Path) -> None:
    module = net()

    def poison(_layer: nn.Module, _inputs: object) -> None:
        if not module.training:
            with torch.no_grad():
                module[0].bias.fill_(float("inf"))  # type: ignore[index, union-attr, operator]

    module.register_forward_pre_hook(poison)
    with pytest.raises(TrainingError, match="a weight is no finite number in epoch 1, step 6"):
        finetune(module, data, task_of(data), options(), tmp_path)


class Hungry(nn.Module):
    """Cannot take more than `most` samples at once, and says so as torch does on a CPU or a GPU."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__()
        self.net, self.most, self.error = nn.Linear(2, 3), most, error
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.sizes.append(len(x))
        if len(x) > self.most and self.training:
            raise self.error
        y: Tensor = self.net(x)
        return y


CPU_WORDS = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"
ERRORS = {"cpu": RuntimeError(CPU_WORDS), "gpu": torch.OutOfMemoryError("CUDA out of memory.")}


@pytest.mark.parametrize("kind", list(ERRORS))
def test_a_batch_that_does_not_fit_is_halved_once_and_the_steps_stay(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = Data("blobs", 3, blobs(96, 0), blobs(30, 1), blobs(30, 2), "digest", (2,))
    curves = []
    for most in (8, 16):
        torch.manual_seed(0)
        module = Hungry(most, ERRORS[kind])
        trained = finetune(module, data, task_of(data), options(optimizer="sgd", weight_decay=0), tmp_path)
        curves.append(trained.curve)
        assert (trained.batch_size, trained.accumulate) == (most, 16 // most)
        assert set(module.sizes[1:]) == {most}
        assert bool(trained.notes) == (most == 8)
        assert not trained.notes or trained.notes[0] in caplog.text
    assert [epoch.steps for epoch in curves[0]] == [epoch.steps for epoch in curves[1]] == [6, 12, 18, 24, 30]
    assert [epoch.train_loss for epoch in curves[0]] == pytest.approx([epoch.train_loss for epoch in curves[1]], rel=1e-4)


def test_memory_that_runs_out_late_goes_on_from_the_last_epoch(data: Data, tmp_path: Path) -> None:
    module = Hungry(16, ERRORS["cpu"])
    epochs = []

    def on_epoch(epoch: object) -> None:
        epochs.append(epoch)
        if len(epochs) == 2:
            module.most = 8

    trained = finetune(module, data, task_of(data), options(checkpoint_minutes=0), tmp_path, on_epoch=on_epoch)
    assert [epoch.number for epoch in trained.curve] == [1, 2, 3, 4, 5]
    assert [epoch.steps for epoch in trained.curve] == [6, 12, 18, 24, 30]
    assert len(epochs) == 5
    assert (trained.batch_size, trained.accumulate, trained.resumed_at) == (8, 2, 12)


def test_half_a_batch_that_does_not_fit_either_is_an_error(data: Data, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="out of memory, also with batches of 8") as caught:
        finetune(Hungry(7, ERRORS["cpu"]), data, task_of(data), options(), tmp_path)
    assert "finetune.batch_size" in caught.value.fix


def test_memory_that_is_too_small_for_real() -> None:
    """What this machine says when it is asked for more than there can be."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_other_errors_pass(data: Data, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        finetune(nn.Linear(3, 3), data, task_of(data), options(), tmp_path)


def test_inputs_that_are_no_numbers_are_found_out(tmp_path: Path) -> None:
    split = blobs(90, 0)
    x = split.x.copy()
    x[40] = np.nan
    bad = Data("blobs", 3, ArraySplit(x, split.y), blobs(30, 1), blobs(30, 2), "digest", (2,))
    with pytest.raises(TrainingError, match="epoch 1, step"):
        finetune(nn.Linear(2, 3), bad, task_of(bad), options(), tmp_path)
