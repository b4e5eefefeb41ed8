"""From a module to a registered version that anyone can load, with or without our code."""

import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mlflow.pytorch
import numpy as np
import torch
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines import lineage
from pipelines.architecture import ModelRef, load_module
from pipelines.errors import ExportError
from pipelines.export import Form, batch_sizes, export_errors
from pipelines.exported_graph import EXPORT_LOCK, TOLERANCE, difference
from pipelines.registry.decisions import fitted
from pipelines.registry.logged import log_model, requirements, signature_of
from pipelines.registry.patience import patiently, sent_once
from pipelines.registry.resume import version_of_run
from pipelines.registry.store import Store, mlflow_errors, now_ms

PACKAGES = ("mlflow", "torch", "numpy")  # what it takes to load and call the exported model


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """A model to be stored, with the images it is checked on."""

    run_id: str
    name: str
    model: ModelRef
    images: NDArray[np.float32]  # [N, ...], N >= 5


@dataclass(frozen=True, slots=True)
class Exported:
    """What is stored; `program` is the file of its exported graph, and where there is none, `note` says why."""

    model_id: str
    program: Path | None = None
    form: Form | None = None
    note: str = ""

    @property
    def uri(self) -> str:
        return f"models:/{self.model_id}"


def export_model(store: Store, export: Export, folder: Path) -> Exported:
    """Store the model as pt2 with its weights and architecture. Raises CandidateError, RegistryError.

    It is saved in `folder` and compared with the module first; only what passed is logged. The graph takes any batch
    size, because its example holds more than one image. No MLflow run is made current, so this works in any thread.
    A model with code of its own that torch cannot export right is stored as MLflow stores such models otherwise, as a
    pickle: we need only the weights beside it, and whoever has the code can load it.
    """
    module, note, form = load_module(export.model), "", None
    images = torch.from_numpy(export.images)
    with torch.no_grad():
        expected = module(images)
    with mlflow_errors("the model cannot be exported", export.name):
        try:
            saved, path = _save(export, module, expected, folder / "mlflow", "pt2")
            program = path / "data" / "model.pt2"
            form = Form(kind="pt2", size_bytes=program.stat().st_size, error=_check_graph(program, images, expected))
        except ExportError as exc:
            if export.model.program is not None:
                raise
            note = f"{exc.what}; stored as a pickle, which loads where the model's own code is installed"
            saved, path = _save(export, module, expected, folder / "pickled", "pickle")
    model_id = log_model(store, export.run_id, export.name, saved, path)
    return Exported(model_id, None if note else program, form, note)


def create_version(
    store: Store, name: str, exported: Exported, run_id: str, tags: Mapping[str, str], description: str
) -> int:
    """Tags, description and lineage in the one call that makes the version; a repeated call finds it instead.

    An answer that was lost is no reason to make it twice: one request is sent at a time, and looked for if it fails.
    """

    def find_or_make() -> int:
        known = version_of_run(store, name, run_id)
        if known is not None:
            return known
        with sent_once():
            made = store.client.create_model_version(
                name, exported.uri, run_id, tags=dict(tags), description=fitted(description), model_id=exported.model_id
            )
        return int(made.version)

    return patiently("the version cannot be registered", name, find_or_make)


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
        now = now_ms()
        numbers = [Metric(key, value, now, 0, exported.model_id) for key, value in metrics.items()]
        store.client.log_batch(export.run_id, numbers)
        version = create_version(store, export.name, exported, export.run_id, {}, description)
        move_alias(store, export.name, alias, version)
    return version


def _extra_files(model: ModelRef, folder: Path, serialization: str) -> tuple[list[Path], dict[str, Any]]:
    """The weights and the plans under the names they are stored by, and the metadata that says how they go together."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / lineage.WEIGHTS_FILE
    shutil.copyfile(model.weights, weights)
    plans = []
    for number, path in enumerate(model.chain, start=1):
        plans.append(folder / f"plan-{number}.json")
        shutil.copyfile(path, plans[-1])
    architecture: dict[str, Any] = {"plans": [path.name for path in plans]}
    if model.factory is not None:
        architecture = {"factory": model.factory, "kwargs": dict(model.kwargs), **architecture}
    elif serialization == "pt2":
        architecture = {"program": "model.pt2", **architecture}
    return [weights, *plans], {lineage.ARCHITECTURE_KEY: architecture}


def _save(
    export: Export, module: nn.Module, expected: Tensor, path: Path, serialization: Literal["pt2", "pickle"]
) -> tuple[Model, Path]:
    """In MLflow's layout on this disk. Raises ExportError where torch cannot."""
    files, metadata = _extra_files(export.model, path.with_name(f"{path.name}-extra"), serialization)
    saved = Model(run_id=export.run_id, metadata=metadata)
    with EXPORT_LOCK, export_errors(f"torch cannot store the model as {serialization}", export.name):
        mlflow.pytorch.save_model(
            module,
            str(path),
            mlflow_model=saved,
            serialization_format=serialization,
            input_example=export.images[:4],
            signature=signature_of(export.images.shape, tuple(expected.shape)),
            pip_requirements=requirements(PACKAGES),
            extra_files=[str(file) for file in files],
        )
    return saved, path


def _check_graph(program: Path, images: Tensor, expected: Tensor) -> float:
    """The largest error over several batch sizes. Raises ExportError if the graph is not the model that was measured."""
    with EXPORT_LOCK, export_errors("torch cannot read the exported model", program.name):
        graph = torch.export.load(program).module()  # as MLflow will: with its own checks of sizes
    with export_errors("the exported graph cannot be called", program.name), torch.inference_mode():
        error = max(difference(graph(images[:size]), expected[:size]) for size in batch_sizes(len(images)))
    if not error <= TOLERANCE:
        raise ExportError(
            f"the exported graph differs from the measured model by {error:.2g}",
            program.name,
            "make its forward free of decisions about how it is called",
        )
    return error
