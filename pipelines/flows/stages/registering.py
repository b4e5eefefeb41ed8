"""One row of the comparison in its run, and what passed in the registry."""

import dataclasses
import shutil
from pathlib import Path

import pruning_core as pc
from pipelines import lineage, registry, report
from pipelines.architecture import load_module
from pipelines.data import images_of
from pipelines.errors import CandidateError
from pipelines.flows.exports import Least, export_forms
from pipelines.flows.stages.job import Job
from pipelines.records import CompressedModel, Latency
from pipelines.registry import Runs
from pipelines.steps.compare import Row
from pipelines.steps.evaluate import load_evaluation
from pipelines.steps.prune import REPAIRS, example_batch

EXPORT_CHECK_IMAGES = 7  # not the size of the example batch: shows that the batch axis is free


def register_candidate(job: Job, runs: Runs, baseline: Row, model: CompressedModel, latency: Latency, row: Row) -> Row:
    """Record one row in its run; store and register the model if it passed. The source's row is recorded only."""
    is_source = row is baseline or row.title == baseline.title
    run_id = runs.baseline if is_source else runs.of(row.title)
    folder = Path(job.folder) / "export" / run_id
    files = folder / "artifacts"
    shutil.rmtree(folder, ignore_errors=True)  # of a try that failed: MLflow saves no model over another
    files.mkdir(parents=True)
    _write_details(job, model, latency, files)
    if not is_source:
        plan = Path(model.model.plans[-1])
        (files / lineage.PLAN_FILE).write_bytes(plan.read_bytes())
        (files / lineage.REPAIRS_FILE).write_bytes(plan.with_name(REPAIRS).read_bytes())
    registry.log_files(job.store, run_id, files)
    if is_source or (not row.passed and job.config.registration.rejected == "skip"):
        model_id = job.source.model_id if is_source else None
        registry.log_result(job.store, run_id, row, model_id, job.data, latency.timings[1:])
        return dataclasses.replace(row, version=job.source.version) if is_source else row

    known = registry.find_registered(job.store, job.source.name, run_id)
    if known is not None:  # before its answer was lost, or the process killed
        return dataclasses.replace(row, version=known.version, export_notes=known.export_notes)
    if not job.again:
        known = registry.find_same(job.store, job.source.name, runs.experiment_id, job.key, row.title, row.weights_digest)
    if known is not None:  # by an earlier run, in which another candidate failed
        registry.log_result(job.store, run_id, row, None, job.data, latency.timings[1:])
        return dataclasses.replace(row, version=known.version, export_notes=known.export_notes)
    registry.forget_exports(job.store, runs.experiment_id, run_id)
    images = images_of(job.data.test, EXPORT_CHECK_IMAGES).numpy()
    export = registry.Export(run_id=run_id, name=job.source.name, model=model.model, images=images)
    least = Least(baseline.validation.value, job.config.gate.max_accuracy_drop)
    exports = export_forms(job.store, export, job.config.export, job.data, job.task, least, folder)
    registry.check_stored_weights(job.store, exports.version, row.weights_digest, f"{row.title}, run {run_id}")
    registry.log_result(job.store, run_id, row, exports.version.model_id, job.data, latency.timings[1:])
    tags = report.version_tags(row, job.source.version)
    if not row.passed:
        tags[lineage.TAG_REJECTED] = row.verdict
    text = report.describe_version(
        row, baseline, job.source.name, job.source.version, runs.experiment_id, run_id, job.flow_run_url
    )
    text += "\n" + report.describe_forms(exports.forms, exports.notes, job.model.origin)
    registry.check_claim(job.store, job.source.name, job.key, runs.parent)
    version = registry.create_version(job.store, job.source.name, exports.version, run_id, tags, text)
    return dataclasses.replace(row, version=version, export_notes="; ".join(exports.notes))


def _write_details(job: Job, model: CompressedModel, latency: Latency, files: Path) -> None:
    """How the model was judged and timed, and what each layer costs. Raises CandidateError for two sets of weights."""
    scores = model.scores
    assert scores is not None, model.title
    assert scores.folder is not None, model.title
    if latency.weights_digest != scores.weights_digest:
        raise CandidateError(
            f"other weights were timed ({latency.weights_digest}) than were evaluated ({scores.weights_digest})",
            model.title,
            "let nothing write into the data folder while a flow runs, and run it again",
        )
    report.write_evaluation(files, model.title, job.task, scores, load_evaluation(Path(scores.folder), "test"))
    report.write_latency(files, latency)
    layers = pc.inspect(load_module(model.model), example_batch(job.data, images=1)).to_pandas()
    layers.to_csv(files / lineage.LAYERS_CSV, index=False)
