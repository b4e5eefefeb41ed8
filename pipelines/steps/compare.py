"""One row per model, the gate, and the choice of the best."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.records import CompressedModel, Latency


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
    val_accuracy: float
    accuracy_after_cut: float  # test split, nothing mended yet
    accuracy_after_pruning: float  # test split, compensated
    accuracy: float  # test split
    accuracy_drop: float  # test split, in fractions
    latency_p50_ms: float
    latency_p95_ms: float
    params_factor: float
    macs_factor: float
    size_factor: float
    speedup: float
    passed: bool
    verdict: str
    latency_predicted_ms: float | None = None  # by the latency table, where a latency was asked for
    speedup_predicted: float | None = None
    version: int | None = None
    notes: str = ""  # forms that could not be made, and why


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


def compare(
    source: str, models: Sequence[CompressedModel], latencies: Sequence[Latency], max_accuracy_drop: float
) -> Comparison:
    """`models` and `latencies` in the same order, the source first.

    The gate and the choice of the best see the validation split only, so the test accuracies in the table stay honest.
    """
    baseline, baseline_latency = models[0], latencies[0]
    rows = tuple(
        _row(model, latency, baseline, baseline_latency, max_accuracy_drop)
        for model, latency in zip(models, latencies, strict=True)
    )
    return Comparison(source=source, rows=rows, challenger=best_of(rows))


def best_of(rows: Sequence[Row]) -> str | None:
    """The title of the fastest candidate that passed; the first row is the source. Equal speed: validation decides."""
    passed = [row for row in rows[1:] if row.passed]
    best = min(passed, key=lambda row: (row.latency_p50_ms, -row.val_accuracy), default=None)
    return best.title if best else None


def _row(
    model: CompressedModel, latency: Latency, baseline: CompressedModel, baseline_latency: Latency, max_drop: float
) -> Row:
    drop = baseline.accuracy.validation - model.accuracy.validation
    passed = drop <= max_drop + 1e-9
    verdict = (
        "source" if model is baseline else "passed" if passed else f"lost {drop:.3f} on validation, allowed {max_drop:g}"
    )
    return Row(
        title=model.title,
        method=model.method,
        ratio=model.ratio,
        asked=model.asked,
        channels_removed=model.removed,
        params=model.size.params,
        macs=model.size.macs,
        size_bytes=model.size.size_bytes,
        val_accuracy=model.accuracy.validation,
        accuracy_after_cut=model.after_cut.test,
        accuracy_after_pruning=model.after_pruning.test,
        accuracy=model.accuracy.test,
        accuracy_drop=baseline.accuracy.test - model.accuracy.test,
        latency_p50_ms=latency.p50_ms,
        latency_p95_ms=latency.p95_ms,
        params_factor=baseline.size.params / model.size.params,
        macs_factor=baseline.size.macs / model.size.macs,
        size_factor=baseline.size.size_bytes / model.size.size_bytes,
        speedup=baseline_latency.p50_ms / latency.p50_ms,
        passed=passed,
        verdict=verdict,
        latency_predicted_ms=model.predicted_ms,
        speedup_predicted=model.predicted_speedup,
    )
