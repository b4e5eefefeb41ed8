import dataclasses
from pathlib import Path

import pytest

from pipelines import report
from pipelines.architecture import ModelRef
from pipelines.config import Gate
from pipelines.promotion import judge
from pipelines.records import CompressedModel, Condition, Latency, Primary, Score, Scores, Size, Timing
from pipelines.steps.compare import Comparison, compare
from pipelines.tasks import Classification


def model(title: str, validation: float, test: float, params: int = 100) -> CompressedModel:
    return CompressedModel(
        title=title,
        method="l2_norm/uniform",
        ratio=0.5,
        asked="0.5",
        channels=30,
        channels_before=40,
        size=Size(params=params, macs=10 * params, size_bytes=4 * params),
        model=ModelRef(factory="a:b", kwargs={}, plans=(), weights="w", trust=()),
        after_cut=Primary(0.05, 0.1),
        after_pruning=Primary(0.1, 0.2),
        scores=Scores(validation=score(validation, 0.98), test=score(test, 0.95), weights_digest="d"),
    )


def score(value: float, source: float) -> Score:
    return Score(value=value, drop=source - value, metrics={"accuracy": value})


def latency(p50: float) -> Latency:
    condition = Condition(engine="eager", device="cpu", batch_size=64, threads=1)
    timing = Timing(
        condition=condition,
        p50_ms=p50,
        p90_ms=2 * p50,
        p99_ms=3 * p50,
        speedup=8 / p50,
        speedup_low=8 / p50,
        speedup_high=8 / p50,
    )
    return Latency(timings=(timing,), machine={})


def comparison(*candidates: tuple[CompressedModel, float], drop: float = 0.02) -> Comparison:
    models = [(model("source", 0.98, 0.95), 8.0), *candidates]
    result = compare("models:/m/1", [m for m, _ in models], [latency(p50) for _, p50 in models], Classification(10))
    return judge(result, Gate(max_accuracy_drop=drop), "latency")


def test_factors_and_shares() -> None:
    source, row = comparison((model("a", 0.97, 0.96, params=25), 2.0)).rows
    assert (row.params_factor, row.macs_factor, row.size_factor, row.speedup) == (4, 4, 4, 4)
    assert (source.params_factor, source.speedup) == (1, 1)
    assert row.channels_removed == 0.25
    assert row.test.value == 0.96
    assert row.after_pruning == 0.2
    assert row.after_cut == 0.1
    assert row.test.drop == pytest.approx(-0.01)


def test_the_gate_looks_at_validation_only() -> None:
    result = comparison((model("good on validation", 0.96, 0.1), 4.0), (model("good on test", 0.95, 0.99), 3.0))
    assert [row.passed for row in result.rows] == [True, True, False]
    assert "lost 0.030" in result.rows[2].verdict
    assert result.challenger == "good on validation"


def test_the_best_is_the_fastest_that_passed() -> None:
    result = comparison((model("slow", 0.98, 0.9), 4.0), (model("fast", 0.97, 0.9), 3.0), (model("bad", 0.5, 0.9), 1.0))
    assert result.challenger == "fast"
    assert comparison((model("bad", 0.5, 0.9), 1.0)).challenger is None


def test_equal_speed_is_decided_by_validation() -> None:
    assert comparison((model("a", 0.96, 0.99), 3.0), (model("b", 0.97, 0.9), 3.0)).challenger == "b"


def test_the_reports_say_it_all(tmp_path: Path) -> None:
    result = comparison((model("a", 0.97, 0.96, params=25), 2.0), (model("b|c", 0.5, 0.5), 1.0))
    table = report.to_markdown(result)
    assert len(table.splitlines()) == 5
    assert all(heading in table for heading in report.COLUMNS)
    assert "4.00x" in table
    assert "no: lost" in table
    assert {line.count("|") for line in table.splitlines()} == {len(report.COLUMNS) + 1}
    assert not report.describe_parent(result, "m").startswith(("|", "#"))
    assert "Calibrated" not in report.describe_parent(result, "m")
    short = dataclasses.replace(result, calibrated_on=300, calibration_asked=1024)
    assert "Calibrated on 300 images of the training split, all that it holds (1024 were asked for)." in (
        report.describe_parent(short, "m")
    )
    frame = report.to_frame(result)
    assert list(frame["title"]) == ["source", "a", "b|c"]
    path = tmp_path / "plot.png"
    report.accuracy_latency_plot(result, path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_predicted_latency_is_told_beside_the_measured_one() -> None:
    quick = dataclasses.replace(model("a", 0.97, 0.96), predicted_ms=1.5, predicted_speedup=3.0)
    source, row = comparison((quick, 4.0)).rows
    assert (row.latency_predicted_ms, row.speedup_predicted, row.speedup) == (1.5, 3.0, 2.0)
    text = report.describe_version(row, source, "m", 7, "1", "abc")
    assert "predicted 1.500 ms in its layers, 3.00x faster" in text
    assert "measured at 4.000 ms, 2.00x faster" in text
    assert "4.00 ms (2.00x, predicted 3.00x)" in report.to_markdown(comparison((quick, 4.0)))


def test_version_texts() -> None:
    result = comparison((model("a", 0.97, 0.96, params=25), 2.0))
    tags = report.version_tags(result.rows[1], 7)
    assert len(tags) == 5
    assert all(len(key) + len(value) < 30 for key, value in tags.items())
    assert tags["source"] == "v7"
    text = report.describe_version(result.rows[1], result.rows[0], "m", 7, "1", "abc")
    assert text.startswith("Pruned version 7: 4.0x faster")
    assert "(#/models/m/versions/7)" in text
    assert "(#/experiments/1/runs/abc)" in text
    linked = report.describe_version(result.rows[1], result.rows[0], "m", 7, "1", "abc", "http://prefect/runs/flow-run/f")
    assert "[Prefect flow run](http://prefect/runs/flow-run/f)" in linked
    placed = dataclasses.replace(result, run_id="r", experiment_id="1")
    outside = report.describe_parent(placed, "m", "http://mlflow/")
    assert "(http://mlflow/#/models/m/versions/" in outside
    assert "(http://mlflow/#/experiments/1/runs/r)" in outside
