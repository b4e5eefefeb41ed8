"""The compress flow, for real: once, and every test looks at another side of what it left."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch

from pipelines import registry
from pipelines.architecture import stored_tensors, weights_digest
from pipelines.config import Finetune
from pipelines.errors import CandidateError, RegistryError
from pipelines.flows import stages
from pipelines.flows.compress import is_retryable
from pipelines.registry import Store
from pipelines.steps.evaluate import evaluate
from pipelines.steps.finetune import finetune
from pipelines.tasks import task_of
from tests.conftest import files_below, quick_config
from tests.pipelines.flows.conftest import Flows
from tests.pipelines.flows.stored import DATA, artifact, children, our_module

# A user's process: MLflow and torch, and none of our code.
LOAD_ELSEWHERE = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pipelines", "pruning_core", "tests"):
            raise ImportError(f"{name} is not installed here")
sys.meta_path.insert(0, Nothing())
import mlflow, numpy, torch
uri, images, file, *models = sys.argv[1:]
mlflow.set_tracking_uri(uri)
x, answers = numpy.load(images), {}
for model in models:
    graph = mlflow.pytorch.load_model(model)
    with torch.inference_mode():
        answers[model] = graph(torch.from_numpy(x)).numpy()
    answers[f"{model} one"] = mlflow.pyfunc.load_model(model).predict(x[:1])
numpy.savez(file, **answers)
assert not {"pipelines", "pruning_core"} & set(sys.modules)
"""

BOOKS = 2  # runs in which flows write who does what: the index, and that of this model


def test_the_rows_are_true(flows: Flows) -> None:
    comparison = flows.first.comparison
    source, mild, bold, hopeless = comparison.rows
    assert [row.title for row in comparison.rows] == [
        "source",
        "reconstruction-uniform-0.3",
        "l2_norm-slamp-0.6",
        "hopeless",
    ]
    assert source.test.value > 0.97
    assert mild.channels_removed == pytest.approx(0.3, abs=0.05)
    assert bold.channels_removed == pytest.approx(0.6, abs=0.05)
    assert source.params > mild.params > bold.params > hopeless.params
    assert source.macs > mild.macs > bold.macs
    assert source.size_bytes > mild.size_bytes > bold.size_bytes
    assert mild.after_pruning > mild.after_cut + 0.2  # compensation brought something
    assert bold.after_pruning == bold.after_cut  # it was switched off
    assert bold.test.value > bold.after_pruning  # fine-tuning brought something
    assert source.after_cut == source.after_pruning == source.test.value
    assert all(row.latency_p50_ms > 0 for row in comparison.rows)
    assert [row.version for row in comparison.rows] == [1, 2, 3, None]
    assert not hopeless.passed
    assert comparison.challenger in {mild.title, bold.title}


def test_runs_have_parent_baseline_candidates_and_the_same_metric_names(flows: Flows) -> None:
    uri, comparison = flows.first.uri, flows.first.comparison
    runs = children(uri, comparison)
    assert set(runs) == {"baseline", *(row.title for row in comparison.rows[1:])}
    client = Store(uri).client
    source = registry.resolve(Store(uri), "models:/digits-resnet/1")
    parent = client.get_run(comparison.run_id)
    assert parent.info.experiment_id == source.experiment_id
    assert {run.info.status for run in [parent, *runs.values()]} == {"FINISHED"}
    per_epoch = {"train_loss", "epoch_val_accuracy", "learning_rate", "epoch_seconds", "optimizer_steps"}
    names = {frozenset(set(run.data.metrics) - per_epoch) for run in runs.values()}
    assert len(names) == 1
    wanted = {"accuracy", "val_accuracy_drop", "latency_p50_ms", "latency_p99_ms", "params", "macs", "size_bytes"}
    assert wanted <= set(next(iter(names)))
    for row in comparison.rows:
        metrics = runs["baseline" if row.title == "source" else row.title].data.metrics
        assert metrics["accuracy"] == row.test.value
        assert metrics["params"] == row.params
        assert metrics["accuracy_after_cut"] == row.after_cut
        assert metrics["accuracy_after_pruning"] == row.after_pruning
    assert runs["hopeless"].data.params["ratio"] == "0.97"
    assert runs["reconstruction-uniform-0.3"].data.params["compensation"] == "sequential"
    assert {run.data.params["calibration_samples"] for name, run in runs.items() if name != "baseline"} == {"256"}
    assert len(client.get_metric_history(runs["hopeless"].info.run_id, "train_loss")) == 2


