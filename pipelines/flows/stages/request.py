"""A candidate in the engine's terms."""

import dataclasses

import pruning_core as pc
from pipelines.config import Candidate
from pipelines.config import Measure as MeasureSection
from pipelines.latencies import latency_table
from pipelines.steps.prune import Request


def request_of(measure: MeasureSection, candidate: Candidate) -> Request:
    """The candidate in the engine's terms: latency is that of a batch, and macs are counted over the whole batch."""
    images = measure.batch_size if "latency_ms" in candidate.budget else 2
    spec = candidate.spec()
    if isinstance(limit := spec.budget.get("macs"), float):
        spec = dataclasses.replace(spec, budget={**spec.budget, "macs": limit * images})
    return Request(title=candidate.title, asked=candidate.asked, ratio=candidate.ratio, spec=spec, images=images)


def latencies_of(measure: MeasureSection, candidate: Candidate) -> pc.LatencyTable | None:
    return latency_table(measure.threads, measure.device) if "latency_ms" in candidate.budget else None
