"""What the configuration says about hardware reaches Lightning's Trainer."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from pytorch_lightning.strategies import DDPStrategy

from pipelines.data import Data
from pipelines.errors import ConfigError
from pipelines.steps.finetune import check_hardware, finetune
from pipelines.steps.finetune.hardware import trainer_arguments
from pipelines.tasks import task_of
from tests.pipelines.steps.finetune.nets import net, options


def test_the_trainer_is_told(data: Data, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    class Look(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            seen.update(
                accelerator=type(trainer.accelerator).__name__,
                devices=trainer.num_devices,
                precision=trainer.precision,
                accumulate=trainer.accumulate_grad_batches,
                clip=trainer.gradient_clip_val,
                epochs=trainer.max_epochs,
            )

    wanted = options(epochs=2, accumulate=3, gradient_clip=0.5, hardware={"precision": "bf16"})  # both at once
    finetune(net(), data, task_of(data), wanted, tmp_path, callbacks=[Look()])
    assert seen == {
        "accelerator": "CPUAccelerator",
        "devices": 1,
        "precision": "bf16-mixed",
        "accumulate": 3,
        "clip": 0.5,
        "epochs": 2,
    }


def test_several_machines_are_the_trainers_own() -> None:
    hardware = options(hardware={"accelerator": "cpu", "devices": 2, "num_nodes": 3}).hardware
    trainer = pl.Trainer(**trainer_arguments(hardware), logger=False, enable_checkpointing=False)
    assert (trainer.num_nodes, trainer.num_devices, trainer.world_size) == (3, 2, 6)
    assert isinstance(trainer.strategy, DDPStrategy)


def test_what_would_wait_for_ever_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    many = options(hardware={"accelerator": "cpu", "num_nodes": 2}).hardware
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for name in place:
        monkeypatch.delenv(name, raising=False)
    for name, value in place.items():
        with pytest.raises(ConfigError, match="nothing says where the others meet"):
            check_hardware(many)
        monkeypatch.setenv(name, value)
    check_hardware(many)
    with pytest.raises(ConfigError, match=r"(?s)'ddp' starts the whole command anew.*use ddp_spawn"):
        check_hardware(options(hardware={"accelerator": "cpu", "devices": 2, "strategy": "ddp"}).hardware)
    check_hardware(options(hardware={"accelerator": "cpu", "strategy": "ddp"}).hardware)
