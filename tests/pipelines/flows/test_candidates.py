"""What other recipes than the first leave: a chain of compressions, every way to say what goes, lost candidates."""

import json
from pathlib import Path

import pytest

from pipelines.registry import Store
from pipelines.steps.evaluate import evaluate
from pipelines.tasks import task_of
from tests.pipelines.flows.conftest import Flows
from tests.pipelines.flows.stored import DATA, artifact, children, our_module


def test_a_version_can_be_compressed_again(flows: Flows, tmp_path: Path) -> None:
    """The plans form a chain: version 2 was cut once, its offspring twice."""
    uri, comparison = flows.chained.uri, flows.chained.comparison
    row = comparison.rows[1]
    assert comparison.source == "models:/digits-resnet/2"
    assert row.version == 4
    assert row.params < flows.first.comparison.rows[1].params
    assert comparison.rows[0].test.value == pytest.approx(
        1 - flows.first.comparison.rows[1].test.value, abs=1e-6
    )  # its errors
    module = our_module(uri, "models:/digits-resnet/4", tmp_path)
    assert evaluate(module, DATA.test, task_of(DATA))["accuracy"] == pytest.approx(1 - row.test.value, abs=1e-6)
    assert Store(uri).client.get_model_version("digits-resnet", "4").tags["source"] == "v2"


def test_what_was_asked_for_and_not_heeded_is_told_at_the_run_and_the_version(flows: Flows) -> None:
    uri, comparison = flows.chained.uri, flows.chained.comparison
    note = "not heeded: normalizer 'softmax': reconstruction compares damages as they are"
    row = comparison.rows[1]
    assert row.notes == (note,)
    assert children(uri, comparison)[row.title].data.tags["compression.pruning_notes"] == note
    client = Store(uri).client
    assert f"- Note: {note}." in client.get_model_version("digits-resnet", "4").description
    assert f"- {row.title}: {note}." in client.get_run(comparison.run_id).data.tags["mlflow.note.content"]
    assert flows.first.comparison.rows[1].notes == ()


def test_the_primary_metric_of_a_task_of_one_s_own_is_used_everywhere(flows: Flows, tmp_path: Path) -> None:
    uri, comparison = flows.chained.uri, flows.chained.comparison
    source, row = comparison.rows
    assert (row.metric, row.higher_is_better) == ("error_rate", False)
    assert row.test.drop == pytest.approx(row.test.value - source.test.value)  # more errors are worse
    assert row.test.p_value is not None  # of the losses: nothing says how to resample this metric
    assert (row.test.drop_low, row.test.agreement) == (None, None)
    runs = children(uri, comparison)
    per_epoch = {"train_loss", "epoch_val_error_rate", "learning_rate", "epoch_seconds", "optimizer_steps"}
    assert set(runs["baseline"].data.metrics) == set(runs[row.title].data.metrics) - per_epoch
    metrics = runs[row.title].data.metrics
    assert metrics["error_rate_drop"] == row.test.drop
    assert metrics["val_error_rate"] == row.validation.value
    assert "accuracy" not in metrics
    assert set(Store(uri).client.get_model_version("digits-resnet", "4").tags) >= {"error_rate", "speedup"}
    judged = json.loads(artifact(uri, runs[row.title].info.run_id, "evaluation.json", tmp_path).read_text())
    assert (judged["metric"], judged["test"]["value"]) == ("error_rate", row.test.value)


def test_what_goes_can_be_named_in_every_way(flows: Flows, tmp_path: Path) -> None:
    """Exact channels, ratios from a file, a latency; all that the training split holds where more images were asked for."""
    import pruning_core as pc

    uri, comparison = flows.kinds.uri, flows.kinds.comparison
    assert not comparison.failures
    assert (comparison.calibrated_on, comparison.calibration_asked) == (len(DATA.train), 4000)
    source, index, ratios, latency = comparison.rows
    titles = ["index-stage1.0.conv1", "ratios", "reconstruction-latency_ms-1.3x"]
    assert [row.title for row in comparison.rows[1:]] == titles
    runs = children(uri, comparison)
    plans = {
        row.title: pc.PruningPlan.from_json(
            artifact(uri, runs[row.title].info.run_id, "plan.json", tmp_path / str(number)).read_text()
        )
        for number, row in enumerate(comparison.rows[1:])
    }
    (cut,) = plans[index.title].cuts
    assert (cut.group, cut.keep) == ("stage1.0.conv1", (2, *range(12, 32)))
    assert index.after_pruning >= index.after_cut
    assert {cut.group: cut.ratio for cut in plans[ratios.title].cuts} == {"stem.0": 0.25, "stage2.1.conv1": 0.5}
    assert latency.latency_predicted_ms is not None
    assert latency.speedup_predicted is not None
    assert 1.3 <= latency.speedup_predicted < 4
    assert runs[latency.title].data.metrics["latency_predicted_ms"] == latency.latency_predicted_ms
    assert latency.params < source.params
    home = Path(uri.removeprefix("sqlite:///")).parents[1]
    (table,) = (home / "latencies").glob("*.json")
    assert pc.LatencyTable.from_json(table.read_text()).known
    assert {row.asked for row in comparison.rows[1:]} == {"index", "per layer", "latency_ms 1.3x"}


def test_what_each_step_after_the_cut_brought_is_told_apart(flows: Flows) -> None:
    uri, comparison = flows.kinds.uri, flows.kinds.comparison
    source, index, ratios, latency = comparison.rows
    assert (index.after_compensation, latency.after_compensation) == (None, None)
    between = ratios.after_compensation
    assert between is not None  # BatchNorm statistics were taken anew after it
    assert between > ratios.after_cut
    assert children(uri, comparison)[ratios.title].data.metrics["accuracy_after_compensation"] == between
    text = Store(uri).client.get_model_version("digits-resnet", str(ratios.version)).description
    for step, value in ("compensated", between), ("BatchNorm recalibrated", ratios.after_pruning):
        assert f"| test accuracy, {step} | {source.test.value:.4f} | {value:.4f} | |" in text


def test_a_lost_candidate_costs_the_others_nothing(flows: Flows) -> None:
    uri, comparison = flows.lossy.uri, flows.lossy.comparison
    assert [row.title for row in comparison.rows] == ["source", "reconstruction-uniform-0.25"]
    assert [(failure.title, failure.reason) for failure in comparison.failures] == [
        ("reconstruction-uniform-0.5", "the saw is blunt"),
        ("reconstruction-uniform-0.35", "no export today"),
    ]
    statuses = {name: run.info.status for name, run in children(uri, comparison).items()}
    assert statuses == {
        "baseline": "FINISHED",
        "reconstruction-uniform-0.25": "FINISHED",
        "reconstruction-uniform-0.35": "FAILED",
        "reconstruction-uniform-0.5": "FAILED",
    }
    assert comparison.challenger == "reconstruction-uniform-0.25"
    assert flows.lossy.after[1] == flows.lossy.before[1] + 1
