"""Training before and after the cut."""

from typing import Literal

from pydantic import Field, model_validator

from pipelines.config.section import Section


class Distillation(Section):
    """Learn from the source model as well as from the labels, and ever less from it.

    Fashion-MNIST, small residual net, 10,000 training images held out, means of three seeds (2026-11-27, torch 2.11, H200),
    at 1.8, 4 and 7 times fewer MACs. One epoch: 92.8, 92.2 and 91.4% with the defaults, 92.7, 92.2 and 91.4% with a share
    that stays; in an earlier round 92.0 and 91.2% at 4x and 7x with labels alone, 92.3 and 91.6% with a share that stays.
    Five epochs: 93.2, 92.8 and 92.4% with the defaults, 93.1, 92.8 and 92.4% with a share that stays, 93.3, 92.9 and 92.4%
    with labels alone: who trains on becomes as good as the source (93.0%), which then holds him back.
    """

    weight: float = Field(
        default=0.5, ge=0, le=1, description="share of the source model's answers in the loss; 0: labels only"
    )
    epochs: float | None = Field(
        default=2.0,
        gt=0,
        description="over which that share, and that of the features, falls evenly to nothing; null: it stays as it is",
    )
    temperature: float = Field(default=4.0, gt=0, description="softens both answers; 1: as they are")
    features: float = Field(
        default=0.0,
        ge=0,
        description="weight of the distance to the source model's features, at the last layer of each pruned group, "
        "in the channels that were kept; added to the loss",
    )


class Hardware(Section):
    """Where training runs. Accelerator, strategy and nodes are those of PyTorch Lightning's Trainer."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"] = Field(
        default="auto", description="the best that there is, or one by name"
    )
    devices: int = Field(default=1, ge=1, description="processes per machine, each with a device and a batch of its own")
    num_nodes: int = Field(
        default=1,
        ge=1,
        description="machines, on each of which `secateur compress` is given the same recipe; MASTER_ADDR and MASTER_PORT "
        "say where they meet, NODE_RANK which is which. The others only train along; a killed compression begins anew",
    )
    strategy: str = Field(
        default="auto", description="how they work together: ddp_spawn, ddp_fork; default: the first, where needed"
    )
    precision: Literal["auto", "32", "bf16"] = Field(
        default="auto", description="bf16: bfloat16 where it is safe, float32 elsewhere; auto: bf16 on GPUs that have it"
    )


class Regularization(Section):
    """Training BEFORE the cut, on a copy of the source, that drives whole channels towards zero."""

    kind: Literal["none", "bn_l1", "group_lasso"] = Field(
        default="none",
        description="bn_l1: the scales of all BatchNorms (Liu et al. 2017); group_lasso: all slices of each channel at once",
    )
    weight: float = Field(default=0.0001, ge=0, description="of the penalty, beside the loss")
    epochs: int = Field(default=5, ge=1, description="passes over the training split; the other settings are finetune's")


class Finetune(Section):
    """Training after the cut, by PyTorch Lightning."""

    epochs: int = Field(default=5, ge=0, description="passes over the training split; 0: no fine-tuning")
    minutes: float | None = Field(
        default=None, gt=0, description="end earlier, when so much time is up; the schedule is drawn in to fit"
    )
    learning_rate: float = Field(default=0.001, gt=0, description="at its highest")
    schedule: Literal["cosine", "one_cycle"] = Field(
        default="cosine", description="cosine: falls to 0; one_cycle: rises from 1/25 of the highest first"
    )
    warmup: float | None = Field(
        default=None, ge=0, lt=1, description="share of the training in which the rate rises; default: 0, one_cycle 0.3"
    )
    batch_size: int = Field(default=64, ge=2, description="samples per forward pass")
    accumulate: int = Field(default=1, ge=1, description="forward passes per step of the optimizer")
    optimizer: Literal["adamw", "sgd"] = Field(default="adamw", description="sgd runs with Nesterov momentum 0.9")
    weight_decay: float = Field(default=0.0001, ge=0, description="of the optimizer")
    gradient_clip: float | None = Field(default=None, gt=0, description="longest gradient, as the norm over all parameters")
    keep: Literal["last", "best"] = Field(
        default="last",
        description="the weights of the last epoch, or of the best by the validation split; the gate looks at that too, "
        "so `best` flatters it",
    )
    patience: int | None = Field(
        default=None, ge=1, description="end earlier, after so many epochs without a gain on the validation split"
    )
    seed: int = Field(default=0, ge=0, description="of the order of the samples and of all else that is drawn")
    threads: int | None = Field(
        default=None,
        ge=1,
        description="CPU threads of torch; default: torch's own choice. Small models train best with 1",
    )
    checkpoint_minutes: float = Field(
        default=5.0,
        ge=0,
        description="the most that a killed process loses; between epochs it is as often as it costs next to nothing",
    )
    distillation: Distillation = Distillation()
    regularization: Regularization = Regularization()
    hardware: Hardware = Hardware()

    @model_validator(mode="after")
    def _has_a_cycle(self) -> "Finetune":
        if self.schedule == "one_cycle" and self.warmup == 0:
            raise ValueError("one_cycle with `warmup` 0 has no rise; use the schedule cosine, or leave `warmup` out")
        return self
