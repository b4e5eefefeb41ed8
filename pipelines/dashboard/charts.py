"""The charts of a dashboard, in the words of the MLflow UI (3.17; undocumented, so a browser test looks at them)."""

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from pipelines import lineage

Chart = dict[str, Any]

RESULTS, COSTS, TRAINING = "What it costs to be that good", "Candidates side by side", "Fine-tuning"
SECTIONS = (RESULTS, COSTS, TRAINING)


def sections() -> list[Chart]:
    return [{"uuid": _id(name), "name": name, "display": True, "isReordered": True, "columns": 2} for name in SECTIONS]


def charts_of(metric: str, baseline_run_id: str) -> list[Chart]:
    """`metric` is the primary one of the task; differences are shown to the run of that id."""
    return list(_charts(metric, baseline_run_id))


def _charts(metric: str, baseline_run_id: str) -> Iterator[Chart]:
    for cost in (lineage.LATENCY_P50, lineage.MACS):
        yield _chart("SCATTER", RESULTS, cost, xaxis=_metric(cost), yaxis=_metric(metric), runsCountToCompare=100)
    yield _chart(
        "PARALLEL",
        RESULTS,
        "all",
        displayName=f"cost and {metric}",
        selectedParams=[],
        selectedMetrics=[lineage.PARAMS_FACTOR, lineage.MACS_FACTOR, lineage.SIZE_FACTOR, lineage.SPEEDUP, metric],
        showAllRuns=True,
    )
    yield _bar(lineage.DROP.format(metric), f"{metric} lost against the source")
    yield _bar(lineage.SPEEDUP, "times faster than the source")
    yield _chart(
        "DIFFERENCE",
        COSTS,
        "baseline",
        chartName="difference to the source",
        compareGroups=["Model metrics"],
        showChangeFromBaseline=True,
        showDifferencesOnly=True,
        baselineColumnUuid=baseline_run_id,
    )
    yield _line([lineage.TRAIN_LOSS], "training loss by epoch")
    yield _line([f"{lineage.EPOCH_VAL}{metric}"], f"validation {metric} by epoch")


def _chart(kind: str, section: str, what: str, **fields: Any) -> Chart:
    base = {"uuid": _id(f"{kind} {section} {what}"), "type": kind, "metricSectionId": _id(section)}
    return {**base, "deleted": False, "isGenerated": False, "runsCountToCompare": 20, **fields}


def _bar(metric: str, title: str) -> Chart:
    return _chart("BAR", COSTS, metric, metricKey=metric, displayName=title)


def _line(metrics: Sequence[str], title: str) -> Chart:
    return _chart(
        "LINE",
        TRAINING,
        metrics[0],
        metricKey=metrics[0],
        selectedMetricKeys=list(metrics),
        displayName=title,
        xAxisKey="step",
        yAxisKey="metric",
        yAxisExpressions=[],
        scaleType="linear",
        xAxisScaleType="linear",
        lineSmoothness=0,
        useGlobalXaxisKey=False,
        useGlobalLineSmoothing=False,
        selectedXAxisMetricKey="",
        ignoreOutliers=False,
        range={},
    )


def _metric(key: str) -> Chart:
    return {"key": key, "type": "METRIC"}


def _id(name: str) -> str:
    """The same for the same name, so that publishing twice changes nothing."""
    return str(uuid5(NAMESPACE_URL, f"secateur/{name}"))
