"""Segmentation, and detection by a task and loaders of one's own, through the whole flow from the recipe on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from mlflow.entities import Run
from torch import nn

from pipelines import environment, lineage
from pipelines.config import CompressConfig
from pipelines.data import load_data
from pipelines.first_version import first_version
from pipelines.flows.compress import compress
from pipelines.registry import Store
from pipelines.steps.compare import Comparison
from tests.conftest import quick_config
from tests.pipelines.tasks import detection, segmenter

EVERY_FORM = {"formats": ["pt2", "onnx"], "int8": True}


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("own-tasks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(environment.HOME_VARIABLE, str(folder))
        yield folder


def compressed(home: Path, factory: Callable[[], nn.Module], **sections: Any) -> tuple[CompressConfig, Comparison]:
    """From nothing but the recipe: its first version is trained, for the very task that it names."""
    first = {
        "factory": f"{factory.__module__}:{factory.__qualname__}",
        "training": {"epochs": 15, "learning_rate": 0.01, "batch_size": 32, "threads": 1},
    }
    name = factory.__name__
    config = quick_config(
        f"sqlite:///{home / 'mlflow.db'}",
        source={"model": f"models:/{name}@champion", "trust": ["tests.pipelines.tasks"], "first": first},
        evaluate={"resamples": 200},
        **sections,
    )
    assert first_version(config) is not None
    return config, compress(config)


def run_of(config: CompressConfig, comparison: Comparison) -> Run:
    client = Store(config.tracking.uri).client
    (found,) = client.search_runs(
        [comparison.experiment_id],
        f"tags.`mlflow.parentRunId` = '{comparison.run_id}' and attributes.run_name = '{comparison.rows[1].title}'",
    )
    return client.get_run(found.info.run_id)


def forms(run: Run) -> dict[str, dict[str, Any]]:
    facts = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/{lineage.EXPORT_FILE}")
    assert facts["notes"] == []
    return {form["kind"]: form for form in facts["forms"]}


def test_segmentation(prefect: None, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    x, y = segmenter.rectangles(300)
    np.savez(tmp_path / "rectangles.npz", x=x, y=y)
    config, comparison = compressed(
        home,
        segmenter.TinySegmenter,
        task="segmentation",
        data={"name": "npz", "path": str(tmp_path / "rectangles.npz")},
        candidates=[{"budget": {"macs": "2x"}}],
        finetune={"epochs": 2, "learning_rate": 0.003, "threads": 1, "distillation": {"features": 0.5}},
        measure={"batch_size": 16, "rounds": 5, "warmup": 1, "engines": ["eager", "onnxruntime"]},
        export=EVERY_FORM,
    )
    source, row = comparison.rows
    assert (row.metric, row.passed, row.version) == ("miou", True, 2)
    assert source.test.value > 0.9
    assert row.macs < 0.55 * source.macs
    assert row.after_cut < row.after_pruning  # and mended, with images alone
    assert row.test.agreement is not None
    assert row.test.agreement > 0.9
    assert row.test.drop_low is not None  # resampled image by image
    run = run_of(config, comparison)
    assert {"miou", "pixel_accuracy", "epoch_val_miou", "val_miou_drop"} <= set(run.data.metrics)
    assert run.data.params["distillation_features"] == "0.5"
    assert (run.data.params["training_notes"], comparison.failures) == ("none", ())
    assert run.data.metrics["latency_p50_ms/onnxruntime-cpu-batch16-threads1"] > 0
    made = forms(run)
    assert set(made) == {"pt2", "onnx", "int8"}
    assert not [
        path for path in home.iterdir() if path.suffix in (".onnx", ".data")
    ]  # onnxruntime leaves nothing where the command was started
    assert made["int8"]["primary"]["test"] > 0.8
    graph = mlflow.pytorch.load_model(f"models:/TinySegmenter/{row.version}")
    served = mlflow.pyfunc.load_model(made["onnx"]["uri"])
    with torch.inference_mode():
        expected = graph(torch.from_numpy(x[:5])).numpy()
    np.testing.assert_allclose(next(iter(served.predict(x[:5]).values())), expected, atol=1e-3)


def test_detection(prefect: None, home: Path, tmp_path: Path) -> None:
    here = detection.__name__
    config, comparison = compressed(
        home,
        detection.TinyDetector,
        task={"name": f"{here}:Detection", "kwargs": {"box_weight": 4}},
        data={"name": f"{here}:loaders", "kwargs": {"batch": 48}, "trust": [here]},
        candidates=[{"ratio": 0.3}],
        finetune={"epochs": 3, "learning_rate": 0.003, "threads": 1},
        gate={"max_accuracy_drop": 0.2},
        export=EVERY_FORM,
    )
    source, row = comparison.rows
    assert (row.metric, row.higher_is_better, row.passed, row.version) == ("ap50", True, True, 2)
    assert source.test.value > 0.8
    assert row.params < 0.8 * source.params
    run = run_of(config, comparison)
    assert {"ap50", "val_ap50", "epoch_val_ap50"} <= set(run.data.metrics)
    assert not {"accuracy", "agreement"} & set(run.data.metrics)
    made = forms(run)
    assert made["int8"]["primary"]["validation"] > source.validation.value - 0.2
    (dataset,) = (entry.dataset for entry in run.inputs.dataset_inputs)
    assert dataset.digest == load_data(config.data).digest
    facts = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/evaluation.json")
    assert facts["weights_digest"] == row.weights_digest
