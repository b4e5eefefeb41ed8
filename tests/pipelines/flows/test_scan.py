"""Scanning a real `mlflow server` with a real Prefect server; the webhook that does the same."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from mlflow.exceptions import MlflowException

from pipelines import dashboard, environment, registry
from pipelines.config import CompressConfig, ScanConfig
from pipelines.errors import CandidateError, RegistryError, SecateurError
from pipelines.flows import stages
from pipelines.flows.compress import compress
from pipelines.flows.deployments import deploy, schedule_of
from pipelines.flows.scan import consider, marked, scan
from pipelines.receiver import Event, receiver
from pipelines.registry import Store
from tests.conftest import quick_config
from tests.pipelines.receiver.serving import served


@pytest.fixture
def store(mlflow_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv(environment.HOME_VARIABLE, str(tmp_path))
    return registry.open_store(mlflow_url)


@pytest.fixture
def name(store: Store) -> Iterator[str]:
    """A registered model of this test's own, whose first version is champion: a copy of the demo's files."""
    name = f"modèle 模型 {uuid4().hex[:6]}"
    first = store.client.get_model_version("digits-resnet", "1")
    store.client.create_registered_model(name)
    model_id = str(first.source).partition("/")[2]
    store.client.create_model_version(name, str(first.source), first.run_id, model_id=model_id)
    registry.move_alias(store, name, "champion", 1)
    yield name
    store.client.delete_registered_model(name)


def recipe(store: Store, **changes: Any) -> CompressConfig:
    return quick_config(
        store.uri,
        **{
            "calibration": {"samples": 64},
            "candidates": [{"ratio": 0.3, "criterion": "l2_norm", "compensation": "none"}],
            "finetune": {"epochs": 0},
            "measure": {"batch_size": 16, "rounds": 3, "warmup": 1},
            "gate": {"max_accuracy_drop": 0},
            "registration": {"rejected": "register"},
            **changes,
        },
    )


def config(store: Store, name: str, **changes: Any) -> ScanConfig:
    return ScanConfig(recipe=recipe(store), models=name, **changes)


def test_scanning_twice_does_nothing_twice_and_leaves_our_own_alone(prefect: None, store: Store, name: str) -> None:
    first = scan(config(store, name))
    assert [(found.uri, found.outcome) for found in first] == [(f"models:/{name}/1", "started")]
    assert [(f.outcome, f.detail) for f in scan(config(store, name))] == [("done before", first[0].detail)]
    assert len(registry.marked_versions(store, name, "champion", None)) == 1

    # what fails the gate is registered because the recipe says so, with the reason, and gets no alias
    made = store.client.get_model_version(name, "2")
    assert made.tags["rejected"].startswith("lost 0.")
    assert dict(store.client.get_registered_model(name).aliases) == {"champion": "1"}
    run = store.client.get_run(made.run_id)
    assert run.data.tags["compression.gate"] == made.tags["rejected"]

    registry.move_alias(store, name, "champion", 2)
    assert [found.outcome for found in scan(config(store, name))] == ["made by secateur"]
    store.client.set_model_version_tag(name, "1", "compress", "it's wanted")
    tagged = config(store, name, alias=None, tag="compress=it's wanted")
    assert [(found.uri, found.outcome) for found in scan(tagged)] == [(f"models:/{name}/1", "done before")]


def test_without_a_dashboard_the_alias_moves_and_runs_that_are_elsewhere_are_found(
    prefect: None, store: Store, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("compareRunCharts")

    with monkeypatch.context() as patch:
        patch.setattr(dashboard, "view_of", broken)
        scanned = _scan_elsewhere(store, name)
    assert dict(store.client.get_registered_model(name).aliases) == {"champion": "1", "challenger": "2"}
    assert "no dashboard: KeyError: 'compareRunCharts'" in caplog.messages
    assert [found.outcome for found in scan(scanned)] == ["done before"]
    (experiment_id,) = registry.experiments_with_compressions(store, name)
    assert store.client.get_experiment(experiment_id).name == f"of {name}"
    assert set(registry.publish_dashboard(store, name, experiment_id)) == {
        "secateur: all compressions",
        "secateur: latest compression",
    }
    assert [link.uri for link in registry.ancestry(store, f"models:/{name}@challenger")] == [
        f"models:/{name}/{number}" for number in (1, 2)
    ]


def _scan_elsewhere(store: Store, name: str) -> ScanConfig:
    """The runs are in an experiment of their own."""
    elsewhere = {"gate": {"max_accuracy_drop": 1}, "registration": {"experiment": f"of {name}"}}
    scanned = ScanConfig(recipe=recipe(store, **elsewhere), models=name)
    assert [found.outcome for found in scan(scanned)] == ["started"]
    return scanned


def test_a_candidate_that_always_fails_is_not_tried_at_every_scan(
    prefect: None, store: Store, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = stages.prune_candidate

    def refuse(job: stages.Job, candidate: Any, should_stop: Any) -> Any:
        if candidate.ratio in blunt:
            raise CandidateError("the saw is blunt", "here", "sharpen it")
        return real(job, candidate, should_stop)

    monkeypatch.setattr(stages, "prune_candidate", refuse)
    ways = [{"ratio": ratio, "criterion": "l2_norm", "compensation": "none"} for ratio in (0.2, 0.3)]
    blunt = {0.3}
    partly = ScanConfig(recipe=recipe(store, candidates=ways), models=name)
    assert [found.outcome for found in scan(partly)] == ["started"]
    (again,) = scan(partly)
    assert again.outcome == "done before"
    assert again.detail.endswith("without l2_norm-uniform-0.3; retry_failed starts it again")
    blunt = set()
    assert [found.outcome for found in scan(partly.model_copy(update={"retry_failed": True}))] == ["started"]
    ratios = {int(v.version): v.tags["ratio"] for v in registry.search_versions(store, f"name = '{name}'") if v.tags}
    assert sorted(ratios) == [2, 3]  # the first is no second time registered
    assert ratios[2] != ratios[3]

    blunt = {0.2, 0.3}
    failing = ScanConfig(recipe=recipe(store, candidates=ways, data={"seed": 1}), models=name)
    first, second = scan(failing)[0], scan(failing)[0]
    assert (first.outcome, first.detail) == ("failed", "no candidate got through")
    assert (second.outcome, "retry_failed starts it again" in second.detail) == ("failed", True)
    blunt = {0.3}
    retried = failing.model_copy(update={"retry_failed": True})
    assert [found.outcome for found in scan(retried)] == ["started"]


SCAN = """
import pathlib, sys, time
from pipelines import environment
environment.prepare()
from pipelines import registry
from pipelines.config import ScanConfig
from pipelines.flows.scan import scan
folder, me = pathlib.Path(sys.argv[1]), sys.argv[2]
config = ScanConfig.model_validate_json((folder / "scan.json").read_text())
real = registry.open_runs
def together(*args, **options):
    (folder / f"ready-{me}").touch()  # has found nothing that was done, and nobody at it
    while len(list(folder.glob("ready-*"))) < 2:
        time.sleep(0.01)
    return real(*args, **options)
