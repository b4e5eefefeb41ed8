"""What the steps hand to each other: references and frozen numbers, never tensors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.architecture import ModelRef
from pipelines.steps.finetune import Epoch


@dataclass(frozen=True, slots=True)
class Primary:
    """The task's primary metric. The validation split decides, the test split is only reported."""

    validation: float
    test: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A model on one split, and what it lost against the source on the same samples.

    A drop is positive where the model is worse, whichever way its metric points. The source's own drop is 0, its p 1.
    Intervals are bootstrap percentiles; None where the task cannot resample its primary metric.
    """

    value: float  # the primary metric
    low: float | None = None
    high: float | None = None
    drop: float
    drop_low: float | None = None
    drop_high: float | None = None
    p_value: float | None = None  # of no difference: McNemar where samples are right or wrong, else the paired bootstrap
    is_of_losses: bool = False  # that p is of the samples' losses: the metric could not be resampled
    is_real: bool = False  # the drop, or the gain: more than noise
    agreement: float | None = None  # share of predictions equal to the source's
    kl: float | None = None  # mean KL divergence from the source's answers, in nats
    metrics: Mapping[str, float] = field(default_factory=dict)  # all of the task's, by name, the primary one too


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Validation decides, test is only reported."""

    validation: Score
    test: Score
    weights_digest: str  # of the weights that gave the answers
    folder: str | None = None  # where the kept predictions lie


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    params: int
    macs: int  # of one image
    size_bytes: int  # of the weights file
    activation_bytes: int = 0  # of one image, at the highest


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressedModel:
    """A source or a candidate on its way through the flow."""

    title: str
    method: str
    ratio: float | None  # asked for; 0 for the source, None where something else was asked for
    asked: str  # what was to go, in a few words
    channels: int  # that could be pruned and are there, each coupled group once
    channels_before: int
    size: Size
    model: ModelRef
    after_cut: Primary  # nothing mended yet
    after_pruning: Primary  # mended, as far as that was asked for
    scores: Scores | None = None  # of the finished model: after fine-tuning
    curve: tuple[Epoch, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)  # what came of the options: epoch kept, batch size, notes
    predicted_speedup: float | None = None  # by the latency table, where a latency was asked for
    predicted_ms: float | None = None
    after_compensation: Primary | None = None  # where BatchNorm statistics were taken anew after that
    notes: tuple[str, ...] = ()  # of the engine: what was done in another way than asked, or could not be done

    @property
    def removed(self) -> float:
        """The share of the channels that is really gone."""
        return 1 - self.channels / self.channels_before if self.channels_before else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Under which calls are timed."""

    engine: str  # eager | compile | onnxruntime
    device: str  # cpu | cuda
    batch_size: int
    threads: int

    def __str__(self) -> str:
        where = f"{self.threads} thread{'s' * (self.threads != 1)}" if self.device == "cpu" else self.device
        return f"{self.engine}, batch {self.batch_size}, {where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One model under one condition. Milliseconds per call, and every sample behind them.

    `speedup` is the source's median over this one's; its interval comes from resampling the rounds, in which every
    model was called once.
    """

    condition: Condition
    p50_ms: float
    p90_ms: float
    p99_ms: float
    speedup: float
    speedup_low: float
    speedup_high: float
    is_noisy: bool = False  # it is open whether this model is faster than another one
    samples_ms: tuple[float, ...] = ()

    @property
    def throughput(self) -> float:
        """Samples per second."""
        return 1e3 * self.condition.batch_size / self.p50_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """What calling a model costs on this machine."""

    timings: tuple[Timing, ...]  # the primary condition first
    machine: Mapping[str, Any]
    weights_digest: str = ""  # of the weights that were timed
    peak_memory_bytes: int | None = None  # resident, beyond what the process had before; of a call at the primary condition
    energy_mj: float | None = None  # millijoules of a call at the primary condition, where the machine counts them
    failures: Mapping[str, str] = field(default_factory=dict)  # condition -> why it could not be timed

    @property
    def primary(self) -> Timing:
        return self.timings[0]
