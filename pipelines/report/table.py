"""The comparison as a table: for the terminal, for Markdown, for files."""

import dataclasses
import textwrap
from collections.abc import Callable, Mapping

import pandas as pd
from rich import box
from rich.table import Table

from pipelines.report.words import drop_cell, metric_name, registered_cell
from pipelines.steps.compare import Comparison, Row


def _with_factor(value: str, factor: float) -> str:
    return value if abs(factor - 1) < 5e-4 else f"{value} ({factor:.2f}x)"


def size_text(size_bytes: int) -> str:
    """`0.12 MB`, `45 kB`."""
    return f"{size_bytes / 1e6:.2f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.0f} kB"


def _count(number: int) -> str:
    if number >= 1e9:
        return f"{number / 1e9:.2f} G"
    return f"{number / 1e6:.2f} M" if number >= 1e6 else f"{number / 1e3:.1f} k"


def _latency(row: Row) -> str:
    """The interval of the factor, where there is one to tell."""
    text = f"{row.latency_p50_ms:.2f} ms"
    if row.speedup == row.speedup_low == row.speedup_high == 1:
        return text + (", noisy" if row.is_noisy else "")
    text += f" ({row.speedup:.2f}x"
    if row.speedup_low < row.speedup_high:
        text += f", {row.speedup_low:.2f} to {row.speedup_high:.2f}"
    if row.speedup_predicted is not None:
        text += f", predicted {row.speedup_predicted:.2f}x"
    return f"{text}, noisy)" if row.is_noisy else f"{text})"


# heading -> cell of one row; a factor says how many times less than the source's
COLUMNS: Mapping[str, Callable[[Row], str]] = {
    "model": lambda row: row.title,
    "channels removed": lambda row: f"{row.channels_removed:.0%}",
    "params": lambda row: _with_factor(_count(row.params), row.params_factor),
    "MACs": lambda row: _with_factor(_count(row.macs), row.macs_factor),
    "size": lambda row: _with_factor(size_text(row.size_bytes), row.size_factor),
    "cut": lambda row: f"{row.after_cut:.3f}",
    "compensated": lambda row: f"{row.after_pruning:.3f}",
    "fine-tuned": lambda row: f"{row.test.value:.3f}",
    "drop": drop_cell,
    "latency p50": _latency,
    "registered": registered_cell,
}


def to_frame(comparison: Comparison) -> pd.DataFrame:
    """Plain numbers, one row per model; those of a split have its name before theirs: `test_drop_low`."""
    return pd.json_normalize([dataclasses.asdict(row) for row in comparison.rows], sep="_")


# the same in the width of a terminal: a factor, an interval or a verdict stands below its number
NARROW: Mapping[str, Callable[[Row], str]] = {
    "model": lambda row: "\n".join(textwrap.wrap(row.title, 16)),  # breaks after hyphens
    "params": lambda row: _below(_count(row.params), row.params_factor),
    "MACs": lambda row: _below(_count(row.macs), row.macs_factor),
    "cut": COLUMNS["cut"],
    "compen-\nsated": COLUMNS["compensated"],
    "fine-\ntuned": COLUMNS["fine-tuned"],
    "drop": lambda row: drop_cell(row).replace(" ", "\n"),
    "latency\np50": lambda row: _latency(row).replace(" (", "\n").replace(", ", "\n").replace(" to ", "-").rstrip(")"),
    "registered": COLUMNS["registered"],
}


def _below(value: str, factor: float) -> str:
    return value if abs(factor - 1) < 5e-4 else f"{value}\n{factor:.2f}x"


def to_rich(comparison: Comparison) -> Table:
    """For a terminal of 100 columns; the Markdown and the CSV say more."""
    metric = metric_name(comparison.rows[0].metric)
    title = f"{comparison.source} and its compressed versions: test {metric}, latency per batch"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), leading=1)
    for heading in NARROW:
        is_text = heading in ("model", "registered")
        table.add_column(
            heading,
            justify="left" if is_text else "right",
            no_wrap=heading != "registered",
            min_width=12 if heading == "registered" else None,
        )
    for row in comparison.rows:
        style = "bold" if row.title == comparison.challenger else ""
        table.add_row(*(cell(row) for cell in NARROW.values()), style=style)
    for failure in comparison.failures:
        title = "\n".join(textwrap.wrap(failure.title, 16))
        table.add_row(title, *[""] * (len(NARROW) - 2), f"failed: {failure.reason}", style="red")
    return table


def _one_line(cell: str) -> str:
    return " ".join(cell.split()).replace("|", "/")


def to_markdown(comparison: Comparison) -> str:
    lines = [list(COLUMNS), ["---"] * len(COLUMNS)]
    lines += [[cell(row) for cell in COLUMNS.values()] for row in comparison.rows]
    lines += [[f.title, *[""] * (len(COLUMNS) - 2), f"failed: {f.reason}"] for f in comparison.failures]
    return "\n".join(f"| {' | '.join(_one_line(cell) for cell in line)} |" for line in lines)
