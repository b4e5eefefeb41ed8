"""MLflow fails in the middle of a flow, for real: a proxy between the flow and a real `mlflow server` sees to it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from mlflow.entities import Run

from pipelines import environment, registry
from pipelines.config import CompressConfig
from pipelines.errors import RegistryError, SourceError
from pipelines.flows import compress as flow
from pipelines.flows.compress import compress
from pipelines.flows.stages import measuring, pruning, training
from pipelines.registry import Exported, Store, patience
from pipelines.steps.compare import Comparison
from tests.conftest import quick_config
from tests.pipelines.flows.proxy import Fault, Proxy, proxy_to

CREATE_VERSION = "/model-versions/create"
AWKWARD = "half / größe 'n' \"maß\" 数字"  # names may hold slashes, spaces, quotes and any letter
TITLES = ["reconstruction-uniform-0.3", AWKWARD]


@pytest.fixture
def store(mlflow_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Without the proxy: to look at what there is."""
    monkeypatch.setenv(environment.HOME_VARIABLE, str(tmp_path))
    return registry.open_store(mlflow_url)


@pytest.fixture
def proxy(store: Store) -> Iterator[Proxy]:
    with proxy_to(store.uri) as proxy:
        yield proxy


@pytest.fixture
def name(store: Store) -> Iterator[str]:
    """A registered model of this test's own, with an experiment of its own: a copy of the demo's files."""
    name = f"away {uuid4().hex[:6]}"
    first = store.client.get_model_version("digits-resnet", "1")
    store.client.create_registered_model(name)
    model_id = str(first.source).partition("/")[2]
    store.client.create_model_version(name, str(first.source), first.run_id, model_id=model_id)
    yield name
    store.client.delete_registered_model(name)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same retries, sooner: after a tenth of a second each, and none by MLflow's own client."""
    delays = [0.1] * len(registry.RETRY_DELAYS)
    monkeypatch.setattr(patience, "RETRY_DELAYS", delays)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for task in (
        "find_key",
        "prepare",
        "find_earlier_result",
        "evaluate_source",
        "prune_candidate",
        "finetune_candidate",
        "measure_latency",
        "register_candidate",
        "publish",
    ):
        monkeypatch.setattr(flow, task, getattr(flow, task).with_options(retry_delay_seconds=delays))


def recipe(proxy: Proxy, name: str, **changes: Any) -> CompressConfig:
    return quick_config(
        proxy.url,
        **{
            "source": {"model": f"models:/{name}/1"},
            "calibration": {"samples": 64},
            "candidates": [{"ratio": 0.3}, {"name": AWKWARD, "ratio": 0.5, "criterion": "l2_norm"}],
            "finetune": {"epochs": 1, "learning_rate": 0.003, "threads": 1},
            "measure": {"batch_size": 16, "rounds": 3, "warmup": 1},
            "gate": {"max_accuracy_drop": 1},
            "registration": {"experiment": name},
            **changes,
        },
    )


def runs_of(store: Store, name: str) -> list[Run]:
    experiment = store.client.get_experiment_by_name(name)
    return list(store.client.search_runs([experiment.experiment_id])) if experiment else []


def check_all_is_there_once(store: Store, name: str, comparison: Comparison) -> None:
    """One run per candidate, closed; one version and one stored model per candidate; one table; the alias."""
    runs = runs_of(store, name)
    parent = f"compress {name} v1"
    assert sorted(run.info.run_name for run in runs) == sorted([parent, "baseline", *TITLES])
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert not any("compression.failure" in run.data.tags for run in runs)
    versions = {int(v.version): v for v in registry.search_versions(store, f"name='{name}'")}
    assert [row.version for row in comparison.rows] == [1, 2, 3] == sorted(versions)
    assert not any("pickle" in v.description for v in versions.values())
    of_candidates = {run.info.run_id for run in runs if run.info.run_name in TITLES}
    assert {versions[2].run_id, versions[3].run_id} == of_candidates
    experiment = store.client.get_experiment_by_name(name).experiment_id
    stored = store.client.search_logged_models([experiment])
    assert {f"models:/{model.model_id}" for model in stored} == {versions[2].source, versions[3].source}
    assert {str(model.status) for model in stored} == {"READY"}
    best = next(row for row in comparison.rows if row.title == comparison.challenger)
    assert dict(store.client.get_registered_model(name).aliases) == {"challenger": str(best.version)}
    for run in runs:
        if run.info.run_name in TITLES:
            assert [m.step for m in store.client.get_metric_history(run.info.run_id, "train_loss")] == [1]
            assert run.data.tags["mlflow.parentRunId"] == comparison.run_id
    table = store.client.download_artifacts(comparison.run_id, "comparison_table.json")
    assert [row[0] for row in json.loads(Path(table).read_text())["data"]] == ["source", *TITLES]


