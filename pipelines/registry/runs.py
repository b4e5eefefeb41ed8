"""The runs of one compression: a parent, a baseline and a child per candidate, which always come to an end."""

import contextlib
import functools
import getpass
import json
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import requests
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput, Metric, Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS, MLFLOW_RUN_NOTE
from sqlalchemy.exc import SQLAlchemyError

from pipelines import lineage
from pipelines.data import Data
from pipelines.errors import RegistryError, UnderWayError, is_interrupt
from pipelines.records import Score, Timing
from pipelines.registry.claims import Claims, alive, claim
from pipelines.registry.decisions import fitted
from pipelines.registry.experiments import experiment_named, make_experiment
from pipelines.registry.patience import patiently, sent_once
from pipelines.registry.pull import SourceVersion
from pipelines.registry.resume import reopen
from pipelines.registry.store import RETRYABLE_CODES, Store, mlflow_errors
from pipelines.steps.compare import Row
from pipelines.steps.finetune import Epoch

RUNNING = RunStatus.to_string(RunStatus.RUNNING)
ABANDONED = "its process ended without a word; the same work was taken up again"
BATCH_LIMIT = 900  # metrics per request: MLflow refuses more than 1,000
MAX_NOTE = 8000  # characters of a run's tag


@dataclass(frozen=True, slots=True)
class CandidateRun:
    title: str
    run_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """Ids, to travel between tasks."""

    experiment_id: str
    parent: str
    baseline: str
    candidates: tuple[CandidateRun, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        return self.parent, self.baseline, *(candidate.run_id for candidate in self.candidates)

    def of(self, title: str) -> str:
        return next(candidate.run_id for candidate in self.candidates if candidate.title == title)


@contextlib.contextmanager
def open_runs(
    store: Store,
    source: SourceVersion,
    titles: Sequence[str],
    data: Data,
    *,
    experiment: str | None,
    tags: Mapping[str, str],
    earlier: Runs | None = None,
    claims: Claims | None = None,
) -> Iterator[Runs]:
    """Runs that are open inside the `with` and closed after it, however it ends: finished, failed or killed.

    Those of an `earlier` try of the same work go on, where they are still there. `claims`: those on the work that is
    begun. Raises RegistryError, and UnderWayError where another flow has begun it since they were read.
    """
    store.select()
    ids: list[str] = []
    try:
        if earlier is not None and patiently("the runs cannot be opened", store.shown, lambda: reopen(store, earlier.ids)):
            ids += earlier.ids
            patiently("the runs cannot be tagged", store.shown, lambda: _tag(store, earlier.ids, tags))
            if claims is not None:
                claim(store, claims, earlier.parent)
            runs = earlier
        else:
            runs = _make_runs(store, source, titles, data, experiment=experiment, tags=tags, ids=ids, claims=claims)
        with alive(store, runs.parent):
            yield runs
    except BaseException as exc:
        _close_if_possible(store, ids, "KILLED" if is_interrupt(exc) else "FAILED", reason=_reason(exc))
        raise
    else:
        _close(store, ids, "FINISHED")


def _make_runs(
    store: Store,
    source: SourceVersion,
    titles: Sequence[str],
    data: Data,
    *,
    experiment: str | None,
    tags: Mapping[str, str],
    ids: list[str],
    claims: Claims | None,
) -> Runs:
    """`ids` is told of each run as it is made; where another flow has begun the same work, nothing stays."""
    where = store.shown
    experiment_id = patiently("the experiment cannot be made", where, lambda: make_experiment(store, source, experiment))
    patiently("runs left open cannot be closed", where, lambda: _close_abandoned(store, experiment_id, tags))
    common = {
        **tags,
        lineage.SOURCE: source.uri,
        lineage.SOURCE_MODEL_ID: source.model_id or "",
        lineage.DATASET_DIGEST: data.digest,
    }

    def make(name: str, kind: str, tags: Mapping[str, str]) -> str:
        ids.append(_create_run(store, experiment_id, name, {**tags, lineage.KIND: kind}))
        return ids[-1]

    parent = make(f"compress {source.name} v{source.version}", "parent", common)
    if claims is not None:
        _claim_or_vanish(store, claims, ids)
    child = {**common, "mlflow.parentRunId": parent}
    baseline = make("baseline", "baseline", child)
    candidates = tuple(CandidateRun(title, make(title, "candidate", child)) for title in titles)
    patiently("the inputs cannot be recorded", where, lambda: _log_inputs(store, ids, source, data))
    return Runs(experiment_id=experiment_id, parent=parent, baseline=baseline, candidates=candidates)


def _claim_or_vanish(store: Store, claims: Claims, ids: list[str]) -> None:
    try:
        claim(store, claims, ids[0])
    except UnderWayError:
        store.client.delete_run(ids.pop())
        raise


@contextlib.contextmanager
def open_training(store: Store, name: str, artifact_location: str | None) -> Iterator[str]:
    """One run for a model that is trained here, in the experiment of that name; closed like the others."""
    ids: list[str] = []
    try:
        made = patiently("the experiment cannot be made", name, lambda: experiment_named(store, name, artifact_location))
        ids.append(_create_run(store, made, f"train {name}", {}))
        yield ids[0]
    except BaseException as exc:
        _close_if_possible(store, ids, "KILLED" if is_interrupt(exc) else "FAILED", reason=_reason(exc))
        raise
    else:
        _close(store, ids, "FINISHED")


def fail_run(store: Store, run_id: str, reason: str) -> None:
    """One candidate is lost, the others go on. Raises RegistryError."""
    _close(store, [run_id], "FAILED", reason)


class CurveLog:
    """The curve of a training, epoch by epoch as it comes, so that it can be watched.

    Quick epochs are sent together: what MLflow costs stays below `COST_SHARE` of the time.
    """

    COST_SHARE = 0.01

    def __init__(self, store: Store, run_id: str, primary: str) -> None:
        self.store, self.run_id, self.primary = store, run_id, primary
        self.waiting: list[Metric] = []
        self.told: set[int] = set()  # numbers of epochs
        self.sent_at, self.cost = time.monotonic(), 0.0

    def add(self, epoch: Epoch) -> None:
        """A store that does not answer is no reason to stop the training: it is tried again at the next epoch."""
        self._keep(epoch)
        if time.monotonic() - self.sent_at >= self.cost / self.COST_SHARE:
            with contextlib.suppress(RegistryError):
                self._send()

    def finish(self, curve: Sequence[Epoch], params: Mapping[str, object]) -> None:
        """What is not there yet, such as the epochs of a process that was killed, and the options. Raises RegistryError."""
        with mlflow_errors("the training cannot be recorded", self.run_id):
            there = {metric.step for metric in self.store.client.get_metric_history(self.run_id, lineage.TRAIN_LOSS)}
        for epoch in curve:
            if epoch.number not in self.told | there:
                self._keep(epoch)
        self._send([Param(key, str(value)) for key, value in params.items()])

    def _keep(self, epoch: Epoch) -> None:
        self.told.add(epoch.number)
        values = {
            lineage.TRAIN_LOSS: epoch.train_loss,
            f"{lineage.EPOCH_VAL}{self.primary}": epoch.val_metric,
            lineage.LEARNING_RATE: epoch.learning_rate,
            lineage.OPTIMIZER_STEPS: float(epoch.steps),
            lineage.EPOCH_SECONDS: epoch.seconds,
        }
        self.waiting += [Metric(key, value, _now(), epoch.number) for key, value in values.items()]

    def _send(self, params: Sequence[Param] = ()) -> None:
        began = time.monotonic()
        try:
            with mlflow_errors("the training cannot be recorded", self.run_id):
                for start in range(0, max(1, len(self.waiting)), BATCH_LIMIT):
                    self.store.client.log_batch(self.run_id, self.waiting[start : start + BATCH_LIMIT], params)
            self.waiting.clear()
        finally:
            self.sent_at = time.monotonic()
            self.cost = self.sent_at - began


def log_result(
    store: Store, run_id: str, row: Row, model_id: str | None, data: Data, other_timings: Sequence[Timing] = ()
) -> None:
    """The final numbers, linked to the model and the data they were taken with; the same names for every row.

    `other_timings`: of further engines, batch sizes and numbers of threads.
    """
    now = _now()
    validation = {lineage.of_validation(name): number for name, number in _numbers(row.metric, row.validation).items()}
    numbers: dict[str, float | None] = {
        **_numbers(row.metric, row.test),
        **validation,
        lineage.AFTER_CUT.format(row.metric): row.after_cut,
        lineage.AFTER_PRUNING.format(row.metric): row.after_pruning,
        lineage.LATENCY_P50: row.latency_p50_ms,
        lineage.LATENCY_P90: row.latency_p90_ms,
        lineage.LATENCY_P99: row.latency_p99_ms,
        lineage.THROUGHPUT: row.throughput,
        lineage.PARAMS: row.params,
        lineage.MACS: row.macs,
        lineage.SIZE: row.size_bytes,
        lineage.PARAMS_FACTOR: row.params_factor,
        lineage.MACS_FACTOR: row.macs_factor,
        lineage.SIZE_FACTOR: row.size_factor,
        lineage.SPEEDUP: row.speedup,
        lineage.SPEEDUP_LOW: row.speedup_low,
        lineage.SPEEDUP_HIGH: row.speedup_high,
        lineage.IS_NOISY: row.is_noisy,
        lineage.ACTIVATIONS: row.activation_bytes,
        lineage.PEAK_MEMORY: row.peak_memory_bytes,
        lineage.ENERGY: row.energy_mj,
    }
    if row.latency_predicted_ms is not None and row.speedup_predicted is not None:
        numbers |= {lineage.LATENCY_PREDICTED: row.latency_predicted_ms, lineage.SPEEDUP_PREDICTED: row.speedup_predicted}
    for timing in other_timings:
        condition = lineage.condition_name(timing.condition)
        numbers |= {
            f"{lineage.LATENCY_P50}/{condition}": timing.p50_ms,
            f"{lineage.LATENCY_P99}/{condition}": timing.p99_ms,
            f"{lineage.SPEEDUP}/{condition}": timing.speedup,
        }
    metrics = [
        Metric(key, float(value), now, 0, model_id, data.name, data.digest, run_id)
        for key, value in numbers.items()
        if value is not None
    ]
    tags = [RunTag(lineage.WEIGHTS_DIGEST, row.weights_digest)]
    if row.verdict:
        tags.append(RunTag(lineage.GATE, row.verdict[:5000]))
    with mlflow_errors("the result cannot be recorded", run_id):
        store.client.log_batch(run_id, metrics, tags=tags)


def _numbers(metric: str, score: Score) -> dict[str, float | None]:
    """All that is known of one split, under the names of the test split."""
    drop = lineage.DROP.format(metric)
    return {
        **score.metrics,
        f"{metric}_low": score.low,
        f"{metric}_high": score.high,
        drop: score.drop,
        f"{drop}_low": score.drop_low,
        f"{drop}_high": score.drop_high,
        lineage.DROP_P_VALUE.format(metric): score.p_value,
        lineage.AGREEMENT: score.agreement,
        lineage.KL: score.kl,
    }


def log_forms(store: Store, run_id: str, numbers: Mapping[str, float], note: str) -> None:
    """Sizes, errors and accuracies of the forms of a version; what could not be made, as a tag."""
    metrics = [Metric(key, float(value), _now(), 0) for key, value in numbers.items()]
    tags = [RunTag(lineage.EXPORT_NOTES, note[:5000])] if note else []
    with mlflow_errors("the exported forms cannot be recorded", run_id):
        store.client.log_batch(run_id, metrics, tags=tags)


def log_files(store: Store, run_id: str, folder: Path, table: pd.DataFrame | None = None, note: str = "") -> None:
    """Everything in `folder` as artifacts, the table as one that the UI can sort, the note as the run's description."""
    store.select()
    with mlflow_errors("the files cannot be stored", run_id):
        if table is not None:  # not by `log_table`, which appends to what an earlier try has stored
            table.to_json(folder / lineage.COMPARISON_TABLE, orient="split", index=False, date_format="iso")
            known = json.dumps([{"path": lineage.COMPARISON_TABLE, "type": "table"}])
            store.client.set_tag(run_id, MLFLOW_LOGGED_ARTIFACTS, known)
        store.client.log_artifacts(run_id, str(folder))
        if note:
            store.client.set_tag(run_id, MLFLOW_RUN_NOTE, fitted(note, MAX_NOTE))


def _close_abandoned(store: Store, experiment_id: str, tags: Mapping[str, str]) -> None:
    """Runs of the same work that a killed process left open. Only those of this place, where nobody else is at work."""
    if lineage.WORK_PLACE not in tags:
        return
    same = " and ".join(f"tags.`{tag}` = '{tags[tag]}'" for tag in (lineage.WORK_KEY, lineage.WORK_PLACE))
    found = store.client.search_runs([experiment_id], f"{same} and attributes.status = '{RUNNING}'", max_results=1000)
    parents_first = sorted(found, key=lambda run: run.data.tags.get(lineage.KIND) != "parent")
    for run in reversed(parents_first):
        _close_one(store, run.info.run_id, "KILLED", ABANDONED)


def _create_run(store: Store, experiment_id: str, name: str, tags: Mapping[str, str]) -> str:
    """One run, also where the answer to a request was lost: it is known by its name and its millisecond."""
    made_by = {"mlflow.user": _user(), "mlflow.source.name": "secateur", "mlflow.source.type": "JOB"}
    now, asked = _now(), False

    def find_or_make() -> str:
        nonlocal asked
        if asked:
            for run in store.client.search_runs([experiment_id], f"attributes.start_time = {now}"):
                if run.info.run_name == name:
                    return str(run.info.run_id)
        asked = True
        with sent_once():
            run = store.client.create_run(experiment_id, start_time=now, tags={**made_by, **tags}, run_name=name)
        return str(run.info.run_id)

    return patiently("the runs cannot be made", store.shown, find_or_make)


def _tag(store: Store, run_ids: Sequence[str], tags: Mapping[str, str]) -> None:
    for run_id in run_ids:
        store.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def _log_inputs(store: Store, run_ids: Sequence[str], source: SourceVersion, data: Data) -> None:
    profile = json.dumps({"train": len(data.train), "validation": len(data.validation), "test": len(data.test)})
    schema = json.dumps(
        {"x": ["float32", *data.sample_shape], "y": "int64" if data.classes else "float32", "classes": data.classes}
    )
    origin = json.dumps({"name": data.name})
    dataset = Dataset(data.name, data.digest, "secateur", origin, schema=schema, profile=profile)
    datasets = [DatasetInput(dataset, [InputTag("mlflow.data.context", "eval")])]
    models = [LoggedModelInput(source.model_id)] if source.model_id else []
    for run_id in run_ids:
        store.client.log_inputs(run_id, datasets, models)


def _close(store: Store, run_ids: Sequence[str], status: str, reason: str = "") -> None:
    """Raises RegistryError: a run that only seems to be under way would be a lie."""
    with _no_interrupt():
        for run_id in reversed(run_ids):  # children first
            close = functools.partial(_close_one, store, run_id, status, reason)
            patiently("the run cannot be closed", f"run {run_id} in {store.shown}", close)


def _close_if_possible(store: Store, run_ids: Sequence[str], status: str, reason: str) -> None:
    """After a failure, which is what should be told. Where the store is away, it is not asked for each of the runs."""
    with _no_interrupt():
        for run_id in reversed(run_ids):
            try:
                _close_one(store, run_id, status, reason)
            except MlflowException as exc:
                if exc.error_code in RETRYABLE_CODES:
                    return
            except (requests.RequestException, SQLAlchemyError, OSError):
                return


def _close_one(store: Store, run_id: str, status: str, reason: str) -> None:
    if store.client.get_run(run_id).info.status != RUNNING:
        return
    if reason:
        store.client.log_batch(run_id, tags=[RunTag(lineage.FAILURE, reason[:5000])])
    store.client.set_terminated(run_id, status)


@contextlib.contextmanager
def _no_interrupt() -> Iterator[None]:
    """A second Ctrl-C must not leave a run open."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _reason(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _now() -> int:
    return int(time.time() * 1000)
