"""The source, evaluated once, and what a candidate is worth beside it."""

from pathlib import Path

from pipelines.architecture import ModelRef, load_module, stored_tensors, weights_digest
from pipelines.evaluations import evaluation_folder
from pipelines.flows.stages.job import Job
from pipelines.records import CompressedModel, Scores
from pipelines.steps.evaluate import Evaluations, assess_all, remembered
from pipelines.steps.evaluate.score import score
from pipelines.steps.prune import describe_source


def evaluate_source(job: Job) -> CompressedModel:
    own, folder = source_evaluations(job)
    return describe_source(job.model, job.data, scores_of(job, own, own, digest_of(job.model), folder))


def source_evaluations(job: Job) -> tuple[Evaluations, Path]:
    """The source is evaluated once, whichever task or flow asks first."""
    trust = job.config.source.trust
    folder = evaluation_folder(job.source.uri, digest_of(job.model), job.data.digest, job.task, trust)
    batch_size = job.config.evaluate.batch_size
    return remembered(folder, lambda: assess_all(load_module(job.model), job.data, job.task, batch_size)), folder


def digest_of(model: ModelRef) -> str:
    return weights_digest(stored_tensors(load_module(model)))


def scores_of(job: Job, own: Evaluations, source: Evaluations, digest: str, folder: Path) -> Scores:
    options = job.config.evaluate
    return Scores(
        validation=score(job.task, own.validation, source.validation, options),
        test=score(job.task, own.test, source.test, options),
        weights_digest=digest,
        folder=str(folder),
    )
