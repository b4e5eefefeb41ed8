import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from mlflow.entities import LoggedModelStatus
from mlflow.models import Model

from pipelines import registry
from pipelines.architecture import load_module
from pipelines.errors import SourceError
from pipelines.models import digits_resnet
from pipelines.registry import Store
from pipelines.tasks import Classification

TRUST = ("pipelines.models",)
PICKLED = {"serialization_format": "pickle"}
X = np.random.default_rng(0).random((4, 1, 8, 8), dtype=np.float32)


@pytest.fixture
def store(store_uri: str) -> Store:
    return registry.open_store(store_uri)


def register(store: Store, name: str, folder: Path, **save: Any) -> str:
    """A version of a model that was logged by other people's means."""
    client = store.client
    experiment = client.get_experiment_by_name("digits-resnet").experiment_id
    run_id = client.create_run(experiment).info.run_id
    saved = Model(run_id=run_id, metadata=save.pop("metadata", None))
    torch.manual_seed(0)
    module = digits_resnet(width=8).eval()
    mlflow.pytorch.save_model(module, str(folder), mlflow_model=saved, pip_requirements=["torch"], **save)
    logged = client.create_logged_model(experiment, name=name, source_run_id=run_id)
    client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    client.create_registered_model(name)
    client.create_model_version(name, f"models:/{logged.model_id}", run_id, model_id=logged.model_id)
    return f"models:/{name}/1"


def test_an_alias_is_pinned(store: Store) -> None:
    source = registry.resolve(store, "models:/digits-resnet@champion")
    assert source.uri == "models:/digits-resnet/1"
    assert source == registry.resolve(store, "models:/digits-resnet/1")
    assert source.model_id is not None
    assert source.model_id.startswith("m-")
    assert registry.input_shape(store, source) == (1, 8, 8)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("models:/digit-resnet@champion", ["no registered model 'digit-resnet'", "did you mean 'digits-resnet'"]),
        ("models:/digits-resnet@champoin", ["no alias 'champoin'", "did you mean 'champion'"]),
        ("models:/digits-resnet/9", ["no version 9", "its versions: 1"]),
        ("digits-resnet", ["no model of a registry"]),
    ],
)
def test_what_is_not_there_is_named_with_the_nearest(store: Store, uri: str, words: list[str]) -> None:
    with pytest.raises(SourceError) as caught:
        registry.resolve(store, uri)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_the_demo_model_comes_back_trained(store: Store, tmp_path: Path) -> None:
    from pipelines.config import Data
    from pipelines.data import load_data
    from pipelines.steps.evaluate import evaluate

    source = registry.resolve(store, "models:/digits-resnet@champion")
    module = load_module(registry.fetch_model(store, source, tmp_path, trust=TRUST))
    assert evaluate(module, load_data(Data()).test, Classification(10))["accuracy"] > 0.97


def test_a_pickle_is_refused_unopened(store: Store, tmp_path: Path) -> None:
    uri = register(store, "pickled", tmp_path / "m", serialization_format="pickle")
    for weights in (tmp_path / "m").rglob("*.pth"):
        weights.write_bytes(b"would explode if it were opened")
    with pytest.raises(SourceError, match="run code out of the registry") as caught:
        registry.fetch_model(store, registry.resolve(store, uri), tmp_path / "d", trust=TRUST)
    assert "safetensors" in caught.value.fix


def test_weights_without_a_factory_need_one_from_the_user(store: Store, tmp_path: Path) -> None:
    from pipelines.architecture import save_weights

    torch.manual_seed(0)
    module = digits_resnet(width=8).eval()
    weights = save_weights(module, tmp_path / "weights.safetensors")
    source = registry.resolve(store, register(store, "half", tmp_path / "m", extra_files=[str(weights)], **PICKLED))
    with pytest.raises(SourceError, match="which code builds"):
        registry.fetch_model(store, source, tmp_path / "a", trust=TRUST)
    factory = {"factory": "pipelines.models:digits_resnet", "kwargs": {"width": 8}}
    ref = registry.fetch_model(store, source, tmp_path / "b", trust=TRUST, **factory)  # type: ignore[arg-type]
    x = torch.from_numpy(X)
    torch.testing.assert_close(load_module(ref)(x), module(x))


@pytest.mark.parametrize("plans", [["../MLmodel"], ["/etc/passwd"], ["missing.json"], [3], None])
def test_a_hostile_or_broken_architecture_is_refused(store: Store, tmp_path: Path, plans: Any) -> None:
    from pipelines.architecture import save_weights

    weights = save_weights(digits_resnet(width=8), tmp_path / "weights.safetensors")
    metadata = {"architecture": {"factory": "pipelines.models:digits_resnet", "kwargs": {"width": 8}, "plans": plans}}
    json.dumps(metadata)
    files = {"extra_files": [str(weights)], "serialization_format": "pt2", "input_example": X, "metadata": metadata}
    source = registry.resolve(store, register(store, "odd", tmp_path / "m", **files))
    with pytest.raises(SourceError, match="architecture cannot be read"):
        registry.fetch_model(store, source, tmp_path / "d", trust=TRUST)


def test_a_factory_that_is_not_trusted_does_not_run(store: Store, tmp_path: Path) -> None:
    from pipelines.architecture import save_weights

    weights = save_weights(digits_resnet(width=8), tmp_path / "weights.safetensors")
    trace = tmp_path / "it-ran"
    metadata = {"architecture": {"factory": "os:mkdir", "kwargs": {"path": str(trace)}, "plans": []}}
    files = {"extra_files": [str(weights)], "serialization_format": "pt2", "input_example": X, "metadata": metadata}
    source = registry.resolve(store, register(store, "evil", tmp_path / "m", **files))
    ref = registry.fetch_model(store, source, tmp_path / "d", trust=TRUST)
    with pytest.raises(SourceError, match="not trusted"):
        load_module(ref)
    assert not trace.exists()
