"""The runs of one compression: a parent, a baseline and a child per candidate, which always come to an end."""

import contextlib
import functools
import getpass
import json
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import requests
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from pipelines import lineage
from pipelines.data import Data
from pipelines.errors import UnderWayError, is_interrupt
from pipelines.registry.claims import Claims, alive, claim
from pipelines.registry.experiments import experiment_named, make_experiment
from pipelines.registry.patience import patiently, sent_once
from pipelines.registry.pull import SourceVersion
from pipelines.registry.resume import reopen
from pipelines.registry.store import RETRYABLE_CODES, Store, now_ms

RUNNING = RunStatus.to_string(RunStatus.RUNNING)
ABANDONED = "its process ended without a word; the same work was taken up again"


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
    now, asked = now_ms(), False

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
