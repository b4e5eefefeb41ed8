"""One compression on two machines: two processes that meet as machines do, each with a folder of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipelines import environment, registry
from pipelines.data import load_data
from pipelines.servers import free_port, prefect_server
from pipelines.steps.finetune.batches import batches_per_epoch
from tests.conftest import quick_config, run_count


@pytest.fixture
def environ(home: Path) -> Iterator[dict[str, str]]:
    with prefect_server() as server:
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "PYTHONPATH": os.getcwd()}
        yield {**os.environ, **where, "PREFECT_API_URL": f"{server.ready()}/api"}


def start(rank: int, recipe: Path, environ: dict[str, str], folder: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", "from pipelines.cli import main; main()", "compress", str(recipe)]
    own = {"NODE_RANK": str(rank), environment.HOME_VARIABLE: str(folder / f"machine-{rank}")}
    return subprocess.Popen(
        command, env={**environ, **own}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder
    )


def test_two_machines_train_one_candidate_and_the_first_registers_it(
    store_uri: str, environ: dict[str, str], tmp_path: Path
) -> None:
    config = quick_config(
        store_uri,
        candidates=[{"ratio": 0.4}],
        finetune={"epochs": 1, "learning_rate": 0.003, "threads": 1, "hardware": {"accelerator": "cpu", "num_nodes": 2}},
        gate={"max_accuracy_drop": 1},
    )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True)))
    before = run_count(store_uri)
    machines = [start(rank, recipe, environ, tmp_path) for rank in (0, 1)]
    first, second = (machine.communicate(timeout=300)[0] for machine in machines)
    assert [machine.returncode for machine in machines] == [0, 0], first + second
    assert "1 registered" in first
    assert "candidates trained along: 1" in second
    runs, versions, _ = run_count(store_uri)
    made = 3 + 2  # parent, baseline, candidate; the book of the work and its index
    assert (runs - before[0], versions - before[1]) == (made, 1)
    store = registry.open_store(store_uri)
    version = store.client.get_model_version("digits-resnet", "2")
    steps = store.client.get_metric_history(version.run_id, "optimizer_steps")
    alone, together = (batches_per_epoch(len(load_data(config.data).train), 64, machines) for machines in (1, 2))
    assert steps[-1].value == together < alone
