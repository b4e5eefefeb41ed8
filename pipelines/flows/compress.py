"""The compress flow: one registered model in, its smaller versions registered beside it."""

import contextlib
import functools
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from prefect import Task, flow, get_run_logger, runtime, task, unmapped
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner

from pipelines import lineage, registry, report
from pipelines.config import Candidate, CompressConfig
from pipelines.environment import work_folder
from pipelines.errors import CandidateError
from pipelines.flows import stages
from pipelines.flows.events import tell_judged
from pipelines.flows.links import flow_run_url, mlflow_address
from pipelines.flows.stages import Job
from pipelines.flows.work import begin_anew, recall, remember, work_place
from pipelines.progress import display
from pipelines.promotion import choose, judge
from pipelines.records import CompressedModel, Latency
from pipelines.registry import Runs
from pipelines.steps.calibrate import calibration_size
from pipelines.steps.compare import Comparison, Failure, Row, compare
from pipelines.steps.finetune import Epoch

P = ParamSpec("P")
R = TypeVar("R")

# training uses the cores that it was given anyway, and torch has one random state per process
ONE_AT_A_TIME: Any = ThreadPoolTaskRunner(max_workers=1)
RUNS = "runs.json"  # in the folder of the work, for a process that takes it up again
log = logging.getLogger(__name__)
STOP = threading.Event()  # set on Ctrl-C: training in a worker thread looks at it after every batch


def is_retryable(_task: object, _run: object, state: Any) -> bool:
    """Only failures of the infrastructure are worth another try, and only those that can pass by themselves."""
    return bool(getattr(state.result(raise_on_failure=False), "retryable", False))


