"""Where training runs: the words of the configuration as arguments of Lightning's Trainer."""

import contextlib
import io
import os
import warnings
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

from pipelines.errors import ConfigError
from pipelines.steps.finetune.options import HardwareOptions

Precision = Literal["32-true", "bf16-mixed"]
PRECISIONS: dict[str, Precision] = {"32": "32-true", "bf16": "bf16-mixed"}
PLACE = "finetune.hardware"


def trainer_arguments(hardware: HardwareOptions) -> dict[str, Any]:
    is_many = hardware.devices > 1 or hardware.num_nodes > 1
    return {
        "accelerator": hardware.accelerator,
        "devices": hardware.devices,
        "num_nodes": hardware.num_nodes,
        "strategy": "ddp_spawn" if is_many and hardware.strategy == "auto" else hardware.strategy,
        "precision": _precision(hardware),
    }


def is_helping(hardware: HardwareOptions) -> bool:
    """Whether this is one of the further machines, which only train along with the first."""
    return hardware.num_nodes > 1 and os.environ.get("NODE_RANK", "0") != "0"


def check_hardware(hardware: HardwareOptions) -> None:
    """Raises ConfigError for what is not there, and for what would wait for ever."""
    if hardware.num_nodes > 1 and not {"MASTER_ADDR", "MASTER_PORT"} <= set(os.environ):
        what = f"num_nodes is {hardware.num_nodes}, and nothing says where the others meet"
        raise ConfigError(what, PLACE, "set MASTER_ADDR, MASTER_PORT and NODE_RANK as for torch.distributed, or leave it 1")
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            trainer = pl.Trainer(
                **trainer_arguments(hardware),
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
    except Exception as exc:  # Lightning's MisconfigurationException derives from nothing else, and others are raised, too
        fix = "name an accelerator, devices and a strategy that are here, or leave them out"
        raise ConfigError(f"training cannot run so: {str(exc).splitlines()[0]}", PLACE, fix) from exc
    if isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher) and hardware.devices > 1:
        what = f"the strategy {hardware.strategy!r} starts the whole command anew for each device"
        raise ConfigError(what, f"{PLACE}.strategy", "use ddp_spawn, or leave it out")


def _precision(hardware: HardwareOptions) -> Precision:
    """`auto`: bfloat16 where a GPU has it; on a CPU it seldom helps."""
    if hardware.precision != "auto":
        return PRECISIONS[hardware.precision]
    on_gpu = hardware.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return PRECISIONS["bf16" if on_gpu and torch.cuda.is_bf16_supported() else "32"]
