"""The table and the heat map of layer sensitivities."""

from pathlib import Path

import pytest
from matplotlib.axes import Axes
from rich.console import Console

import pruning_core as pc
from pipelines.report import sensitivity_heat_map, sensitivity_table
from pipelines.report.sensitivity import held_back


def row(group: str, ratio: float, kept: int, drop: float) -> pc.SensitivityRow:
    return pc.SensitivityRow(
        group=group, layers=(group,), width=16, ratio=ratio, kept=kept, macs_factor=1.1, figure=0.9, drop=drop, reason=""
    )


def table(*rows: pc.SensitivityRow) -> pc.Sensitivity:
    return pc.Sensitivity(figure="accuracy", baseline=0.9, rows=rows, points=len(rows), locked={})


NARROW = table(row("stem", 0.75, 8, 0.02), row("stem", 0.5, 8, 0.02), row("stem", 0.25, 12, 0.01), row("wide", 0.5, 8, 0.0))


def test_a_cut_that_the_floor_holds_back_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert held_back(NARROW) == {("stem", 0.75)}
    console = Console(width=120)
    with console.capture() as captured:
        console.print(sensitivity_table(NARROW, "m"))
    text = captured.get()
    assert text.count("2.0 (1.10x)*") == 1
    assert text.count("2.0 (1.10x)") == 2
    assert "* the same cut as at a smaller ratio" in text
    said: list[str] = []
    real = Axes.text
    monkeypatch.setattr(Axes, "text", lambda self, x, y, s, **k: (said.append(s), real(self, x, y, s, **k))[1])
    sensitivity_heat_map(NARROW, "m", tmp_path / "map.png")
    assert sorted(said) == ["0.0", "1.0", "2.0", "2.0*"]


def test_nothing_is_marked_where_every_ratio_is_a_cut_of_its_own() -> None:
    free = table(row("wide", 0.25, 12, 0.0), row("wide", 0.5, 8, 0.01))
    assert not held_back(free)
    console = Console(width=120)
    with console.capture() as captured:
        console.print(sensitivity_table(free, "m"))
    assert "*" not in captured.get()
