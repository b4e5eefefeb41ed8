"""What a gate sees of a model: numbers that were measured, all on the validation split. The test split is only reported."""

from dataclasses import dataclass

from pipelines.steps.compare import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One model beside the one it is to replace. A user's own gate function gets two of these."""

    title: str
    value: float  # the task's primary metric, validation split
    latency_ms: float  # median of one call
    params: int
    macs: int  # of one sample
    size_bytes: int
    metric: str = "accuracy"  # its name
    drop: float = 0.0  # what was lost against the source, whichever way the metric points; negative: gained
    drop_upper: float | None = None  # upper end of the drop's confidence interval
    agreement: float | None = None  # share of the samples that both answer alike
    speedup: float = 1.0  # source / this
    macs_factor: float = 1.0  # source / this

    @property
    def size_mb(self) -> float:
        return self.size_bytes / 1e6


def facts_of(row: Row) -> Facts:
    return Facts(
        title=row.title,
        value=row.validation.value,
        latency_ms=row.latency_p50_ms,
        params=row.params,
        macs=row.macs,
        size_bytes=row.size_bytes,
        metric=row.metric,
        drop=row.validation.drop,
        drop_upper=row.validation.drop_high,
        agreement=row.validation.agreement,
        speedup=row.speedup,
        macs_factor=row.macs_factor,
    )