def test_lineage_is_recorded_where_the_ui_looks(flows: Flows) -> None:
    uri, comparison = flows.first.uri, flows.first.comparison
    source = registry.resolve(Store(uri), "models:/digits-resnet/1")
    for name, run in children(uri, comparison).items():
        assert [model.model_id for model in run.inputs.model_inputs] == [source.model_id]
        assert [(d.dataset.name, d.dataset.digest) for d in run.inputs.dataset_inputs] == [("digits", DATA.digest)]
        assert len(run.outputs.model_outputs if run.outputs else []) == (name not in ("baseline", "hopeless"))
    client = Store(uri).client
    for row in comparison.rows[1:3]:
        model_id = registry.resolve(Store(uri), f"models:/digits-resnet/{row.version}").model_id
        metrics = {m.key: m for m in client.get_logged_model(model_id).metrics}
        assert metrics["accuracy"].value == row.test.value
        assert metrics["accuracy"].dataset_digest == DATA.digest
        assert "train_loss" not in metrics  # a step of the curve is no property of the model


def test_versions_carry_tags_text_and_the_alias(flows: Flows) -> None:
    uri, comparison = flows.first.uri, flows.first.comparison
    client = Store(uri).client
    model = client.get_registered_model("digits-resnet")
    best = next(row for row in comparison.rows if row.title == comparison.challenger)
    assert {name: int(number) for name, number in model.aliases.items()} == {"champion": 1, "challenger": best.version}
    for row in comparison.rows[1:3]:
        version = client.get_model_version("digits-resnet", str(row.version))
        assert set(version.tags) == {"source", "method", "ratio", "accuracy", "speedup"}
        assert version.tags["accuracy"] == f"{row.test.value:.4f}"
        assert version.description.startswith("Pruned version 1: ")
        assert "/runs/flow-run/" in version.description
    assert len(client.search_model_versions("name='digits-resnet'")) == 3


def test_artifacts_tell_the_same_as_the_rows(flows: Flows, tmp_path: Path) -> None:
    uri, comparison = flows.first.uri, flows.first.comparison
    assert comparison.run_id
    table = pd.read_csv(artifact(uri, comparison.run_id, "comparison.csv", tmp_path))
    assert list(table["title"]) == [row.title for row in comparison.rows]
    assert list(table["params"]) == [row.params for row in comparison.rows]
    as_table = json.loads(artifact(uri, comparison.run_id, "comparison_table.json", tmp_path).read_text())
    assert len(as_table["data"]) == len(comparison.rows)
    assert artifact(uri, comparison.run_id, "accuracy_latency.png", tmp_path).read_bytes().startswith(b"\x89PNG")
    import pruning_core as pc

    for name, run in children(uri, comparison).items():
        if name == comparison.rows[1].title:
            repairs = json.loads(artifact(uri, run.info.run_id, "compensation.json", tmp_path).read_text())
            assert {"layer", "ridge", "error_before", "error_after"} <= set(repairs[0])
        if name != "baseline":
            plan = pc.PruningPlan.from_json(artifact(uri, run.info.run_id, "plan.json", tmp_path).read_text())
            assert plan.cuts
        samples = json.loads(artifact(uri, run.info.run_id, "latency_samples_ms.json", tmp_path).read_text())
        timing = samples["timings"][0]
        assert np.percentile(timing["samples_ms"], 50) == pytest.approx(run.data.metrics["latency_p50_ms"])
        assert timing["condition"]["batch_size"] == 16


