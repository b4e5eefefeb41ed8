"""One row per model: what it costs, how good it is, and what that is against the source."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.records import CompressedModel, Latency, Score
from pipelines.tasks import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the comparison. A factor is source / this, so 2.0 is half the size or twice the speed."""

    title: str
    method: str
    ratio: float | None
    asked: str
    channels_removed: float  # share that is really gone
    params: int
    macs: int
    size_bytes: int
    activation_bytes: int
    metric: str  # name of the primary metric: what value and drop are of
    higher_is_better: bool
    validation: Score  # decides
    test: Score  # is only reported
    after_cut: float  # primary metric, test split, nothing mended yet
    after_pruning: float  # primary metric, test split, mended
    latency_p50_ms: float  # latency and speedup: under the first condition that was asked for
    latency_p90_ms: float
    latency_p99_ms: float
    throughput: float  # samples per second
    params_factor: float
    macs_factor: float
    size_factor: float
    speedup: float
    speedup_low: float  # its confidence interval
    speedup_high: float
    is_noisy: bool  # it is open whether this model is faster than another one of the comparison
    passed: bool = False  # the gates; the source always does
    verdict: str = ""  # why not
    peak_memory_bytes: int | None = None
    energy_mj: float | None = None  # of one call
    weights_digest: str = ""  # of the weights that were evaluated and timed
    latency_predicted_ms: float | None = None  # by the latency table, where a latency was asked for
    speedup_predicted: float | None = None
    version: int | None = None
    after_compensation: float | None = None  # where BatchNorm statistics were taken anew after that
    notes: tuple[str, ...] = ()  # of the engine: what was done in another way than asked, or could not be done
    export_notes: str = ""  # forms that could not be made, and why


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A candidate that did not get through, and why."""

    title: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    source: str  # models:/name/1
    rows: tuple[Row, ...]  # the source first
    challenger: str | None = None  # title of the best
    failures: tuple[Failure, ...] = ()
    calibrated_on: int = 0  # images of the training split
    calibration_asked: int = 0
    run_id: str | None = None
    experiment_id: str | None = None


def compare(source: str, models: Sequence[CompressedModel], latencies: Sequence[Latency], task: Task) -> Comparison:
    """`models` and `latencies` in the same order, the source first. Nothing is judged yet: see `pipelines.promotion`."""
    rows = tuple(_row(model, latency, models[0], task) for model, latency in zip(models, latencies, strict=True))
    return Comparison(source=source, rows=rows)


def _row(model: CompressedModel, latency: Latency, baseline: CompressedModel, task: Task) -> Row:
    assert model.scores is not None, model.title  # every model has been evaluated by now
    scores, timing = model.scores, latency.primary
    return Row(
        title=model.title,
        method=model.method,
        ratio=model.ratio,
        asked=model.asked,
        channels_removed=model.removed,
        params=model.size.params,
        macs=model.size.macs,
        size_bytes=model.size.size_bytes,
        activation_bytes=model.size.activation_bytes,
        metric=task.primary,
        higher_is_better=task.higher_is_better,
        validation=scores.validation,
        test=scores.test,
        after_cut=model.after_cut.test,
        after_pruning=model.after_pruning.test,
        latency_p50_ms=timing.p50_ms,
        latency_p90_ms=timing.p90_ms,
        latency_p99_ms=timing.p99_ms,
        throughput=timing.throughput,
        params_factor=baseline.size.params / model.size.params,
        macs_factor=baseline.size.macs / model.size.macs,
        size_factor=baseline.size.size_bytes / model.size.size_bytes,
        speedup=timing.speedup,
        speedup_low=timing.speedup_low,
        speedup_high=timing.speedup_high,
        is_noisy=timing.is_noisy,
        peak_memory_bytes=latency.peak_memory_bytes,
        energy_mj=latency.energy_mj,
        weights_digest=scores.weights_digest,
        latency_predicted_ms=model.predicted_ms,
        after_compensation=model.after_compensation.test if model.after_compensation else None,
        notes=model.notes,
        speedup_predicted=model.predicted_speedup,
    )
