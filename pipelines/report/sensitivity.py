"""Layer sensitivities as people look at them: a table for the terminal, a heat map as PNG."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from rich.table import Table

import pruning_core as pc
from pipelines.report.picture import save_picture

HARMLESS = {"accuracy": 0.01}  # a drop that is never painted as dark as it gets, else noise looks like a finding
HELD, WHY_HELD = "*", "the same cut as at a smaller ratio: min_channels or round_to lets no more go"
_WORDS = {
    "accuracy": "points of accuracy lost",
    "loss": "loss added",
    "change": "change of the outputs (share of their variance)",
    "kl": "KL divergence from the original",
}


def sensitivity_table(result: pc.Sensitivity, title: str) -> Table:
    """One line per group, in the model's order: what each ratio costs, and by what factor it lightens the model."""
    table = Table(title=f"{title}: {_WORDS[result.figure]}, and MACs", title_justify="left")
    table.add_column("group")
    table.add_column("width", justify="right")
    for ratio in result.ratios:
        table.add_column(f"-{ratio:.0%}", justify="right", no_wrap=True)
    rows = {row.point: row for row in result.rows}
    held = held_back(result)
    for group in result.groups:
        mine = [rows.get((group, ratio)) for ratio in result.ratios]
        width = next(row.width for row in mine if row is not None)
        cells = (_cell(row, result.figure, row is not None and row.point in held) for row in mine)
        table.add_row(group, str(width), *cells)
    if held:
        table.caption, table.caption_justify = f"{HELD} {WHY_HELD}", "left"
    return table


def held_back(result: pc.Sensitivity) -> frozenset[tuple[str, float]]:
    """The points that are the same cut as one of a smaller ratio: the floor or the rounding lets no more go."""
    smallest: dict[tuple[str, int], float] = {}
    for row in sorted(result.rows, key=lambda row: row.ratio):
        smallest.setdefault((row.group, row.kept), row.ratio)
    return frozenset(row.point for row in result.rows if smallest[row.group, row.kept] < row.ratio)


def _cell(row: pc.SensitivityRow | None, figure: str, is_held: bool) -> str:
    if row is None:
        return "-"
    if row.drop is None:
        return "not alone" if row.reason.startswith("cannot be cut alone") else "no number"
    return f"{_number(row.drop, figure)} ({row.macs_factor:.2f}x){HELD if is_held else ''}"


def _number(drop: float, figure: str) -> str:
    value = 100 * drop if figure == "accuracy" else drop
    text = f"{value:.1f}" if figure == "accuracy" or abs(value) >= 10 else f"{value:.3f}"
    return text[1:] if text.startswith("-") and not float(text) else text


def sensitivity_frame(result: pc.Sensitivity) -> pd.DataFrame:
    """Groups x ratios -> drop; NaN where nothing was measured."""
    table = result.to_pandas().pivot(index="group", columns="ratio", values="drop")
    return table.reindex(index=list(result.groups), columns=list(result.ratios)).astype(float)


def sensitivity_heat_map(result: pc.Sensitivity, title: str, path: Path) -> None:
    """Write a PNG: groups down, ratios across, the drop as colour and as a number. Grey: not measured; hatched: cannot."""
    drops = sensitivity_frame(result).to_numpy()
    count, ratios = drops.shape
    labels = [f"{group}  [{width}]" for group, width in _widths(result).items()]
    row_height = 0.34 if count <= 40 else 0.22
    size = (1.6 + 0.085 * max(map(len, labels), default=0) + max(0.95 * ratios, 2.4), 1.7 + row_height * count)
    figure = Figure(figsize=size, dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_facecolor("#dddddd")
    highest = float(np.nanmax(drops)) if np.isfinite(drops).any() else 0.0
    norm = Normalize(0, max(highest, HARMLESS.get(result.figure, 1e-6)))
    image = axes.imshow(np.ma.masked_invalid(drops), cmap="YlOrRd", norm=norm, aspect="auto", interpolation="nearest")
    held = held_back(result)
    for row in result.rows:
        at = (result.ratios.index(row.ratio), result.groups.index(row.group))
        if row.drop is None:
            corner = (at[0] - 0.5, at[1] - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, facecolor="#dddddd", edgecolor="#888888", hatch="///", linewidth=0))
        else:
            color = "white" if norm(row.drop) > 0.6 else "black"
            text = _number(row.drop, result.figure) + (HELD if row.point in held else "")
            axes.text(*at, text, ha="center", va="center", color=color, fontsize=8 if count <= 40 else 6)
    axes.set_xticks(range(ratios), [f"{ratio:.0%}" for ratio in result.ratios])
    axes.set_yticks(range(count), labels, fontsize=8 if count <= 40 else 6)
    axes.set_xticks(np.arange(ratios + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    why = f"\n{HELD} {WHY_HELD}" if held else ""
    axes.set_xlabel(f"channels removed, one group at a time{why}", fontsize=9)
    axes.set_title(f"{title}\n{_caption(result)}", fontsize=9, loc="left")
    bar = figure.colorbar(image, ax=axes, format=(lambda v, _: _number(v, result.figure)), pad=0.03)
    bar.set_label(_WORDS[result.figure], fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)
    if any(row.drop is None for row in result.rows):
        hatched = Patch(facecolor="#dddddd", edgecolor="#888888", hatch="///", label="cannot be measured alone")
        figure.legend(handles=[hatched], loc="outside lower left", frameon=False, fontsize=7)
    save_picture(figure, path)


def _widths(result: pc.Sensitivity) -> dict[str, int]:
    widths = {row.group: row.width for row in result.rows}
    return {group: widths[group] for group in result.groups}


def _caption(result: pc.Sensitivity) -> str:
    base = f"{100 * result.baseline:.1f}%" if result.figure == "accuracy" else f"{result.baseline:.3g}"
    uncut = "" if result.figure in ("change", "kl") else f"uncut {result.figure} {base}; "
    done = "" if result.is_complete else f"; {len(result.rows)} of {result.points} points so far"
    return f"{uncut}width in brackets{done}"