def step(run_name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """A task that is tried again when that can help. Nothing is cached: results are references to this run's files."""
    return task(
        task_run_name=run_name,
        retries=len(registry.RETRY_DELAYS),
        retry_delay_seconds=list(registry.RETRY_DELAYS),
        retry_condition_fn=is_retryable,
        cache_policy=NO_CACHE,
    )


@step("find key")
def find_key(config: CompressConfig) -> str:
    return stages.key_of(config)


@step("prepare")
def prepare(config: CompressConfig, folder: str) -> Job:
    """Everything that can be refused is refused here, before there is a run."""
    return stages.prepare(config, Path(folder))


@step("find earlier result")
def find_earlier_result(job: Job) -> Comparison | None:
    return stages.earlier_result(job)


@step("evaluate source")
def evaluate_source(job: Job) -> CompressedModel:
    return stages.evaluate_source(job)


@step("regularize source")
def regularize_source(job: Job) -> Job:
    with _training(f"regularize {job.source.uri}") as listeners:
        return stages.regularize_source(job, listeners)


@step("prune {candidate.title}")
def prune_candidate(job: Job, candidate: Candidate) -> CompressedModel:
    pruned = stages.prune_candidate(job, candidate, STOP.is_set)
    get_run_logger().info("%.0f%% of the channels removed", 100 * pruned.removed)
    return pruned


@step("finetune {pruned.title}")
def finetune_candidate(job: Job, runs: Runs, pruned: CompressedModel) -> CompressedModel:
    with _training(f"fine-tune {pruned.title}") as listeners:
        return stages.finetune_candidate(job, runs, pruned, listeners)


@contextlib.contextmanager
def _training(work: str) -> Iterator[stages.Listeners]:
    """It is seen on the terminal batch by batch, and in the log epoch by epoch."""
    logger = get_run_logger()
    display().start(work, 1)

    def on_epoch(epoch: Epoch) -> None:
        logger.info("epoch %d: loss %.4f, validation %.4f", epoch.number, epoch.train_loss, epoch.val_metric)

    yield stages.Listeners(on_epoch, functools.partial(display().reach, work), STOP.is_set)
    display().finish(work)


@step("measure latency")
def measure_latency(job: Job, models: Sequence[CompressedModel]) -> list[Latency]:
    return stages.measure_latency(job, models)


@step("register {model.title}")
def register_candidate(job: Job, runs: Runs, baseline: Row, model: CompressedModel, latency: Latency, row: Row) -> Row:
    return stages.register_candidate(job, runs, baseline, model, latency, row)


@step("publish")
def publish(job: Job, runs: Runs, comparison: Comparison) -> None:
    for problem in stages.publish(job, runs, comparison):
        log.warning(problem)  # on the terminal
        get_run_logger().warning(problem)


@flow(name="compress", flow_run_name="compress {config.source.model}", task_runner=ONE_AT_A_TIME)
def compress(config: CompressConfig, again: bool = False) -> Comparison:
    """Compress a registered model by each candidate's recipe and register what passes the gate.

    Work that a finished run has done already is not done twice, unless `again`.
    """
    STOP.clear()
    try:
        with work_place(work_folder(), find_key(config)) as folder:
            return _compress_in(folder, config, again)
    except BaseException:
        STOP.set()
        raise


def _compress_in(folder: Path, config: CompressConfig, again: bool) -> Comparison:
    if config.finetune.hardware.num_nodes > 1:  # the other machines do
        begin_anew(folder)
    job = replace(prepare(config, str(folder)), flow_run_url=flow_run_url(), again=again)
    place = f"{socket.gethostname()}:{folder}"
    claims = registry.read_claims(job.store, job.source.name, job.key, place)  # before it is asked what has been done
    earlier = None if again else find_earlier_result(job)
    if earlier is not None:
        get_run_logger().info("this work was done before, in run %s", earlier.run_id)
        return earlier
    titles = [candidate.title for candidate in config.candidates]
    tags = {
        lineage.WORK_KEY: job.key,
        lineage.WORK_PLACE: place,
        lineage.FLOW_RUN_ID: str(runtime.flow_run.id or ""),
    }
    experiment = config.registration.experiment
    begun = recall(folder / RUNS, Runs)
    with registry.open_runs(
        job.store, job.source, titles, job.data, experiment=experiment, tags=tags, earlier=begun, claims=claims
    ) as runs:
        remember(folder / RUNS, runs)
        return _compress(job, runs)


def _compress(job: Job, runs: Runs) -> Comparison:
    baseline_future = evaluate_source.submit(job)
    if job.config.finetune.regularization.kind != "none":
        job = regularize_source(job)
    pruned = prune_candidate.map(unmapped(job), list(job.config.candidates))
    tuned = finetune_candidate.map(unmapped(job), unmapped(runs), pruned)
    baseline = baseline_future.result()
    models, failures = _collect(job, runs, pruned, tuned)

    latencies = measure_latency(job, [baseline, *models])  # nothing trains any more
    comparison = compare(job.source.uri, [baseline, *models], latencies, job.task)
    rules = job.config.registration
    comparison = judge(comparison, job.config.gate, rules.objective, job.config.source.trust)
    comparison = replace(
        comparison,
        failures=failures,
        calibrated_on=calibration_size(job.data, job.config.calibration),
        calibration_asked=job.config.calibration.samples,
        run_id=runs.parent,
        experiment_id=runs.experiment_id,
    )
    comparison = _register_all(job, runs, comparison, [baseline, *models], latencies)
    publish(job, runs, comparison)
    text = report.describe_parent(comparison, job.source.name, mlflow_address(job.store.uri))
    create_markdown_artifact(text, key="comparison")
    tell_judged(comparison, job.source.name)
    return comparison


def _register_all(
    job: Job, runs: Runs, comparison: Comparison, models: Sequence[CompressedModel], latencies: Sequence[Latency]
) -> Comparison:
    """Each row in its run, each model that passed in the registry; one that cannot be exported is no candidate."""
    rows, failures = [], list(comparison.failures)
    for model, latency, row in zip(models, latencies, comparison.rows, strict=True):
        try:
            rows.append(register_candidate(job, runs, comparison.rows[0], model, latency, row))
        except CandidateError as exc:
            failures.append(_fail(job, runs, row.title, exc))
    comparison = replace(comparison, rows=tuple(rows), failures=tuple(failures))
    return choose(comparison, job.config.registration.objective)


def _fail(job: Job, runs: Runs, title: str, cause: object) -> Failure:
    """The run says why, the others go on."""
    registry.fail_run(job.store, runs.of(title), str(cause))
    return Failure(title=title, reason=str(cause).splitlines()[0])


def _collect(
    job: Job, runs: Runs, pruned: Sequence[PrefectFuture[Any]], tuned: Sequence[PrefectFuture[Any]]
) -> tuple[list[CompressedModel], tuple[Failure, ...]]:
    """The candidates that got through; one that did not is marked and costs the others nothing."""
    models, failures = [], []
    for candidate, first, last in zip(job.config.candidates, pruned, tuned, strict=True):
        outcomes = [_outcome(future) for future in (first, last)]
        if isinstance(outcomes[1], CompressedModel):
            models.append(outcomes[1])
            continue
        cause = next(outcome for outcome in outcomes if not isinstance(outcome, CompressedModel))
        failures.append(_fail(job, runs, candidate.title, cause))
    if not models:
        raise stages.every_candidate_failed(failures)
    return models, tuple(failures)


def _outcome(future: PrefectFuture[Any]) -> object:
    """What a task gave, or the exception that ended it, or the words of its state if it never began."""
    future.wait()
    if not future.state.is_final():
        return future.state.message
    return future.result(raise_on_failure=False)
