"""Training, driven by PyTorch Lightning."""

from pipelines.steps.finetune.distill import Features, boundary_layers
from pipelines.steps.finetune.fit import finetune
from pipelines.steps.finetune.hardware import check_hardware, is_helping
from pipelines.steps.finetune.options import TrainingOptions
from pipelines.steps.finetune.records import Diverged, Epoch, Stopped, Trained

__all__ = [
    "Diverged",
    "Epoch",
    "Features",
    "Stopped",
    "Trained",
    "TrainingOptions",
    "boundary_layers",
    "check_hardware",
    "finetune",
    "is_helping",
]
