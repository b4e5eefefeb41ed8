"""The compress flow with training and timing on a GPU."""

from pathlib import Path

import mlflow
import pytest
import torch

from pipelines.flows.compress import compress
from pipelines.latencies import table_path
from pipelines.registry import Store
from tests.conftest import quick_config

if not torch.cuda.is_available():
    pytest.skip("needs a GPU, and this machine has none", allow_module_level=True)


def test_everything_on_a_gpu(prefect: None, home: Path, store_uri: str) -> None:
    config = quick_config(
        store_uri,
        candidates=[{"budget": {"macs": "2x"}}, {"budget": {"latency_ms": "1.05x"}, "min_channels": 4}],
        finetune={"epochs": 2, "learning_rate": 0.003, "hardware": {"accelerator": "gpu"}},
        measure={"batch_size": 256, "rounds": 10, "warmup": 3, "device": "cuda", "engines": ["eager", "compile"]},
    )
    comparison = compress(config)
    assert comparison.failures == ()
    source, *rows = comparison.rows
    assert all(row.version is not None and row.test.value > source.test.value - 0.1 for row in rows)
    assert rows[1].latency_predicted_ms is not None
    assert table_path(1, "cuda").exists()
    mlflow.set_tracking_uri(store_uri)
    graph = mlflow.pytorch.load_model(f"models:/digits-resnet/{rows[0].version}")
    assert graph(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    client = Store(store_uri).client
    found = client.search_runs([comparison.experiment_id], f"tags.`mlflow.parentRunId` = '{comparison.run_id}'")
    runs = {run.info.run_name: client.get_run(run.info.run_id).data for run in found}
    for row in rows:
        assert runs[row.title].params["hardware_accelerator"] == "gpu"
        for metric in ("latency_p50_ms", "latency_p50_ms/compile-cuda-batch256-threads1"):
            assert runs[row.title].metrics[metric] > 0