def test_the_flow_goes_on_when_mlflow_is_back(
    prefect: None, store: Store, proxy: Proxy, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Away for seconds, three times: before there are runs, in training, and while the last version is made."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(patience, "RETRY_DELAYS", (0.5, 1.5, 2.0))
    open_runs, finetune, create = registry.open_runs, training._finetune, registry.create_version
    left = ["open", "train", "create"]

    def first(real: Any, when: str) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            if when in left:
                left.remove(when)
                proxy.away_for(1)
            return real(*args, **options)

        return call

    monkeypatch.setattr(registry, "open_runs", first(open_runs, "open"))
    monkeypatch.setattr(training, "_finetune", first(finetune, "train"))
    monkeypatch.setattr(registry, "create_version", first(create, "create"))
    comparison = compress(recipe(proxy, name))
    assert not left
    check_all_is_there_once(store, name, comparison)


@pytest.mark.usefixtures("prefect", "impatient")
def test_away_for_too_long_is_a_clean_end_and_the_same_command_finishes(
    store: Store, proxy: Proxy, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.faults.append(Fault(CREATE_VERSION, "leave", skip=1))  # one candidate is registered, the other is not
    with pytest.raises(RegistryError) as caught:
        compress(recipe(proxy, name))
    assert caught.value.retryable
    assert "run again" in caught.value.fix
    made = {int(v.version): v for v in registry.search_versions(store, f"name='{name}'")}
    assert sorted(made) == [1, 2]
    assert made[2].description.startswith("Pruned version 1: ")
    assert set(made[2].tags) == {"source", "method", "ratio", "accuracy", "speedup"}
    assert made[2].tags["accuracy"] == f"{store.client.get_run(made[2].run_id).data.metrics['accuracy']:.4f}"
    assert not store.client.get_registered_model(name).aliases

    proxy.up()
    done: list[str] = []
    for module, step in ((pruning, "prune"), (training, "_finetune"), (measuring, "measure")):
        monkeypatch.setattr(module, step, lambda *_, step=step: done.append(step))
    comparison = compress(recipe(proxy, name))
    assert not done  # nothing is pruned, trained or timed again: it goes on where it was
    check_all_is_there_once(store, name, comparison)
    assert not (tmp_path / "work").exists() or not list((tmp_path / "work").iterdir())


@pytest.mark.parametrize("kind", ["refuse", "lose"])
@pytest.mark.usefixtures("prefect")
def test_a_500_where_something_is_made_makes_no_second_one(
    store: Store, proxy: Proxy, name: str, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With MLflow's own retries, as a user has them: they repeat whatever was answered with a 500."""
    monkeypatch.setattr(patience, "RETRY_DELAYS", (0.1, 0.1))
    once = ("/experiments/create", "/runs/create", "/logged-models", CREATE_VERSION, "/registered-models/alias")
    proxy.faults += [Fault(path, kind) for path in once]
    comparison = compress(recipe(proxy, name))
    assert not proxy.faults
    check_all_is_there_once(store, name, comparison)
    assert proxy.seen.count(f"/api/2.0/mlflow{CREATE_VERSION}") == 2


def test_texts_over_the_limits_are_cut(store: Store, name: str, tmp_path: Path) -> None:
    """5,000 characters for a description, 8,000 for a note: SQLite would take more, PostgreSQL refuses it."""
    first = store.client.get_model_version(name, "1")
    long = "Plain sentence first.\n" + "a line of a table\n" * 1000
    exported = Exported(str(first.source).partition("/")[2])
    experiment = store.client.get_run(first.run_id).info.experiment_id
    run_id = store.client.create_run(experiment).info.run_id
    version = registry.create_version(store, name, exported, run_id, {}, long)
    text = store.client.get_model_version(name, str(version)).description
    assert text.startswith("Plain sentence first.\n")
    assert text.endswith("(cut)")
    assert len(text) <= 5000
    (tmp_path / "files").mkdir()
    registry.log_files(store, run_id, tmp_path / "files", note=long)
    assert 7000 < len(store.client.get_run(run_id).data.tags["mlflow.note.content"]) <= 8000
    store.client.set_terminated(run_id)


@pytest.mark.usefixtures("prefect")
def test_a_model_whose_class_is_gone_is_refused_before_anything_is_made(
    store: Store, proxy: Proxy, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("pipelines.models.small_resnet")
    with pytest.raises(SourceError, match="cannot be imported") as caught:
        compress(recipe(proxy, name))
    assert "small_resnet" in caught.value.where + caught.value.what
    assert not runs_of(store, name)
    assert not any("create" in path for path in proxy.seen)
    assert not list((tmp_path / "work").iterdir())
