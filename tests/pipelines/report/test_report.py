"""What a person reads: drops in plain words, noise that says so, a table that a terminal can hold."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from pipelines import report
from pipelines.records import Score
from pipelines.report.words import drop_cell, drop_in_words
from pipelines.steps.compare import Comparison, Failure, Row
from tests.pipelines.steps.test_compare import comparison, model

TITLES = ("reconstruction-budget-macs-2x", "l2_norm-slamp-latency_ms-1.3x-params-500000")


def scored(**changes: float | bool | None) -> Row:
    row = comparison((model("a", 0.97, 0.93), 2.0)).rows[1]
    known = {"drop": 0.02, "drop_low": 0.01, "drop_high": 0.03, "p_value": 0.001, "is_real": True, "value": 0.93}
    return dataclasses.replace(row, test=Score(**{**known, **changes}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "cell", "words"),
    [
        ({}, "0.020 real", "a drop of 0.0200 (interval 0.0100 to 0.0300), more than noise (p = 0.001)"),
        ({"is_real": False, "p_value": 0.5}, "0.020 noise", "within noise (p = 0.5)"),
        (
            {"drop": -0.02, "drop_low": -0.03, "drop_high": -0.01},
            "-0.020 real",
            "a gain of 0.0200 (interval 0.0100 to 0.0300), more than noise",
        ),
        ({"drop_low": None, "drop_high": None}, "0.020 real", "a drop of 0.0200, more than noise (p = 0.001)"),
        ({"drop_low": None, "drop_high": None, "p_value": None}, "0.020", "a drop of 0.0200"),
        ({"drop": 0.0, "is_real": False, "p_value": 1.0}, "0", "as good as the source"),
    ],
    ids=["real", "noise", "gain", "no interval", "no test", "nothing"],
)
def test_a_drop_says_whether_it_is_more_than_noise(changes: dict[str, float | bool | None], cell: str, words: str) -> None:
    row = scored(**changes)
    assert drop_cell(row) == cell
    assert words in drop_in_words(row)


def two_noisy() -> Comparison:
    source, *rows = comparison(*((model(title, 0.97, 0.96, params=25), 2.0) for title in TITLES)).rows
    noisy = [dataclasses.replace(row, is_noisy=True, speedup_low=3.1, speedup_high=4.9) for row in rows]
    failed = (Failure(title="reconstruction-uniform-0.5", reason="the saw is blunt"),)
    return Comparison(source="models:/digits-resnet/1", rows=(source, *noisy), challenger=TITLES[0], failures=failed)


def test_noise_is_said_in_the_table_the_text_and_the_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = two_noisy()
    assert report.to_markdown(noisy).count("noisy") == 2
    assert "2.00 ms (4.00x, 3.10 to 4.90, noisy)" in report.to_markdown(noisy)
    assert f"too noisy to rank {TITLES[0]}, {TITLES[1]}" in report.describe_parent(noisy, "m")
    assert "too noisy to rank it" in report.describe_version(noisy.rows[1], noisy.rows[0], "m", 1, "1", "a")
    quiet = comparison((model("a", 0.97, 0.96), 2.0))
    assert report.noise_note(quiet) == ""
    assert "noisy" not in report.to_markdown(quiet) + report.describe_parent(quiet, "m")
    said: list[str] = []
    from matplotlib.axes import Axes

    real = Axes.annotate
    monkeypatch.setattr(Axes, "annotate", lambda self, text, *a, **k: (said.append(text), real(self, text, *a, **k))[1])
    report.accuracy_latency_plot(noisy, tmp_path / "plot.png")
    assert ["(noisy)" in text for text in said] == [False, True, True]


def test_what_the_engine_did_otherwise_than_asked_is_told_everywhere() -> None:
    plain = two_noisy()
    source, row, other = plain.rows
    told = dataclasses.replace(row, notes=("not compensated: conv1", "equal shares"), export_notes="no ONNX form")
    noted = dataclasses.replace(plain, rows=(source, told, other))
    lines = [f"{row.title}: {note}" for note in ("not compensated: conv1", "equal shares", "no ONNX form")]
    assert report.notes_on_rows(noted) == lines
    assert report.notes_on_rows(plain) == []
    parent, page = report.describe_parent(noted, "m"), report.html_report(noted, {})
    assert all(f"\n- {line}." in parent and f"<li>{line}</li>" in page for line in lines)
    version = report.describe_version(told, source, "m", 1, "1", "a")
    assert "\n- Note: not compensated: conv1.\n- Note: equal shares.\n" in version
    assert "Note" not in report.describe_version(row, source, "m", 1, "1", "a")


def test_a_version_that_was_registered_as_rejected_is_called_so(tmp_path: Path) -> None:
    source, row, other = two_noisy().rows
    source = dataclasses.replace(source, passed=True, version=1)
    rejected = dataclasses.replace(row, passed=False, version=7, verdict="lost 0.300 on validation,\nallowed 0.02")
    passed = dataclasses.replace(other, version=8, passed=True, verdict="passed")
    mixed = dataclasses.replace(two_noisy(), rows=(source, rejected, passed), challenger=passed.title)
    table = report.to_markdown(mixed)
    assert "| version 7, rejected: lost 0.300 on validation, allowed 0.02 |" in table
    assert "| version 8 |" in table
    assert "| version 1 |" in table
    none = dataclasses.replace(mixed, rows=(source, rejected), challenger=None)
    for text in (report.describe_parent(none, "m"), report.html_report(none, {})):
        assert "No candidate passed the gate; registered as rejected: version 7." in text
    assert report.describe_version(rejected, source, "m", 1, "1", "a").startswith("Rejected by the gate: lost 0.300")
    assert report.describe_version(passed, source, "m", 1, "1", "a").startswith("Pruned version 1")
    assert "did not pass: lost 0.300" in report.html_report(mixed, {})


def test_links_hold_names_of_all_kinds() -> None:
    name = "größe (n) [1] #2 50%"
    source, row, _ = two_noisy().rows
    text = report.describe_version(row, source, name, 1, "1", "a")
    address = "#/models/gr%C3%B6%C3%9Fe%20%28n%29%20%5B1%5D%20%232%2050%25/versions/1"
    assert f"[größe (n) \\[1\\] #2 50% version 1]({address})" in text
    best = dataclasses.replace(two_noisy(), rows=(source, dataclasses.replace(row, version=3)))
    assert address.replace("/1", "/3") in report.describe_parent(best, name, "http://mlflow/")


def test_the_table_fits_into_a_hundred_columns() -> None:
    console = Console(width=100, record=True, highlight=False, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(report.to_rich(two_noisy()))
    text = console.export_text()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    assert "…" not in text
    words = text.split()
    for part in ("reconstruction-", "budget-macs-2x", "4.00x", "3.10-4.90", "noisy", "0.960", "blunt", "source"):
        assert part in words, part
    assert "test accuracy" in text


def test_numbers_of_both_splits_are_columns_of_the_frame() -> None:
    frame = report.to_frame(two_noisy())
    assert {"test_drop_low", "validation_value", "test_metrics_accuracy", "speedup_high", "is_noisy"} <= set(frame.columns)
    assert list(frame["validation_value"]) == [0.98, 0.97, 0.97]


def test_the_axis_says_which_way_is_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    labels: list[str] = []
    real = Axes.set_ylabel
    monkeypatch.setattr(Axes, "set_ylabel", lambda self, text, **k: (labels.append(text), real(self, text, **k))[1])
    rows = tuple(dataclasses.replace(row, metric="mae", higher_is_better=False) for row in two_noisy().rows)
    for shown in (two_noisy(), dataclasses.replace(two_noisy(), rows=rows)):
        report.accuracy_latency_plot(shown, tmp_path / "plot.png")
    assert [("accuracy" in text, "up is better" in text) for text in labels] == [(True, True), (False, False)]
    assert "MAE" in labels[1]


@pytest.mark.parametrize("classes", [3, 40])
def test_a_confusion_is_drawn(tmp_path: Path, classes: int) -> None:
    report.confusion_picture(np.eye(classes, dtype=np.int64), "m", tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
