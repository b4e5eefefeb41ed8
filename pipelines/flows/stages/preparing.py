"""Everything that can be refused is refused before there is a run."""

import dataclasses
from pathlib import Path

import torch
from torch import nn

import pruning_core as pc
from pipelines import registry
from pipelines.architecture import ModelRef, load_module
from pipelines.config import Candidate, CompressConfig
from pipelines.config import Measure as MeasureSection
from pipelines.data import Data
from pipelines.errors import ConfigError
from pipelines.export import check_installed
from pipelines.flows.stages.identity import work_key
from pipelines.flows.stages.job import Job, read_data
from pipelines.flows.stages.request import latencies_of, request_of
from pipelines.promotion import gate_function
from pipelines.steps.finetune import check_hardware
from pipelines.steps.fits import check_fits
from pipelines.steps.measure import missing_package
from pipelines.steps.prune import example_batch
from pipelines.steps.regularize import penalty_of
from pipelines.tasks import Task, task_of


def prepare(config: CompressConfig, folder: Path) -> Job:
    """Find, load and try everything that the flow will need; make nothing in the registry. Raises SecateurError."""
    _check_engines(config.measure)
    check_installed(config.export.formats)
    check_hardware(config.finetune.hardware)
    if config.gate.function is not None:
        gate_function(config.gate.function, config.source.trust)
    data = read_data(config.data)
    task = task_of(data, config.task, config.source.trust)
    store = registry.open_store(config.tracking.uri)
    source = registry.resolve(store, config.source.model)
    if source.artifact_location:
        registry.check_writable(store, source.artifact_location)
    trust = config.source
    model = registry.fetch_model(
        store, source, folder / "source", trust=trust.trust, factory=trust.factory, kwargs=trust.kwargs
    )
    check_data_fits(model, data, task)
    _check_candidates(config, model, data)
    penalty_of(config.finetune.regularization.kind, load_module(model), example_batch(data))
    return Job(config=config, source=source, model=model, folder=str(folder), key=work_key(config, source, data))


def check_data_fits(model: ModelRef, data: Data, task: Task | None = None) -> None:
    """Raises DataError unless the model's answer to these samples can be judged by their targets."""
    check_fits(load_module(model), data, task or task_of(data))


def _check_engines(measure: MeasureSection) -> None:
    """Raises ConfigError where an engine or a device that is to be measured is not there."""
    for engine in measure.engines:
        if package := missing_package(engine):
            raise ConfigError(f"{engine!r} needs {package}", "measure.engines", "pip install secateur[onnx]")
    if measure.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("torch finds no CUDA device here", "measure.device", "use cpu, or a machine with one")


def _check_candidates(config: CompressConfig, model: ModelRef, data: Data) -> None:
    """Each candidate is planned once, so that an impossible one is known before the first is trained."""
    for number, candidate in enumerate(config.candidates):
        try:
            _try(candidate, config, load_module(model), data)
        except pc.SpecError as exc:
            raise ConfigError(exc.what, f"candidates[{number}] ({candidate.title}), {exc.where}", exc.fix) from exc


def _try(candidate: Candidate, config: CompressConfig, module: nn.Module, data: Data) -> None:
    """Plan without reading data, which takes long; where the criterion wants data and there are some, another stands in."""
    request, latencies = request_of(config.measure, candidate), latencies_of(config.measure, candidate)
    batch = example_batch(data, request.images)
    try:
        pc.plan(module, batch, request.spec, latencies=latencies)
    except pc.SpecError:
        if not config.calibration.samples:
            raise
        pc.plan(module, batch, dataclasses.replace(request.spec, criterion="l2_norm"), latencies=latencies)
