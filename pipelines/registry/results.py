"""What a run holds once its work is done: numbers, forms, files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from mlflow.entities import Metric, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS, MLFLOW_RUN_NOTE

from pipelines import lineage
from pipelines.data import Data
from pipelines.records import Score, Timing
from pipelines.registry.decisions import fitted
from pipelines.registry.store import Store, mlflow_errors, now_ms
from pipelines.steps.compare import Row

MAX_NOTE = 8000  # characters of a run's tag


def log_result(
    store: Store, run_id: str, row: Row, model_id: str | None, data: Data, other_timings: Sequence[Timing] = ()
) -> None:
    """The final numbers, linked to the model and the data they were taken with; the same names for every row.

    `other_timings`: of further engines, batch sizes and numbers of threads.
    """
    now = now_ms()
    validation = {lineage.of_validation(name): number for name, number in _numbers(row.metric, row.validation).items()}
    numbers: dict[str, float | None] = {
        **_numbers(row.metric, row.test),
        **validation,
        lineage.AFTER_CUT.format(row.metric): row.after_cut,
        lineage.AFTER_COMPENSATION.format(row.metric): row.after_compensation,
        lineage.AFTER_PRUNING.format(row.metric): row.after_pruning,
        lineage.LATENCY_P50: row.latency_p50_ms,
        lineage.LATENCY_P90: row.latency_p90_ms,
        lineage.LATENCY_P99: row.latency_p99_ms,
        lineage.THROUGHPUT: row.throughput,
        lineage.PARAMS: row.params,
        lineage.MACS: row.macs,
        lineage.SIZE: row.size_bytes,
        lineage.PARAMS_FACTOR: row.params_factor,
        lineage.MACS_FACTOR: row.macs_factor,
        lineage.SIZE_FACTOR: row.size_factor,
        lineage.SPEEDUP: row.speedup,
        lineage.SPEEDUP_LOW: row.speedup_low,
        lineage.SPEEDUP_HIGH: row.speedup_high,
        lineage.IS_NOISY: row.is_noisy,
        lineage.ACTIVATIONS: row.activation_bytes,
        lineage.PEAK_MEMORY: row.peak_memory_bytes,
        lineage.ENERGY: row.energy_mj,
    }
    if row.latency_predicted_ms is not None and row.speedup_predicted is not None:
        numbers |= {lineage.LATENCY_PREDICTED: row.latency_predicted_ms, lineage.SPEEDUP_PREDICTED: row.speedup_predicted}
    for timing in other_timings:
        condition = lineage.condition_name(timing.condition)
        numbers |= {
            f"{lineage.LATENCY_P50}/{condition}": timing.p50_ms,
            f"{lineage.LATENCY_P99}/{condition}": timing.p99_ms,
            f"{lineage.SPEEDUP}/{condition}": timing.speedup,
        }
    metrics = [
        Metric(key, float(value), now, 0, model_id, data.name, data.digest, run_id)
        for key, value in numbers.items()
        if value is not None
    ]
    tags = [RunTag(lineage.WEIGHTS_DIGEST, row.weights_digest)]
    if row.notes:
        tags.append(RunTag(lineage.PRUNING_NOTES, "; ".join(row.notes)[:5000]))
    if row.verdict:
        tags.append(RunTag(lineage.GATE, row.verdict[:5000]))
    with mlflow_errors("the result cannot be recorded", run_id):
        store.client.log_batch(run_id, metrics, tags=tags)


def _numbers(metric: str, score: Score) -> dict[str, float | None]:
    """All that is known of one split, under the names of the test split."""
    drop = lineage.DROP.format(metric)
    return {
        **score.metrics,
        f"{metric}_low": score.low,
        f"{metric}_high": score.high,
        drop: score.drop,
        f"{drop}_low": score.drop_low,
        f"{drop}_high": score.drop_high,
        lineage.DROP_P_VALUE.format(metric): score.p_value,
        lineage.AGREEMENT: score.agreement,
        lineage.KL: score.kl,
    }


def log_forms(store: Store, run_id: str, numbers: Mapping[str, float], note: str) -> None:
    """Sizes, errors and accuracies of the forms of a version; what could not be made, as a tag."""
    metrics = [Metric(key, float(value), now_ms(), 0) for key, value in numbers.items()]
    tags = [RunTag(lineage.EXPORT_NOTES, note[:5000])] if note else []
    with mlflow_errors("the exported forms cannot be recorded", run_id):
        store.client.log_batch(run_id, metrics, tags=tags)


def log_files(store: Store, run_id: str, folder: Path, table: pd.DataFrame | None = None, note: str = "") -> None:
    """Everything in `folder` as artifacts, the table as one that the UI can sort, the note as the run's description."""
    store.select()
    with mlflow_errors("the files cannot be stored", run_id):
        if table is not None:  # not by `log_table`, which appends to what an earlier try has stored
            table.to_json(folder / lineage.COMPARISON_TABLE, orient="split", index=False, date_format="iso")
            known = json.dumps([{"path": lineage.COMPARISON_TABLE, "type": "table"}])
            store.client.set_tag(run_id, MLFLOW_LOGGED_ARTIFACTS, known)
        store.client.log_artifacts(run_id, str(folder))
        if note:
            store.client.set_tag(run_id, MLFLOW_RUN_NOTE, fitted(note, MAX_NOTE))
