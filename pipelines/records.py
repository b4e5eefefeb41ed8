"""What the steps hand to each other: references and frozen numbers, never tensors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.architecture import ModelRef
from pipelines.steps.finetune import Epoch


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Fractions, 0 to 1. The validation split decides, the test split is only reported."""

    validation: float
    test: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    params: int
    macs: int  # of one image
    size_bytes: int  # of the weights file


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
    after_cut: Accuracy  # nothing mended yet
    after_pruning: Accuracy  # compensated
    accuracy: Accuracy  # after fine-tuning
    curve: tuple[Epoch, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)  # what came of the options: epoch kept, batch size, notes
    predicted_speedup: float | None = None  # by the latency table, where a latency was asked for
    predicted_ms: float | None = None

    @property
    def removed(self) -> float:
        """The share of the channels that is really gone."""
        return 1 - self.channels / self.channels_before if self.channels_before else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Milliseconds per call, and every sample behind the two."""

    p50_ms: float
    p95_ms: float
    samples_ms: tuple[float, ...]
    conditions: Mapping[str, Any]  # device, dtype, batch size, threads
