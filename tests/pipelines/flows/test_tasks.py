"""Other tasks than classification, through every stage of the flow, without Prefect."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines import registry
from pipelines.architecture import ModelRef, save_weights
from pipelines.config import CompressConfig, Finetune
from pipelines.data import load_data
from pipelines.flows import stages
from pipelines.models import small_resnet
from pipelines.promotion import judge
from pipelines.registry import Store
from pipelines.steps.compare import compare
from pipelines.steps.finetune import finetune
from pipelines.tasks import Regression
from tests.conftest import quick_config

PER_EPOCH = {"train_loss", "epoch_val_rmse", "learning_rate", "epoch_seconds", "optimizer_steps"}


@pytest.fixture
def config(store_uri: str, tmp_path: Path) -> CompressConfig:
    """A registered network that says how much ink a digit has, in numbers around 0."""
    from sklearn.datasets import load_digits

    x = (load_digits().images[:600, None] / 16).astype(np.float32)
    ink = x.mean(axis=(1, 2, 3))
    np.savez(tmp_path / "ink.npz", x=x, y=((ink - ink.mean()) / ink.std()).astype(np.float32))
    config = quick_config(
        store_uri,
        source={"model": "models:/ink@champion"},
        data={"name": "npz", "path": str(tmp_path / "ink.npz")},
        task={"name": "regression", "kwargs": {"primary": "rmse"}},
        candidates=[{"ratio": 0.5}],
        gate={"max_accuracy_drop": 1},
        evaluate={"resamples": 200},
        measure={"batch_sizes": [16, 4], "rounds": 5, "warmup": 1},
    )
    data, kwargs = load_data(config.data), {"width": 8, "classes": 1}
    torch.manual_seed(0)
    module = small_resnet(**kwargs)
    finetune(module, data, Regression("rmse"), Finetune(epochs=6, learning_rate=0.01, threads=1), tmp_path / "training")
    weights = save_weights(module, tmp_path / "ink.safetensors")
    model = ModelRef(
        factory="pipelines.models:small_resnet", kwargs=kwargs, plans=(), weights=str(weights), trust=("pipelines",)
    )
    store = registry.open_store(store_uri)
    with registry.open_training(store, "ink", (tmp_path / "artifacts").as_uri()) as run_id:
        images = data.test.batches(7)
        export = registry.Export(run_id=run_id, name="ink", model=model, images=next(iter(images))[0].numpy())
        registry.register_first(store, export, alias="champion", metrics={}, description="", folder=tmp_path / "export")
    return config


def test_a_regression_is_judged_by_its_own_metrics(config: CompressConfig, tmp_path: Path) -> None:
    job = stages.prepare(config, tmp_path / "work")
    (candidate,) = config.candidates
    with registry.open_runs(job.store, job.source, [candidate.title], job.data, experiment=None, tags={}) as runs:
        source = stages.evaluate_source(job)
        pruned = stages.prune_candidate(job, candidate)
        tuned = stages.finetune_candidate(job, runs, pruned, stages.Listeners())
        models = [source, tuned]
        latencies = stages.measure_latency(job, models)
        comparison = judge(compare(job.source.uri, models, latencies, job.task), config.gate, "knee")
        for model, latency, row in zip(models, latencies, comparison.rows, strict=True):
            stages.register_candidate(job, runs, comparison.rows[0], model, latency, row)
        stages.publish(job, runs, comparison)
    first, row = comparison.rows
    assert first.test.metrics["r2"] > 0.8
    assert (row.metric, row.higher_is_better) == ("rmse", False)
    assert row.test.drop == pytest.approx(row.test.value - first.test.value)
    assert row.test.drop_low is not None
    assert row.test.drop_high is not None
    assert row.test.drop_low <= row.test.drop <= row.test.drop_high
    client = Store(config.tracking.uri).client
    baseline, run = (client.get_run(run_id).data.metrics for run_id in (runs.baseline, runs.of(candidate.title)))
    assert set(baseline) == {name for name in run if name not in PER_EPOCH}
    assert {"rmse", "mae", "r2", "val_rmse_drop", "rmse_drop_p_value"} <= set(run)
    assert run["latency_p50_ms/eager-cpu-batch4-threads1"] > 0
    assert not {"accuracy", "agreement"} & set(run)
    text = Path(client.download_artifacts(runs.of(candidate.title), "evaluation.json", str(tmp_path))).read_text()
    assert json.loads(text)["test"]["p_value"] == row.test.p_value
