"""One model in the store: all of it, sealed, or none."""

import contextlib
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from pipelines import lineage
from pipelines.registry.integrity import digests_of, seal_of
from pipelines.registry.naming import logged_name
from pipelines.registry.patience import sent_once
from pipelines.registry.store import Store, mlflow_errors


def log_model(store: Store, run_id: str, name: str, saved: Model, path: Path) -> str:
    """Store what was saved at `path` as an output of the run; its id is returned. Raises RegistryError."""
    client = store.client
    saved.metadata = {**(saved.metadata or {}), lineage.DIGESTS_KEY: digests_of(path)}
    with mlflow_errors("the model cannot be stored", name):
        experiment_id = client.get_run(run_id).info.experiment_id
        tags = {lineage.SEAL: seal_of(saved.metadata)}
        with sent_once():  # one that was made all the same is removed by `forget_exports` when this is tried again
            logged = client.create_logged_model(experiment_id, name=logged_name(name), source_run_id=run_id, tags=tags)
        try:
            saved.model_id = saved.model_uuid = logged.model_id
            saved.artifact_path = logged.artifact_location
            saved.save(str(path / "MLmodel"))
            client.log_model_artifacts(logged.model_id, str(path))
            client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
            client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        except BaseException:
            with contextlib.suppress(MlflowException):  # no half-written entry in the models tab
                client.delete_logged_model(logged.model_id)
            raise
    return str(logged.model_id)


def signature_of(inputs: Sequence[int], outputs: Sequence[int]) -> ModelSignature:
    """One float32 tensor in, one out, both with a free batch axis."""
    number = np.dtype(np.float32)
    taken, given = (Schema([TensorSpec(number, (-1, *shape[1:]))]) for shape in (inputs, outputs))
    return ModelSignature(taken, given)


def requirements(packages: Sequence[str]) -> list[str]:
    """The versions that are installed here, without local parts such as `+cpu`."""
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in packages]