registry.open_runs = together
print([found.outcome for found in scan(config)])
"""


def test_of_two_scans_at_once_on_two_machines_one_starts_the_work(
    prefect: None, store: Store, name: str, tmp_path: Path
) -> None:
    from prefect.settings import PREFECT_API_URL

    (tmp_path / "scan.json").write_text(config(store, name).model_dump_json())
    scans = []
    for me in ("one", "two"):
        place = {environment.HOME_VARIABLE: str(tmp_path / me), "PREFECT_API_URL": str(PREFECT_API_URL.value())}
        scans.append(
            subprocess.Popen(
                [sys.executable, "-c", SCAN, str(tmp_path), me],
                cwd=Path(__file__).parents[3],
                env={**os.environ, **place, "PYTHONPATH": "."},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    outputs = [process.communicate(timeout=300) for process in scans]
    assert sorted(out.strip() for out, _ in outputs) == ["['started']", "['under way']"], outputs
    assert len(list(registry.search_versions(store, f"name={registry.quoted(name)}"))) == 2


def test_work_that_is_under_way_is_not_started_again(store: Store, name: str) -> None:
    scanned = config(store, name)
    version, key = stages.identify(recipe(store, source={"model": f"models:/{name}/1"}))
    tags = {"compression.key": key, "compression.kind": "parent"}
    run = store.client.create_run(version.experiment_id, tags=tags)
    found = consider(scanned, f"models:/{name}/1")
    assert (found.outcome, found.detail) == ("under way", f"run {run.info.run_id}")
    store.client.set_terminated(run.info.run_id, "KILLED")


def test_deployments_take_the_work_once_and_are_scheduled(prefect: None, store: Store, name: str) -> None:
    from prefect.client.orchestration import get_client

    made = deploy(recipe(store), schedules={"scan": "every 15m", "promote": "0 3 * * *"}, scanned={"models": name})
    assert made == ["compress/secateur", "promote/secateur", "scan/secateur"]
    assert deploy(recipe(store), scanned={"models": name}, schedules={"scan": "every 15m"}) == made

    async def read(full: str) -> Any:
        async with get_client() as client:
            return await client.read_deployment_by_name(full)

    scanning = asyncio.run(read("scan/secateur"))
    assert scanning.schedules[0].schedule.interval.total_seconds() == 900
    assert scanning.global_concurrency_limit.limit == 1
    assert scanning.work_pool_name == "secateur"
    assert scanning.entrypoint == "pipelines.flows.scan.scan"
    assert scanning.parameter_openapi_schema["properties"]["config"]  # a form

    by_deployment = ScanConfig.model_validate(scanning.parameters["config"])
    assert by_deployment.deployment == "compress/secateur"
    first, second = scan(by_deployment), scan(by_deployment)
    assert [found.outcome for found in (*first, *second)] == ["started", "under way"]
    assert first[0].detail == second[0].detail

    async def fail() -> None:
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterIdempotencyKey
        from prefect.states import Crashed

        async with get_client() as client:
            key = FlowRunFilterIdempotencyKey(any_=[f"secateur-{first[0].key}"])
            (run,) = await client.read_flow_runs(flow_run_filter=FlowRunFilter(idempotency_key=key))
            await client.set_flow_run_state(run.id, Crashed(), force=True)

    asyncio.run(fail())
    assert [found.outcome for found in scan(by_deployment)] == ["failed"]
    again = by_deployment.model_copy(update={"retry_failed": True})
    assert [found.outcome for found in (*scan(again), *scan(again))] == ["started", "under way"]


@pytest.mark.parametrize("text", ["every 15", "every x m", "now and then", "61 * * * *"])
def test_a_schedule_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SecateurError, match="is no schedule"):
        schedule_of(text)


def test_an_alias_that_moves_during_the_run_and_a_source_that_is_deleted(
    prefect: None, store: Store, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version pinned at the start is what counts, and it is needed no more once it has been read."""
    pinned = f"models:/{name}/1"
    first = store.client.get_model_version(name, "1")
    model_id = str(first.source).partition("/")[2]
    store.client.create_model_version(name, str(first.source), first.run_id, model_id=model_id)
    real = stages.prune_candidate

    def meanwhile(*args: Any) -> Any:
        registry.move_alias(store, name, "champion", 2)
        store.client.delete_model_version(name, "1")
        return real(*args)

    monkeypatch.setattr(stages, "prune_candidate", meanwhile)
    comparison = compress(recipe(store, source={"model": f"models:/{name}@champion"}))
    assert comparison.source == pinned
    made = store.client.get_model_version(name, str(comparison.rows[1].version))
    assert made.tags["source"] == "v1"
    assert dict(store.client.get_registered_model(name).aliases) == {"champion": "2"}
    links = registry.ancestry(store, f"models:/{name}/{made.version}")
    assert links[0].note == "deleted from the registry"


def test_a_webhook_of_mlflow_starts_what_a_scan_would_start(store: Store, name: str) -> None:
    secret, events = "between us", []

    def act(event: Event) -> None:
        events.extend((event, uri) for uri in marked(config(store, name), only=event.uri))

    with served(receiver(secret, act)) as url:
        hook = store.client.create_webhook(
            f"test-{uuid4().hex[:6]}", f"{url}/mlflow", ["model_version_alias.created"], secret=secret
        )
        try:
            store.client.test_webhook(hook.webhook_id)  # a sample: starts nothing
            registry.move_alias(store, name, "other", 1)
            deadline = time.monotonic() + 30
            while not events and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            store.client.delete_webhook(hook.webhook_id)
    expected = f"models:/{name}/1"
    assert [(event.action, event.uri, uri) for event, uri in events] == [("created", expected, expected)]


def test_names_that_no_registry_takes_are_errors_of_ours(store: Store) -> None:
    with pytest.raises(MlflowException, match="cannot contain"):
        store.client.create_registered_model("team/model")
    with pytest.raises(SecateurError):
        registry.resolve(store, "models:/team/model@champion")
    with pytest.raises(RegistryError):
        registry.copy_version(store, "digits-resnet", 1, store, "team/model")
