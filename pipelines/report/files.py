"""What is written beside the figures of one model: how it was judged and timed, class by class and layer by layer."""

import dataclasses
import json
from pathlib import Path

import pandas as pd

from pipelines import lineage
from pipelines.records import Latency, Scores
from pipelines.report.confusion import confusion_picture
from pipelines.steps.evaluate import Evaluation
from pipelines.tasks import Task


def write_evaluation(folder: Path, title: str, task: Task, scores: Scores, test: Evaluation) -> None:
    """Both splits with every metric, interval and test; of the test split a line per class and who is taken for whom."""
    as_dict = dataclasses.asdict(scores)
    del as_dict["folder"]  # of this run only
    text = json.dumps({"metric": task.primary, "higher_is_better": task.higher_is_better, **as_dict}, indent=1)
    (folder / lineage.METRICS_JSON).write_text(text, encoding="utf-8")
    if (table := task.per_class(test.kept)) is not None:
        table.to_csv(folder / lineage.PER_CLASS_CSV, index=False)
    if (confusion := task.confusion(test.kept)) is not None:
        confusion_picture(confusion, f"{title}: {len(test)} samples of the test split", folder / lineage.CONFUSION_FILE)


def write_latency(folder: Path, latency: Latency) -> None:
    """Every sample as JSON, and a table with a line per condition; one that could not be timed says why."""
    (folder / lineage.LATENCY_SAMPLES).write_text(json.dumps(dataclasses.asdict(latency)), encoding="utf-8")
    latency_table(latency).to_csv(folder / lineage.LATENCY_CSV, index=False)


def latency_table(latency: Latency) -> pd.DataFrame:
    """condition, engine, device, batch size, threads, p50, p90, p99, throughput, speedup and its interval, noise, failure"""
    lines = []
    for timing in latency.timings:
        numbers = dataclasses.asdict(timing)
        condition = numbers.pop("condition")
        del numbers["samples_ms"]
        named = {"condition": str(timing.condition), **condition, **numbers}
        lines.append({**named, "throughput": timing.throughput, "failure": ""})
    lines += [{"condition": condition, "failure": reason} for condition, reason in latency.failures.items()]
    return pd.DataFrame(lines)
