"""What each task of the compress flow does: steps and registry put together, callable without Prefect."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import pruning_core as pc
from pipelines import lineage, registry, report
from pipelines.architecture import ModelRef, load_module, save_weights, stored_tensors, weights_digest
from pipelines.config import Calibration as CalibrationSection
from pipelines.config import Candidate, CompressConfig
from pipelines.config import Data as DataSection
from pipelines.config import Measure as MeasureSection
from pipelines.data import Data, images_of, load_data, some
from pipelines.errors import CandidateError, ConfigError, DataError
from pipelines.evaluations import evaluation_folder
from pipelines.export import check_installed
from pipelines.flows.exports import Least, export_forms
from pipelines.flows.work import recall, remember
from pipelines.latencies import keep, latency_table
from pipelines.promotion import gate_function
from pipelines.records import CompressedModel, Latency, Scores
from pipelines.registry import Runs, SourceVersion, Store
from pipelines.steps.calibrate import calibration_of, calibration_size
from pipelines.steps.compare import Comparison, Failure, Row
from pipelines.steps.evaluate import Evaluations, assess_all, load_evaluation, remembered, save_evaluations
from pipelines.steps.evaluate.score import score
from pipelines.steps.finetune import Epoch, Features, boundary_layers, finetune
from pipelines.steps.measure import measure, missing_package
from pipelines.steps.prune import PLAN, REPAIRS, Request, describe_source, example_batch, prune
from pipelines.steps.regularize import Regularizer, penalty_of
from pipelines.steps.threads import torch_threads
from pipelines.tasks import Task, task_of

EVALUATION = "evaluation"  # of a candidate, in its folder
EXPORT_CHECK_IMAGES = 7  # not the size of the example batch: shows that the batch axis is free
# for a process after a kill: what a candidate is after each step, and how long they all take
PRUNED, FINETUNED, MEASURED = "pruned.json", "finetuned.json", "measured.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One checked request: from here on, failures are not the user's."""

    config: CompressConfig
    source: SourceVersion
    model: ModelRef
    folder: str
    key: str  # of the same work: source, data, recipe and code
    flow_run_url: str | None = None  # in the Prefect UI
    regularized: ModelRef | None = None  # a copy of the source, trained for the cut, where the recipe asks for one

    @property
    def data(self) -> Data:
        return _data(self.config.data)

    @property
    def task(self) -> Task:
        return task_of(self.data, self.config.task, self.config.source.trust)

    @property
    def store(self) -> Store:
        return Store(self.config.tracking.uri)

    def folder_of(self, title: str) -> Path:
        number = [candidate.title for candidate in self.config.candidates].index(title)
        return Path(self.folder) / f"candidate-{number}"


def _data(section: DataSection) -> Data:
    """Read once, whoever asks and however many ask at once."""
    with _reading:
        return _data_of(section.model_dump_json())


@functools.lru_cache(maxsize=2)
def _data_of(section: str) -> Data:
    return load_data(DataSection.model_validate_json(section))


_reading = threading.Lock()


def key_of(config: CompressConfig) -> str:
    """Equal for equal work: source version, data, recipe and code. Raises SecateurError."""
    data = _data(config.data)
    return work_key(config, registry.resolve(registry.open_store(config.tracking.uri), config.source.model), data)


def prepare(config: CompressConfig, folder: Path) -> Job:
    """Find, load and try everything that the flow will need; make nothing in the registry. Raises SecateurError."""
    _check_engines(config.measure)
    check_installed(config.export.formats)
    if config.gate.function is not None:
        gate_function(config.gate.function, config.source.trust)
    data = _data(config.data)
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


def identify(config: CompressConfig) -> tuple[SourceVersion, str]:
    """The pinned source and the key of the work that this recipe would do with it; nothing is downloaded."""
    source = registry.resolve(registry.open_store(config.tracking.uri), config.source.model)
    return source, work_key(config, source, _data(config.data))


