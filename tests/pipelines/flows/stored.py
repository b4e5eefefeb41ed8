"""What the flows' tests read back from the store."""

from pathlib import Path

import torch
from mlflow.entities import Run

from pipelines import registry
from pipelines.architecture import load_module
from pipelines.config import Data as DataSection
from pipelines.data import load_data
from pipelines.registry import Store
from pipelines.steps.compare import Comparison

DATA = load_data(DataSection())


def children(uri: str, comparison: Comparison) -> dict[str, Run]:
    client = Store(uri).client
    found = client.search_runs([comparison.experiment_id], f"tags.`mlflow.parentRunId` = '{comparison.run_id}'")
    return {run.info.run_name: client.get_run(run.info.run_id) for run in found}


def artifact(uri: str, run_id: str, name: str, folder: Path) -> Path:
    return Path(Store(uri).client.download_artifacts(run_id, name, str(folder)))


def our_module(uri: str, model: str, folder: Path) -> torch.nn.Module:
    store = Store(uri)
    source = registry.resolve(store, model)
    return load_module(registry.fetch_model(store, source, folder / "model", trust=("pipelines.models",)))
