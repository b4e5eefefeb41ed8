"""An ONNX file as a model of MLflow's own ONNX flavour, servable like any other."""

from pathlib import Path

import numpy as np
from mlflow.models import Model
from numpy.typing import NDArray

from pipelines.registry.logged import log_model, requirements, signature_of
from pipelines.registry.store import Store, mlflow_errors

PACKAGES = ("mlflow", "numpy", "onnx", "onnxruntime")


def log_onnx(
    store: Store, run_id: str, name: str, file: Path, images: NDArray[np.float32], outputs: tuple[int, ...], folder: Path
) -> str:
    """Store the file as the run's model `name`; its `models:/m-...` is returned. Raises RegistryError."""
    import mlflow.onnx
    import onnx

    saved, path = Model(run_id=run_id), folder / f"mlflow-{file.stem}"
    with mlflow_errors("the ONNX model cannot be saved", name):
        mlflow.onnx.save_model(
            onnx.load(str(file)),
            str(path),
            mlflow_model=saved,
            input_example=images[:4],
            signature=signature_of(images.shape, outputs),
            pip_requirements=requirements(PACKAGES),
            onnx_execution_providers=["CPUExecutionProvider"],
            save_as_external_data=False,
        )
    return f"models:/{log_model(store, run_id, name, saved, path)}"
