"""What each model costs in time, side by side."""

from collections.abc import Sequence

from pipelines.flows.stages.job import Job
from pipelines.records import CompressedModel, Latency
from pipelines.steps.measure import measure


def measure_latency(job: Job, models: Sequence[CompressedModel]) -> list[Latency]:
    measured = measure({model.title: model.model for model in models}, job.data, job.config.measure)
    return [measured[model.title] for model in models]
