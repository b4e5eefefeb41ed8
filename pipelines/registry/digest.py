"""Is what was registered what was measured?"""

import contextlib
import tempfile
from pathlib import Path

import mlflow.artifacts
from mlflow.exceptions import MlflowException
from safetensors import SafetensorError
from safetensors.torch import load_file

from pipelines import lineage
from pipelines.architecture import weights_digest
from pipelines.errors import CandidateError
from pipelines.registry.push import Exported
from pipelines.registry.store import Store, mlflow_errors


def check_stored_weights(store: Store, exported: Exported, measured: str, where: str) -> None:
    """Read the weights back from the store. Raises CandidateError unless their digest is that of the measured ones."""
    store.select()
    with tempfile.TemporaryDirectory() as folder:
        with mlflow_errors("the stored weights cannot be read back", where):
            files = store.client.get_logged_model(exported.model_id).artifact_location
            mlflow.artifacts.download_artifacts(f"{files}/extra_files/{lineage.WEIGHTS_FILE}", dst_path=folder)
        (path,) = Path(folder).rglob(lineage.WEIGHTS_FILE)
        try:
            stored = weights_digest(load_file(path))
        except SafetensorError as exc:
            stored = f"none: {exc}"
    if stored != measured:
        with contextlib.suppress(MlflowException):  # nobody should find it in the models tab
            store.client.delete_logged_model(exported.model_id)
        raise CandidateError(
            f"the stored weights are not those that were measured (digest {stored}, measured {measured})",
            where,
            "run it again with --again; nothing was registered",
        )
