"""A training that was killed and gone on with ends with the very same weights and numbers."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from pipelines.config import Distillation
from pipelines.data import Data
from pipelines.steps.evaluate import evaluate
from pipelines.steps.finetune import Stopped, Trained, finetune
from pipelines.steps.finetune.checkpoints import Checkpoints
from pipelines.tasks import task_of
from tests.pipelines.steps.finetune.nets import blob_data, net, options

KILLED = """
import sys, time, torch
from pathlib import Path
torch.set_num_threads(1)
from tests.pipelines.steps.finetune.test_resume import train
def slow(done, of):
    print(done, flush=True)
    if done > 16:
        time.sleep(0.2)
train(Path(sys.argv[1]), checkpoint_minutes=0.0, on_batches=slow)
print("it was not killed", flush=True)
"""
Outcome = tuple[Trained, dict[str, Tensor]]


def train(folder: Path, **changes: Any) -> Outcome:
    """Everything that has a state: dropout, batch norm, momentum, a schedule, a teacher, the best epoch so far."""
    listeners = {name: changes.pop(name) for name in ("on_batches", "on_epoch", "should_stop") if name in changes}
    data, module = blob_data(), net(dropout=0.3)
    wanted = options(
        **{"epochs": 6, "keep": "best", "distillation": Distillation(weight=0.5), "checkpoint_minutes": 0.0, **changes}
    )
    trained = finetune(module, data, task_of(data), wanted, folder, teacher=net(1), **listeners)
    return trained, {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("undisturbed")
    outcome = train(folder)
    assert outcome[0].resumed_at == 0
    return outcome


def assert_same(one: Outcome, two: Outcome) -> None:
    assert one[0].curve == two[0].curve
    assert (one[0].kept, one[0].notes) == (two[0].kept, two[0].notes)
    assert all(torch.equal(tensor, two[1][name]) for name, tensor in one[1].items())


def test_kill_9_in_the_middle_of_an_epoch(tmp_path: Path, undisturbed: Outcome) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, tmp_path],
        cwd=Path(__file__).parents[4],
        env={**os.environ, "PYTHONPATH": "."},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    done = [line.strip() for line in iter(process.stdout.readline, "20\n")]
    process.send_signal(signal.SIGKILL)
    rest = process.communicate()[0]
    assert process.returncode == -signal.SIGKILL
    assert "it was not killed" not in [*done, *rest.splitlines()]
    assert len(list((tmp_path / "checkpoints").glob("*.ckpt"))) == 2
    resumed, batches = [], []
    outcome = train(tmp_path, on_epoch=resumed.append, on_batches=lambda done, _: batches.append(done))
    assert outcome[0].resumed_at >= 19
    assert outcome[0].resumed_at % 6 != 0  # in the middle of an epoch
    assert batches == list(range(outcome[0].resumed_at + 1, 37))
    assert [epoch.number for epoch in resumed] == [4, 5, 6]  # the others were told of before
    assert_same(outcome, undisturbed)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("batches", [0, 5, 6, 29])
def test_stopped_after_any_batch(tmp_path: Path, undisturbed: Outcome, batches: int) -> None:
    left = iter(range(batches))
    with pytest.raises(Stopped):
        train(tmp_path, should_stop=lambda: next(left, None) is None)
    outcome = train(tmp_path)
    assert outcome[0].resumed_at == (batches + 1 if (batches + 1) % 6 else batches)  # or the end of the epoch
    assert_same(outcome, undisturbed)


def test_a_checkpoint_cut_in_half_costs_only_what_was_done_since_the_one_before(
    tmp_path: Path, undisturbed: Outcome
) -> None:
    left = iter(range(15))
    with pytest.raises(Stopped):
        train(tmp_path, should_stop=lambda: next(left, None) is None)
    newest = max((tmp_path / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    outcome = train(tmp_path)
    assert outcome[0].resumed_at == 15
    assert_same(outcome, undisturbed)


def test_accumulated_gradients_are_no_part_of_a_checkpoint(tmp_path: Path) -> None:
    """It is made between two steps."""
    whole = train(tmp_path, accumulate=4)
    left = iter(range(9))
    with pytest.raises(Stopped):
        train(tmp_path, accumulate=4, should_stop=lambda: next(left, None) is None)
    outcome = train(tmp_path, accumulate=4)
    assert outcome[0].resumed_at == 3  # after batches 1-4, 5-6, 7-10
    assert_same(outcome, whole)


def test_patience_that_had_ended_the_training_still_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the last checkpoint and before the result was written down."""
    whole = train(tmp_path / "whole", epochs=9, patience=1)
    assert len(whole[0].curve) < 9
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "clear", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "killed", epochs=9, patience=1)
    assert_same(train(tmp_path / "killed", epochs=9, patience=1), whole)


def killed(_: object) -> None:
    raise KeyboardInterrupt


class Death(pl.Callback):
    """As by kill -9, of all processes that train, in their third epoch."""

    def on_train_batch_start(self, _trainer: object, pl_module: Any, *_: object) -> None:
        if pl_module.course.epoch == 2:
            os._exit(9)


def test_several_processes_that_were_killed_go_on(tmp_path: Path, data: Data) -> None:
    wanted = options(epochs=4, batch_size=8, checkpoint_minutes=0.0, hardware={"devices": 2, "strategy": "ddp_fork"})
    with pytest.raises(Exception, match=r"exit|terminated"):
        finetune(net(), data, task_of(data), wanted, tmp_path, callbacks=[Death()])
    module, seen = net(), []
    trained = finetune(module, data, task_of(data), wanted, tmp_path, on_epoch=seen.append)
    assert trained.resumed_at > 0
    assert [epoch.number for epoch in trained.curve] == [1, 2, 3, 4]
    assert [epoch.number for epoch in seen] == [3, 4]
    assert evaluate(module, data.validation, task_of(data))["accuracy"] == trained.curve[-1].val_metric


def test_other_training_does_not_go_on_with_it(tmp_path: Path) -> None:
    left = iter(range(15))
    with pytest.raises(Stopped):
        train(tmp_path, should_stop=lambda: next(left, None) is None)
    assert train(tmp_path, seed=1)[0].resumed_at == 0


def test_time_that_was_used_before_the_kill_counts(tmp_path: Path, data: Data) -> None:
    from pipelines.steps.finetune.course import Course

    course = Course.from_state({**Course(16, 1).to_state(), "seconds": 100.0, "epoch_seconds": 40.0})
    assert 100 <= course.elapsed() < 160
    assert 40 <= course.epoch_elapsed() < 100
