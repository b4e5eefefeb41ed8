"""Training before and after the cut."""

from typing import Literal

from pydantic import Field

from pipelines.config.section import Section


class Distillation(Section):
    """Learn from the source model's answers as well as from the labels."""

    weight: float = Field(default=0.0, ge=0, le=1, description="share of the teacher in the loss; 0: labels only")
    temperature: float = Field(default=4.0, gt=0, description="softens both answers; 1: as they are")


class Regularization(Section):
    """Training BEFORE the cut, on a copy of the source, that drives whole channels towards zero."""

    kind: Literal["none", "bn_l1", "group_lasso"] = Field(
        default="none",
        description="bn_l1: the scales of all BatchNorms (Liu et al. 2017); group_lasso: all slices of each channel at once",
    )
    weight: float = Field(default=0.0001, ge=0, description="of the penalty, beside the loss")
    epochs: int = Field(default=5, ge=1, description="passes over the training split; the other settings are finetune's")


class Finetune(Section):
    """Training after the cut. The last epoch is kept: nothing is chosen on the data that judges the result."""

    epochs: int = Field(default=5, ge=0, description="passes over the training split; 0: no fine-tuning")
    learning_rate: float = Field(default=0.001, gt=0, description="at its highest; it falls to 0 along a cosine")
    batch_size: int = Field(default=64, ge=2, description="images per step")
    optimizer: Literal["adamw", "sgd"] = Field(default="adamw", description="sgd runs with Nesterov momentum 0.9")
    weight_decay: float = Field(default=0.0001, ge=0, description="of the optimizer")
    seed: int = Field(default=0, ge=0, description="of the order of the images")
    threads: int | None = Field(
        default=None,
        ge=1,
        description="CPU threads of torch; default: torch's own choice. Small models train best with 1",
    )
    distillation: Distillation = Distillation()
    regularization: Regularization = Regularization()
