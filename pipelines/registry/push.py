"""From a module to a registered version that anyone can load, with or without our code."""

import contextlib
import importlib.metadata
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow.pytorch
import numpy as np
import torch
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from numpy.typing import NDArray

from pipelines import lineage
from pipelines.architecture import ModelRef, load_module
from pipelines.errors import CandidateError
from pipelines.registry.naming import logged_name, quoted
from pipelines.registry.store import Store, mlflow_errors

EXPORT_LOCK = threading.Lock()  # torch.export and its loader keep their state in module globals
PACKAGES = ("mlflow", "torch", "numpy")  # what it takes to load and call the exported model
TOLERANCE = 1e-4  # between the module that was measured and the exported graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """A model to be stored, with the images it is checked on."""

    run_id: str
    name: str
    model: ModelRef
    images: NDArray[np.float32]  # [N, ...], N >= 5


@dataclass(frozen=True, slots=True)
class Exported:
    model_id: str

    @property
    def uri(self) -> str:
        return f"models:/{self.model_id}"


def export_model(store: Store, export: Export, folder: Path) -> Exported:
    """Store the model as pt2 with its weights and architecture. Raises CandidateError, RegistryError.

    It is saved in `folder` and compared with the module first; only what passed is logged. The graph takes any batch
    size, because its example holds more than one image. No MLflow run is made current, so this works in any thread.
    """
    saved = Model(run_id=export.run_id)
    with mlflow_errors("the model cannot be exported", export.name):
        path = _save(export, saved, folder)
    client = store.client
    with mlflow_errors("the model cannot be stored", export.name):
        experiment_id = client.get_run(export.run_id).info.experiment_id
        logged = client.create_logged_model(experiment_id, name=logged_name(export.name), source_run_id=export.run_id)
        try:
            saved.model_id = saved.model_uuid = logged.model_id
            saved.artifact_path = logged.artifact_location
            saved.save(str(path / "MLmodel"))
            client.log_model_artifacts(logged.model_id, str(path))
            client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
            client.log_outputs(export.run_id, [LoggedModelOutput(logged.model_id, step=0)])
        except BaseException:
            with contextlib.suppress(MlflowException):  # no half-written entry in the models tab
                client.delete_logged_model(logged.model_id)
            raise
    return Exported(str(logged.model_id))


def create_version(
    store: Store, name: str, exported: Exported, run_id: str, tags: Mapping[str, str], description: str
) -> int:
    """Tags, description and lineage in the one call that makes the version; a repeated call finds it instead."""
    with mlflow_errors("the version cannot be registered", name):
        for version in store.client.search_model_versions(f"name={quoted(name)} and run_id='{run_id}'"):
            return int(version.version)
        made = store.client.create_model_version(
            name, exported.uri, run_id, tags=dict(tags), description=description, model_id=exported.model_id
        )
    return int(made.version)


def move_alias(store: Store, name: str, alias: str, version: int) -> None:
    with mlflow_errors(f"the alias {alias!r} cannot be moved", name):
        store.client.set_registered_model_alias(name, alias, str(version))


def register_first(
    store: Store,
    export: Export,
    *,
    alias: str,
    metrics: Mapping[str, float],
    description: str,
    folder: Path,
) -> int:
    """Register a model that was trained here as the first version of `export.name`."""
    with mlflow_errors("the model cannot be registered", export.name):
        with contextlib.suppress(MlflowException):  # it is there already
            store.client.create_registered_model(export.name)
        exported = export_model(store, export, folder)
        now = int(time.time() * 1000)
        numbers = [Metric(key, value, now, 0, exported.model_id) for key, value in metrics.items()]
        store.client.log_batch(export.run_id, numbers)
        version = create_version(store, export.name, exported, export.run_id, {}, description)
        move_alias(store, export.name, alias, version)
    return version


def _extra_files(model: ModelRef, folder: Path) -> tuple[list[Path], dict[str, Any]]:
    """The weights and the plans under the names they are stored by, and the metadata that says how they go together."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / lineage.WEIGHTS_FILE
    shutil.copyfile(model.weights, weights)
    plans = []
    for number, path in enumerate(model.plans, start=1):
        plans.append(folder / f"plan-{number}.json")
        shutil.copyfile(path, plans[-1])
    architecture = {
        "factory": model.factory,
        "kwargs": dict(model.kwargs),
        "plans": [path.name for path in plans],
    }
    return [weights, *plans], {lineage.ARCHITECTURE_KEY: architecture}


def _save(export: Export, saved: Model, folder: Path) -> Path:
    module = load_module(export.model)
    with torch.inference_mode():
        expected = module(torch.from_numpy(export.images))
    inputs, outputs = ((-1, *shape[1:]) for shape in (export.images.shape, expected.shape))
    number = np.dtype(np.float32)
    files, metadata = _extra_files(export.model, folder / "extra")
    saved.metadata = metadata
    path = folder / "mlflow"
    with EXPORT_LOCK, _export_errors(export.name):
        mlflow.pytorch.save_model(
            module,
            str(path),
            mlflow_model=saved,
            serialization_format="pt2",
            input_example=export.images[:4],
            signature=ModelSignature(Schema([TensorSpec(number, inputs)]), Schema([TensorSpec(number, outputs)])),
            pip_requirements=[f"{name}=={_public_version(name)}" for name in PACKAGES],
            extra_files=[str(file) for file in files],
        )
        graph = mlflow.pytorch.load_model(str(path))
    with torch.inference_mode():
        error = float((graph(torch.from_numpy(export.images)) - expected).abs().max())
    if not error <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise CandidateError(
            f"the exported graph differs from the measured model by {error:.2g}",
            f"{export.name} in run {export.run_id}",
            "report this with the run's plan.json; nothing was registered",
        )
    return path


@contextlib.contextmanager
def _export_errors(name: str) -> Iterator[None]:
    """torch.export fails with many kinds of exceptions and many lines."""
    try:
        yield
    except (MlflowException, OSError):
        raise
    except Exception as exc:
        raise CandidateError(
            f"torch cannot export the model: {str(exc).strip().splitlines()[0]}",
            f"{name}, {type(exc).__name__}",
            "make its forward free of Python decisions that depend on the values of tensors",
        ) from exc


def _public_version(package: str) -> str:
    return importlib.metadata.version(package).partition("+")[0]
