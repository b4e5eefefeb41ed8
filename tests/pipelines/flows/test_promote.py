"""Promotion against a real `mlflow server` and a real Prefect server."""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import torch

from pipelines import environment, registry
from pipelines.architecture import ModelRef, load_module, save_weights
from pipelines.config import Data, PromoteConfig
from pipelines.data import images_of, load_data
from pipelines.errors import PromotionError, SourceError
from pipelines.flows import trial as trials
from pipelines.flows.promote import promote
from pipelines.registry import Aliases, Export, Store
from pipelines.servers import free_port, mlflow_server

TRUST = ("pipelines.models", "tests")
AWKWARD = "größe 'n' maß 数字"


@pytest.fixture
def store(mlflow_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv(environment.HOME_VARIABLE, str(tmp_path))
    return registry.open_store(mlflow_url)


@pytest.fixture(scope="session")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Callable[[ModelRef, float], ModelRef]:
    """The same model with so much noise in its last layer."""

    def make(ref: ModelRef, noise: float) -> ModelRef:
        import dataclasses

        module = load_module(ref)
        torch.manual_seed(0)
        with torch.no_grad():
            module.head.weight.add_(noise * torch.randn_like(module.head.weight))  # type: ignore[union-attr,operator]
        path = tmp_path_factory.mktemp("damaged") / "weights.safetensors"
        return dataclasses.replace(ref, weights=str(save_weights(module, path)))

    return make


@pytest.fixture
def model(store: Store, damaged: Any, tmp_path: Path) -> str:
    """A registered model of this test's own: version 1 champion, 2 as good and challenger, 3 broken."""
    name = f"{AWKWARD} {uuid4().hex[:6]}"
    source = registry.resolve(store, "models:/digits-resnet@champion")
    ref = registry.fetch_model(store, source, tmp_path / "source", trust=TRUST)
    images = images_of(load_data(Data()).test, 7).numpy()
    store.client.create_registered_model(name)
    for number, noise in enumerate((0.0, 0.001, 3.0), start=1):
        run_id = store.client.create_run(source.experiment_id).info.run_id
        export = Export(run_id=run_id, name=name, model=damaged(ref, noise), images=images)
        exported = registry.export_model(store, export, tmp_path / f"export-{number}")
        assert registry.create_version(store, name, exported, run_id, {}, "Plain sentence.") == number
    registry.move_alias(store, name, "champion", 1)
    registry.move_alias(store, name, "challenger", 2)
    return name


def config(store: Store, name: str, which: str = "@challenger", **changes: Any) -> PromoteConfig:
    raw: dict[str, Any] = {
        "source": {"model": f"models:/{name}{which}", "trust": TRUST},
        "measure": {"batch_size": 16, "rounds": 3, "warmup": 1},
        "gate": {"max_accuracy_drop": 0.01, "min_agreement": 0.9},
        "tracking": {"uri": store.uri},
    }
    return PromoteConfig.model_validate({**raw, **changes})


def aliases(store: Store, name: str) -> dict[str, int]:
    return {alias: int(version) for alias, version in store.client.get_registered_model(name).aliases.items()}


def decisions(store: Store, name: str, version: int) -> list[str]:
    return [d.what for d in registry.decisions_in(store.client.get_model_version(name, str(version)).tags)]


def test_a_challenger_is_tried_promoted_copied_and_rolled_back(prefect: None, store: Store, model: str) -> None:
    prod = f"prod {model}"
    done = promote(config(store, model, promotion={"copy_to": {"model": prod}}), by="me", why="it is Friday")
    assert (done.version, done.before, done.copied_to) == (2, 1, f"models:/{prod}/1")
    assert aliases(store, model) == {"champion": 2, "previous": 1, "challenger": 2}
    assert aliases(store, prod) == {"champion": 1}
    version = store.client.get_model_version(model, "2")
    assert "it is Friday" in version.description
    assert "Against version 1: validation accuracy" in version.description
    assert store.client.get_model_version(prod, "1").source == f"models:/{model}/2"

    with pytest.raises(PromotionError, match="is champion already"):
        promote(config(store, model))
    with pytest.raises(PromotionError, match="does not pass the gate: lost"):
        promote(config(store, model, "/3"), by="me")
    assert decisions(store, model, 3) == ["refused by the gate"]
    assert aliases(store, model)["champion"] == 2
    assert registry.roll_back(store, model, Aliases(), by="me", why="Monday") == (2, 1)
    assert aliases(store, model) == {"champion": 1, "challenger": 2}


def test_what_the_registry_hands_out_afterwards_is_looked_at(
    store: Store, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tampered weights: not one byte may differ from what was judged. The promotion is taken back."""
    trial = trials.run_trial(config(store, model), tmp_path / "trial")
    assert trial.reasons == ()
    assert trial.facts.agreement == 1
    logged = store.client.get_logged_model(store.client.get_model_version(model, "2").source.rpartition("/")[2])
    (weights,) = Path(logged.artifact_location.removeprefix("file://")).rglob("weights.safetensors")
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    with pytest.raises(PromotionError, match="changed after it was registered"):
        registry.promote_version(
            trial.standing,
            2,
            Aliases(),
            by="me",
            why="",
            verify=lambda: trials.verify(config(store, model), trial, tmp_path / "again"),
        )
    assert aliases(store, model) == {"champion": 1, "challenger": 2}
    assert decisions(store, model, 2) == ["rolled back"]
    weights.write_bytes(before)
    trials.verify(config(store, model, promotion={"champion": "challenger"}), trial, tmp_path / "third")


def test_without_approval_nothing_moves_and_with_it_it_does(prefect: None, store: Store, model: str) -> None:
    asked = config(store, model, promotion={"approval": True})
    with pytest.raises(PromotionError, match="waits for an approval") as caught:
        promote(asked)
    assert "| validation accuracy |" in caught.value.what
    assert aliases(store, model) == {"champion": 1, "challenger": 2}
    promote(asked, approved_by="the boss")
    assert aliases(store, model)["champion"] == 2
    assert "by the boss" in store.client.get_model_version(model, "2").description


@pytest.mark.parametrize("approve", [True, False])
def test_a_deployments_run_is_suspended_until_somebody_answers(
    prefect: None, store: Store, model: str, approve: bool
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import Pause
    from prefect.flow_engine import run_flow
    from prefect.input import keyset_from_paused_state

    asked = config(store, model, promotion={"approval": True})
    parameters = {"config": asked.model_dump(mode="json")}
    deployment = promote.to_deployment("test", parameters=parameters).apply()

    async def submit() -> Any:
        async with get_client() as client:
            return await client.create_flow_run_from_deployment(deployment, parameters=parameters)

    async def read(run_id: Any) -> Any:
        async with get_client() as client:
            return await client.read_flow_run(run_id)

    async def resume(run_id: Any) -> Any:
        async with get_client() as client:
            state = (await client.read_flow_run(run_id)).state
            keys = keyset_from_paused_state(state)
            description = await client.read_flow_run_input(run_id, keys["description"])
            await client.resume_flow_run(run_id, run_input={"approve": approve, "by": "Ada", "reason": "I looked"})
            return json.loads(description)

    run = asyncio.run(submit())
    with pytest.raises(Pause):  # ends the process in which a worker runs it
        run_flow(promote, flow_run=asyncio.run(read(run.id)), parameters={"config": asked}, return_type="state")
    assert asyncio.run(read(run.id)).state.name == "Suspended"
    assert aliases(store, model)["champion"] == 1
    assert "It passes every gate." in asyncio.run(resume(run.id))
    state = run_flow(promote, flow_run=asyncio.run(read(run.id)), parameters={"config": asked}, return_type="state")
    assert state.is_completed() == approve  # type: ignore[union-attr]
    assert aliases(store, model)["champion"] == (2 if approve else 1)
    assert decisions(store, model, 2) == ["made champion" if approve else "not approved"]
    assert "by Ada. " in store.client.get_model_version(model, "2").description


RACE = """
import sys, time, pathlib
from pipelines import environment
environment.prepare()
from pipelines import registry
from pipelines.errors import PromotionError, SourceError
uri, name, me, folder = sys.argv[1:]
store, wins, told = registry.open_store(uri), 0, 0
for number in range(8):
    try:
        before = registry.standing(store, name, registry.Aliases())
        if number == 0:  # both have compared with the same champion
            pathlib.Path(folder, me).touch()
            while len(list(pathlib.Path(folder).iterdir())) < 2:
                time.sleep(0.01)
        registry.promote_version(before, {1: 2, 2: 3, 3: 1}[before.champion], registry.Aliases(), by=me, why="race")
        wins += 1
    except PromotionError as exc:
        told += 1
print(wins, told)
"""


def test_of_two_processes_at_once_one_wins_and_the_other_is_told(store: Store, model: str, tmp_path: Path) -> None:
    (folder := tmp_path / "start").mkdir()
    command = [sys.executable, "-c", RACE, store.uri, model]
    racers = [
        subprocess.Popen([*command, me, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for me in ("one", "two")
    ]
    outputs = [racer.communicate(timeout=120) for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0], outputs
    wins = {me: int(out.split()[-2]) for me, (out, _) in zip(("one", "two"), outputs, strict=True)}
    told = sum(int(out.split()[-1]) for out, _ in outputs)
    entries = registry.read_ledger(registry.open_ledger(store, model))
    assert len(entries) == sum(wins.values()) == 16 - told
    assert told > 0  # at least in the first round
    assert {me: sum(e.by == me for e in entries) for me in wins} == wins
    assert [e.number for e in entries] == list(range(1, len(entries) + 1))
    champions = [1, *(e.to for e in entries)]
    assert [e.champion for e in entries] == champions[:-1]  # each builds on the one before: no update was lost
    assert aliases(store, model)["champion"] == champions[-1]


@pytest.fixture
def other_store(tmp_path: Path, demo_home: Path) -> Store:
    shutil.copyfile(demo_home / "mlflow.db", tmp_path / "prod.db")
    other = registry.open_store(f"sqlite:///{tmp_path / 'prod.db'}")
    other.client.create_experiment(AWKWARD, (tmp_path / "prod-artifacts").as_uri())
    return other


def test_a_copy_in_another_registry_stands_on_its_own(store: Store, other_store: Store, model: str, tmp_path: Path) -> None:
    numbers = {registry.copy_version(store, model, 2, other_store, AWKWARD) for _ in range(2)}
    assert numbers == {1}
    copied = registry.resolve(other_store, f"models:/{AWKWARD}/1")
    first = registry.fetch_model(store, registry.resolve(store, f"models:/{model}/2"), tmp_path / "a", trust=TRUST)
    again = registry.fetch_model(other_store, copied, tmp_path / "b", trust=TRUST)
    assert Path(first.weights).read_bytes() == Path(again.weights).read_bytes()
    tags = other_store.client.get_model_version(AWKWARD, "1").tags
    assert tags["copied_from"] == f"models:/{model}/2 of {store.uri}"


@pytest.fixture
def prod(tmp_path: Path, demo_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Another `mlflow server`, which keeps its own files."""
    shutil.copyfile(demo_home / "mlflow.db", tmp_path / "server.db")
    monkeypatch.setenv(environment.HOME_VARIABLE, str(tmp_path))
    with mlflow_server(f"sqlite:///{tmp_path / 'server.db'}", free_port()) as server:
        yield registry.open_store(server.ready())


def test_what_is_copied_to_another_server_is_whole_and_a_copy_that_failed_is_made_up_for(
    prefect: None, store: Store, prod: Store, model: str, tmp_path: Path
) -> None:
    target = {"copy_to": {"model": AWKWARD, "tracking_uri": prod.uri}}
    logged = store.client.get_logged_model(store.client.get_model_version(model, "2").source.rpartition("/")[2])
    (weights,) = Path(logged.artifact_location.removeprefix("file://")).rglob("weights.safetensors")
    before = weights.read_bytes()
    promote(config(store, model), by="me")  # and then somebody asks for the copy
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    with pytest.raises(SourceError, match="changed after it was registered"):
        promote(config(store, model, "/2", promotion=target), by="me")
    assert list(registry.search_versions(prod, f"name={registry.quoted(AWKWARD)}")) == []
    experiment = prod.client.get_experiment_by_name(AWKWARD)
    assert prod.client.search_runs([experiment.experiment_id]) == []
    assert prod.client.search_logged_models([experiment.experiment_id]) == []

    weights.write_bytes(before)
    done = promote(config(store, model, "/2", promotion=target), by="me")
    assert (done.version, done.before, done.copied_to) == (2, 1, f"models:/{AWKWARD}/1")
    with pytest.raises(PromotionError, match="is champion already"):
        promote(config(store, model, "/2", promotion=target), by="me")
    copied = registry.resolve(prod, f"models:/{AWKWARD}@champion")
    assert Path(registry.fetch_model(prod, copied, tmp_path / "b", trust=TRUST).weights).read_bytes() == before
    assert prod.client.get_logged_model(copied.model_id).tags["secateur.seal"] == logged.tags["secateur.seal"]
    (link,) = registry.ancestry(prod, copied.uri)
    assert link.copied_from == f"models:/{model}/2 of {store.uri}"
    inside = registry.copy_version(prod, AWKWARD, 1, prod, f"{AWKWARD} 2")
    assert registry.copy_version(prod, AWKWARD, 1, prod, f"{AWKWARD} 2") == inside == 1
    assert registry.resolve(prod, f"models:/{AWKWARD} 2/1").model_id == copied.model_id
