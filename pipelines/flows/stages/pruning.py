"""Candidate by candidate: what remains of the source."""

from collections.abc import Callable, Sequence

from pipelines.config import Candidate
from pipelines.errors import CandidateError
from pipelines.flows.stages.job import Job
from pipelines.flows.stages.request import latencies_of, request_of
from pipelines.flows.work import recall, remember
from pipelines.latencies import keep
from pipelines.records import CompressedModel
from pipelines.steps.calibrate import calibration_of
from pipelines.steps.compare import Failure
from pipelines.steps.prune import prune

PRUNED = "pruned.json"  # what a candidate is after this step, for a process after a kill


def prune_candidate(job: Job, candidate: Candidate, should_stop: Callable[[], bool] = lambda: False) -> CompressedModel:
    """Cut and mended; or what an earlier process made of it before it was killed."""
    folder = job.folder_of(candidate.title)
    if (known := recall(folder / PRUNED, CompressedModel)) is not None:
        return known
    request = request_of(job.config.measure, candidate)
    latencies = latencies_of(job.config.measure, candidate)
    calibration = calibration_of(job.data, job.config.calibration)
    pruned = prune(request, job.regularized or job.model, job.data, folder, calibration, latencies, should_stop, job.task)
    if latencies is not None:
        keep(latencies)
    return remember(folder / PRUNED, pruned)


def every_candidate_failed(failures: Sequence[Failure]) -> CandidateError:
    reasons = "\n".join(f"{failure.title}: {failure.reason}" for failure in failures)
    return CandidateError(f"no candidate got through\n{reasons}", "compress flow", "see the failed runs for the whole story")
