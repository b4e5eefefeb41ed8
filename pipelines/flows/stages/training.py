"""Training: of a copy of the source before the cut, of the candidates after it."""

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

import pruning_core as pc
from pipelines import registry
from pipelines.architecture import load_module, save_weights, stored_tensors, weights_digest
from pipelines.errors import CandidateError, TrainingError
from pipelines.flows.stages.evaluating import scores_of, source_evaluations
from pipelines.flows.stages.job import EVALUATION, Job
from pipelines.flows.stages.pruning import prune_candidate
from pipelines.flows.work import recall, remember
from pipelines.records import CompressedModel
from pipelines.registry import Runs
from pipelines.steps.calibrate import calibration_size
from pipelines.steps.evaluate import assess_all, save_evaluations
from pipelines.steps.finetune import Epoch, Features, Trained, boundary_layers, finetune
from pipelines.steps.prune import example_batch
from pipelines.steps.regularize import Regularizer, penalty_of
from pipelines.steps.threads import torch_threads

logger = logging.getLogger(__name__)
FINETUNED = "finetuned.json"  # what a candidate is after this step, for a process after a kill


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who is told how a training goes."""

    on_epoch: Callable[[Epoch], None] = lambda _: None
    on_batches: Callable[[int, int], None] = lambda _done, _all: None
    should_stop: Callable[[], bool] = lambda: False


def regularize_source(job: Job, listeners: Listeners) -> Job:
    """Train a copy of the source with the penalty that the recipe asks for; the candidates are cut from it.

    The copy learns from the labels alone. The source itself stays what is compared with, and the teacher.
    """
    options = job.config.finetune
    asked = options.regularization
    weights = Path(job.folder) / "regularized" / "regularized.safetensors"
    if not weights.exists():
        module = load_module(job.model)
        callback = Regularizer(penalty_of(asked.kind, module, example_batch(job.data)), asked.weight)
        training = options.model_copy(update={"epochs": asked.epochs})
        with torch_threads(options.threads):
            finetune(module, job.data, job.task, training, weights.parent, callbacks=[callback], **_each(listeners))
        save_weights(module, weights)
    return dataclasses.replace(job, regularized=dataclasses.replace(job.model, weights=str(weights)))


def finetune_candidate(job: Job, runs: Runs, pruned: CompressedModel, listeners: Listeners) -> CompressedModel:
    """Train the pruned model; the weights go to a file of their own beside the pruned ones, the curve to its run.

    What an earlier process had finished is not trained again, what it had begun is gone on with.
    """
    log = registry.CurveLog(job.store, runs.of(pruned.title), job.task.primary)
    folder = job.folder_of(pruned.title)
    tuned = recall(folder / FINETUNED, CompressedModel)
    if tuned is None:
        tuned = remember(folder / FINETUNED, _finetune(job, pruned, listeners, log))
    log.finish(tuned.curve, {**_params(job, pruned.title), **tuned.training})
    return tuned


def _finetune(job: Job, pruned: CompressedModel, listeners: Listeners, log: registry.CurveLog) -> CompressedModel:
    folder = job.folder_of(pruned.title)

    def on_epoch(epoch: Epoch) -> None:
        log.add(epoch)
        listeners.on_epoch(epoch)

    module, trained = _train(job, pruned, dataclasses.replace(listeners, on_epoch=on_epoch))
    weights = save_weights(module, folder / "finetuned.safetensors")
    facts = {
        "kept_epoch": trained.kept,
        "batch_size_used": trained.batch_size,
        "accumulate_used": trained.accumulate,
        "training_notes": "; ".join(trained.notes) or "none",
    }
    model = dataclasses.replace(pruned.model, weights=str(weights))
    own = assess_all(module, job.data, job.task, job.config.evaluate.batch_size)
    kept = save_evaluations(own, folder / EVALUATION)
    scores = scores_of(job, own, source_evaluations(job)[0], weights_digest(stored_tensors(module)), kept)
    return dataclasses.replace(pruned, model=model, scores=scores, curve=trained.curve, training=facts)


def help_train(job: Job, listeners: Listeners) -> int:
    """On a further machine: what the first one trains is trained here, too, and nothing else is done. How many candidates.

    One that is lost there is lost here, and the next one follows on both. Raises SecateurError where all are lost.
    """
    if job.config.finetune.regularization.kind != "none":
        job = regularize_source(job, listeners)
    trained, lost = 0, None
    for candidate in job.config.candidates:
        try:
            _train(job, prune_candidate(job, candidate, listeners.should_stop), listeners)
            trained += 1
        except (CandidateError, TrainingError, pc.PruningError) as exc:
            logger.warning("%s: %s", candidate.title, exc)
            lost = exc
    if lost is not None and not trained:
        raise lost
    return trained


def _train(job: Job, pruned: CompressedModel, listeners: Listeners) -> tuple[nn.Module, Trained]:
    options, module = job.config.finetune, load_module(pruned.model)
    with torch_threads(options.threads):
        given = module, job.data, job.task, options, job.folder_of(pruned.title)
        taught = load_module(job.model), _features(pruned, module)
        return module, finetune(*given, teacher=taught[0], features=taught[1], **_each(listeners))


def _each(listeners: Listeners) -> dict[str, Any]:
    return {field.name: getattr(listeners, field.name) for field in dataclasses.fields(listeners)}


def _features(pruned: CompressedModel, module: nn.Module) -> Features:
    """Where the pruned model's features can be held against the source's: the last plan is the one that cut it."""
    return boundary_layers(pc.PruningPlan.from_json(Path(pruned.model.plans[-1]).read_text(encoding="utf-8")), module)


def _params(job: Job, title: str) -> dict[str, object]:
    options = job.config.finetune
    candidate = next(c for c in job.config.candidates if c.title == title)
    sections = ("distillation", "regularization", "hardware")
    return {
        **candidate.model_dump(exclude={"name", "ratios_from"}),
        "calibration_samples": calibration_size(job.data, job.config.calibration),
        "calibration_seed": job.config.calibration.seed,
        **options.model_dump(exclude=set(sections)),
        **{f"{name}_{key}": value for name in sections for key, value in getattr(options, name).model_dump().items()},
    }