def recommend(
    model_uri: str,
    candidate: Candidate,
    section: DataSection | None,
    calibration: CalibrationSection,
    measure: MeasureSection,
    *,
    tracking_uri: str,
    trust: Sequence[str],
    factory: str | None = None,
) -> tuple[str, pc.Recommendation]:
    """What `candidate` would do to a registered model, and which version that is; nothing is made in the registry."""
    data = _data(section) if section is not None else None
    store = registry.open_store(tracking_uri)
    source = registry.resolve(store, model_uri)
    with tempfile.TemporaryDirectory() as folder:
        model = registry.fetch_model(store, source, Path(folder), trust=trust, factory=factory)
        request = _request(measure, candidate)
        if data is None:
            batch, images = torch.zeros(request.images, *registry.input_shape(store, source)), None
        else:
            check_data_fits(model, data)
            batch, images = example_batch(data, request.images), calibration_of(data, calibration)
        latencies = _latencies(measure, candidate)
        try:
            found = pc.recommend(load_module(model), batch, request.spec, images, latencies=latencies)
        except pc.SpecError as exc:
            if data is None and exc.where == "calibration":
                raise ConfigError(exc.what, "--criterion", "name data to score with: --data, --data-path") from exc
            raise
    if latencies is not None:
        keep(latencies)
    return source.uri, found


def earlier_result(job: Job) -> Comparison | None:
    if job.source.experiment_id is None:
        return None
    return registry.find_finished(job.store, job.source.experiment_id, job.source.name, job.key)


def evaluate_source(job: Job) -> CompressedModel:
    own, folder = _source_evaluations(job)
    return describe_source(job.model, job.data, _scores(job, own, own, _digest(job.model), folder))


def _source_evaluations(job: Job) -> tuple[Evaluations, Path]:
    """The source is evaluated once, whichever task or flow asks first."""
    folder = evaluation_folder(job.source.uri, _digest(job.model), job.data.digest, job.task)
    batch_size = job.config.evaluate.batch_size
    return remembered(folder, lambda: assess_all(load_module(job.model), job.data, job.task, batch_size)), folder


def _digest(model: ModelRef) -> str:
    return weights_digest(stored_tensors(load_module(model)))


def _scores(job: Job, own: Evaluations, source: Evaluations, digest: str, folder: Path) -> Scores:
    options = job.config.evaluate
    return Scores(
        validation=score(job.task, own.validation, source.validation, options),
        test=score(job.task, own.test, source.test, options),
        weights_digest=digest,
        folder=str(folder),
    )


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


def prune_candidate(job: Job, candidate: Candidate, should_stop: Callable[[], bool] = lambda: False) -> CompressedModel:
    """Cut and mended; or what an earlier process made of it before it was killed."""
    folder = job.folder_of(candidate.title)
    if (known := recall(folder / PRUNED, CompressedModel)) is not None:
        return known
    request = _request(job.config.measure, candidate)
    latencies = _latencies(job.config.measure, candidate)
    calibration = calibration_of(job.data, job.config.calibration)
    pruned = prune(request, job.regularized or job.model, job.data, folder, calibration, latencies, should_stop, job.task)
    if latencies is not None:
        keep(latencies)
    return remember(folder / PRUNED, pruned)


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
    options, folder = job.config.finetune, job.folder_of(pruned.title)
    module = load_module(pruned.model)

    def on_epoch(epoch: Epoch) -> None:
        log.add(epoch)
        listeners.on_epoch(epoch)

    told = _each(dataclasses.replace(listeners, on_epoch=on_epoch))
    with torch_threads(options.threads):
        trained = finetune(
            module,
            job.data,
            job.task,
            options,
            folder,
            teacher=load_module(job.model),
            features=_features(pruned, module),
            **told,
        )
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
    scores = _scores(job, own, _source_evaluations(job)[0], weights_digest(stored_tensors(module)), kept)
    return dataclasses.replace(pruned, model=model, scores=scores, curve=trained.curve, training=facts)


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
    if not row.passed:
        registry.tag_run(job.store, run_id, {lineage.GATE: row.verdict})
    if is_source or (not row.passed and job.config.registration.rejected == "skip"):
        model_id = job.source.model_id if is_source else None
        registry.log_result(job.store, run_id, row, model_id, job.data, latency.timings[1:])
        return dataclasses.replace(row, version=job.source.version) if is_source else row

    known = registry.find_registered(job.store, job.source.name, run_id)
    if known is not None:  # before its answer was lost, or the process killed
        return dataclasses.replace(row, version=known.version, notes=known.notes)
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
    version = registry.create_version(job.store, job.source.name, exports.version, run_id, tags, text)
    return dataclasses.replace(row, version=version, notes="; ".join(exports.notes))


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


