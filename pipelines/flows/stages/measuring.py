"""What each model costs in time, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.flows.stages.job import Job
from pipelines.flows.work import recall, remember
from pipelines.records import CompressedModel, Latency
from pipelines.steps.measure import measure

MEASURED = "measured.json"  # for a process after a kill


@dataclass(frozen=True, slots=True)
class Measured:
    latencies: tuple[Latency, ...]


def measure_latency(job: Job, models: Sequence[CompressedModel]) -> list[Latency]:
    """Side by side; or what an earlier process measured of just these weights, which its versions speak of."""
    file = Path(job.folder) / MEASURED
    weights = [model.scores.weights_digest for model in models if model.scores]
    known = recall(file, Measured)
    if known is not None and [latency.weights_digest for latency in known.latencies] == weights:
        return list(known.latencies)
    measured = measure({model.title: model.model for model in models}, job.data, job.config.measure)
    return list(remember(file, Measured(tuple(measured[model.title] for model in models))).latencies)