def test_anyone_can_load_the_versions_without_our_code(flows: Flows, tmp_path: Path) -> None:
    uri, comparison = flows.first.uri, flows.first.comparison
    rows = comparison.rows[1:3]
    np.save(tmp_path / "x.npy", DATA.test.x)
    models = [f"models:/digits-resnet/{row.version}" for row in rows]
    command = [sys.executable, "-I", "-c", LOAD_ELSEWHERE, uri, tmp_path / "x.npy", tmp_path / "y.npz", *models]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = np.load(tmp_path / "y.npz")
    for row, model in zip(rows, models, strict=True):
        y, one = answers[model], answers[f"{model} one"]
        assert (y.argmax(axis=1) == DATA.test.y).mean() == pytest.approx(row.test.value)  # as was measured
        ours = our_module(uri, model, tmp_path / model[-1])
        with torch.inference_mode():
            expected = ours(torch.from_numpy(DATA.test.x))
        torch.testing.assert_close(torch.from_numpy(y), expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(one, expected[:1].numpy(), rtol=1e-3, atol=1e-4)  # a batch of one


def test_our_loader_gives_a_module_that_trains_and_can_be_pruned_again(flows: Flows, tmp_path: Path) -> None:
    import pruning_core as pc

    uri, comparison = flows.first.uri, flows.first.comparison
    row = comparison.rows[1]
    module = our_module(uri, f"models:/digits-resnet/{row.version}", tmp_path)
    assert sum(p.numel() for p in module.parameters()) == row.params
    assert evaluate(module, DATA.test, task_of(DATA))["accuracy"] == row.test.value
    again = pc.prune(module, torch.from_numpy(DATA.train.x[:2]), pc.PruningSpec(ratio=0.3)).model
    assert sum(p.numel() for p in again.parameters()) < row.params
    curve = finetune(module, DATA, task_of(DATA), Finetune(epochs=1), tmp_path).curve
    assert curve[0].train_loss < 1


def test_the_work_folder_is_empty_again(flows: Flows) -> None:
    assert not files_below(Path(flows.first.uri.removeprefix("sqlite:///")).parents[1] / "work")


def test_the_same_work_is_not_done_twice(flows: Flows) -> None:
    assert flows.repeated.comparison == flows.first.comparison
    assert flows.repeated.before == flows.repeated.after
    assert flows.first.after[0] == flows.first.before[0] + 5 + BOOKS


def test_kill_9_in_mid_training_and_the_same_command_end_with_the_same_result(flows: Flows, tmp_path: Path) -> None:
    first, killed = flows.first.comparison, flows.killed.comparison

    def facts(row: Any) -> dict[str, Any]:
        timed = ("latency", "speedup", "throughput", "is_noisy", "peak_memory", "energy")
        return {name: value for name, value in dataclasses.asdict(row).items() if not name.startswith(timed)}

    assert [facts(row) for row in killed.rows] == [facts(row) for row in first.rows]
    for version in (2, 3):
        pair = [
            our_module(flow.uri, f"models:/digits-resnet/{version}", tmp_path / str(number) / str(version)).state_dict()
            for number, flow in enumerate((flows.first, flows.killed))
        ]
        assert all(torch.equal(tensor, pair[1][name]) for name, tensor in pair[0].items())
    mild, bold, hopeless = (row.title for row in first.rows[1:])
    assert mild not in flows.done_after_kill  # it was finished
    assert flows.done_after_kill == (f"train {bold}", f"train {hopeless}")  # and all had been pruned


def test_a_killed_flow_goes_on_in_its_own_runs(flows: Flows) -> None:
    uri, comparison = flows.killed.uri, flows.killed.comparison
    found = Store(uri).client.search_runs([comparison.experiment_id], "tags.`compression.key` != ''")
    assert [run.info.status for run in found] == ["FINISHED"] * 5
    assert flows.killed.after[0] == flows.killed.before[0] + 5 + BOOKS
    for title, run in children(uri, comparison).items():
        if title != "baseline":
            client = Store(uri).client
            history = {key: client.get_metric_history(run.info.run_id, key) for key in ("train_loss", "learning_rate")}
            assert {key: sorted(m.step for m in metrics) for key, metrics in history.items()} == {
                "train_loss": [1, 2],
                "learning_rate": [1, 2],
            }


def test_other_work_is_not_taken_for_the_same(own_copy: str, tmp_path: Path) -> None:
    def found(**changes: Any) -> bool:
        job = stages.prepare(quick_config(own_copy, **changes), tmp_path / "work")
        return stages.earlier_result(job) is not None

    assert found()
    assert not found(finetune={"epochs": 3})
    assert not found(candidates=[{"ratio": 0.3}])
    assert not found(data={"seed": 1})
    assert not found(calibration={"samples": 255})
    Store(own_copy).client.delete_model_version("digits-resnet", "2")
    assert not found()


def test_each_run_holds_how_its_model_was_judged_and_timed(flows: Flows, tmp_path: Path) -> None:
    uri, comparison = flows.first.uri, flows.first.comparison
    for row in comparison.rows:
        run = children(uri, comparison)["baseline" if row.title == "source" else row.title]
        folder = tmp_path / row.title
        folder.mkdir()
        table = pd.read_csv(artifact(uri, run.info.run_id, "per_class.csv", folder))
        assert table["samples"].sum() == len(DATA.test)
        right = (table["recall"] * table["samples"]).sum()
        assert right / len(DATA.test) == pytest.approx(row.test.value)
        assert artifact(uri, run.info.run_id, "confusion.png", folder).read_bytes().startswith(b"\x89PNG")
        layers = pd.read_csv(artifact(uri, run.info.run_id, "layers.csv", folder))
        assert layers["macs"].sum() == row.macs
        (timing,) = pd.read_csv(artifact(uri, run.info.run_id, "latency.csv", folder)).to_dict("records")
        assert timing["p50_ms"] == pytest.approx(row.latency_p50_ms)
        assert timing["condition"] == "eager, batch 16, 1 thread"
        assert run.data.tags["compression.weights_digest"] == row.weights_digest
        assert row.test.agreement == run.data.metrics["agreement"]
    source, *others = comparison.rows
    assert (source.test.agreement, source.test.p_value, source.test.drop) == (1, 1, 0)
    assert len({row.weights_digest for row in comparison.rows}) == len(comparison.rows)
    hopeless = others[-1]
    assert hopeless.test.is_real
    assert hopeless.test.p_value is not None
    assert hopeless.test.p_value < 1e-6
    assert hopeless.validation.drop_low is not None
    assert hopeless.validation.drop_low > 0


def test_what_is_registered_is_what_was_measured(flows: Flows, tmp_path: Path) -> None:
    """The digest of the weights that anyone would load is the one beside the figures."""
    uri, row = flows.first.uri, flows.first.comparison.rows[1]
    module = our_module(uri, f"models:/digits-resnet/{row.version}", tmp_path)
    assert weights_digest(stored_tensors(module)) == row.weights_digest
    store = Store(uri)
    exported = registry.Exported(registry.resolve(store, f"models:/digits-resnet/{row.version}").model_id or "")
    registry.check_stored_weights(store, exported, row.weights_digest, "here")


def test_other_weights_than_those_measured_are_not_registered(own_copy: str, flows: Flows) -> None:
    store = Store(own_copy)
    exported = registry.Exported(registry.resolve(store, "models:/digits-resnet/2").model_id or "")
    with pytest.raises(CandidateError, match="not those that were measured"):
        registry.check_stored_weights(store, exported, flows.first.comparison.rows[2].weights_digest, "here")


def test_the_source_is_evaluated_once_for_all_flows(flows: Flows) -> None:
    """Five flows on one data folder: version 1 by classification, version 2 by another task."""
    home = Path(flows.first.uri.removeprefix("sqlite:///")).parents[1]
    kept = sorted((home / "evaluations").iterdir())
    assert len(kept) == 2
    assert all({file.name for file in folder.iterdir()} == {"test.safetensors", "validation.safetensors"} for folder in kept)


def test_only_what_can_pass_by_itself_is_tried_again() -> None:
    class State:
        def __init__(self, exc: Exception) -> None:
            self.exc = exc

        def result(self, raise_on_failure: bool) -> Exception:
            assert not raise_on_failure
            return self.exc

    assert is_retryable(None, None, State(RegistryError("w", "w", "f", retryable=True)))
    assert not is_retryable(None, None, State(RegistryError("w", "w", "f")))
    assert not is_retryable(None, None, State(ValueError("a bug")))


def test_the_prefect_server_can_be_imported() -> None:
    """What pip resolves by itself does not run: see the fastapi pin."""
    import prefect.server.api.server  # noqa: F401


def test_mlflow_keeps_the_interfaces_that_we_rely_on() -> None:
    assert tuple(map(int, mlflow.__version__.split(".")[:2])) >= (3, 17)