def publish(job: Job, runs: Runs, comparison: Comparison) -> None:
    """The parent run's table and plot, and then, as the very last step, the alias."""
    files = Path(job.folder) / "report"
    files.mkdir(parents=True, exist_ok=True)
    table = report.to_frame(comparison)
    table.to_csv(files / lineage.COMPARISON_CSV, index=False)
    as_json = json.dumps(dataclasses.asdict(comparison), indent=1)
    (files / lineage.COMPARISON_JSON).write_text(as_json, encoding="utf-8")
    (files / lineage.CONFIG_FILE).write_text(job.config.to_yaml(), encoding="utf-8")
    report.accuracy_latency_plot(comparison, files / lineage.PLOT_FILE)
    page = report.html_report(comparison, _widths(job, comparison), _confusions(job, comparison))
    (files / lineage.REPORT_FILE).write_text(page, encoding="utf-8")
    note = report.describe_parent(comparison, job.source.name)
    registry.log_files(job.store, runs.parent, files, table, note)
    registry.publish_dashboard(job.store, job.source.name, runs.experiment_id)
    best = next((row for row in comparison.rows if row.title == comparison.challenger), None)
    if best is not None and best.version is not None:
        registry.move_alias(job.store, job.source.name, job.config.registration.alias, best.version)


def _widths(job: Job, comparison: Comparison) -> dict[str, list[report.Width]]:
    """Group by group, of every candidate whose plan is there."""
    plans = {row.title: job.folder_of(row.title) / PLAN for row in comparison.rows[1:]}
    cuts = {title: pc.PruningPlan.from_json(plan.read_text("utf-8")).cuts for title, plan in plans.items() if plan.exists()}
    return {title: [report.Width(c.group, c.width, len(c.keep)) for c in of_it] for title, of_it in cuts.items()}


def _confusions(job: Job, comparison: Comparison) -> report.Confusions | None:
    """Of the best candidate and the source, where the task tells classes apart."""
    if comparison.challenger is None:
        return None
    folders = _source_evaluations(job)[1], job.folder_of(comparison.challenger) / EVALUATION
    source, candidate = (job.task.confusion(load_evaluation(folder, "test").kept) for folder in folders)
    if source is None or candidate is None:
        return None
    return report.Confusions(comparison.challenger, source, candidate)


def every_candidate_failed(failures: Sequence[Failure]) -> CandidateError:
    reasons = "\n".join(f"{failure.title}: {failure.reason}" for failure in failures)
    return CandidateError(f"no candidate got through\n{reasons}", "compress flow", "see the failed runs for the whole story")


def check_data_fits(model: ModelRef, data: Data, task: Task | None = None) -> None:
    """Raises DataError unless the model's answer to these samples can be judged by their targets."""
    kind = f"{data.classes} classes" if data.classes else "numbers to predict"
    where = f"data set {data.name!r}, inputs {list(data.sample_shape)}, {kind}, targets {list(data.target_shape)}"
    task = task or task_of(data)
    x, target = some(data.train, 2)
    try:
        with torch.inference_mode():
            answer = load_module(model)(x)
    except RuntimeError as exc:
        raise DataError(f"the model cannot take these images: {exc}", where, "name the data the model was made for") from exc
    if problem := task.mismatch(answer, target):
        fix = f"name a model for {type(task).__name__.lower()}, and the data it was made for; or another task"
        raise DataError(problem, where, fix)


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
    request, latencies = _request(config.measure, candidate), _latencies(config.measure, candidate)
    batch = example_batch(data, request.images)
    try:
        pc.plan(module, batch, request.spec, latencies=latencies)
    except pc.SpecError:
        if not config.calibration.samples:
            raise
        pc.plan(module, batch, dataclasses.replace(request.spec, criterion="l2_norm"), latencies=latencies)


def _request(measure: MeasureSection, candidate: Candidate) -> Request:
    """The candidate in the engine's terms: latency is that of a batch, and macs are counted over the whole batch."""
    images = measure.batch_size if "latency_ms" in candidate.budget else 2
    spec = candidate.spec()
    if isinstance(limit := spec.budget.get("macs"), float):
        spec = dataclasses.replace(spec, budget={**spec.budget, "macs": limit * images})
    return Request(title=candidate.title, asked=candidate.asked, ratio=candidate.ratio, spec=spec, images=images)


def _latencies(measure: MeasureSection, candidate: Candidate) -> pc.LatencyTable | None:
    return latency_table(measure.threads) if "latency_ms" in candidate.budget else None


def work_key(config: CompressConfig, source: SourceVersion, data: Data) -> str:
    """Of the same work: source, data, recipe and code. 16 hexadecimal digits."""
    recipe = config.model_dump(
        mode="json",
        include={"task", "calibration", "candidates", "finetune", "evaluate", "measure", "export", "gate", "registration"},
    )
    parts = [source.uri, source.model_id, source.run_id, data.digest, recipe, importlib.metadata.version("secateur")]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
