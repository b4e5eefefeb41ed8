"""One file that holds the whole result of a flow: it opens without a server and without a network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs

from pipelines.report.table import COLUMNS
from pipelines.report.text import calibration_note, notes_on_rows
from pipelines.report.words import metric_name, nothing_passed
from pipelines.steps.compare import Comparison, Row

SOURCE, CANDIDATE, BEST = "#555555", "#1f77b4", "#d62728"
FIGURE_HEIGHT = 440  # pixels
READABLE = 20  # classes whose numbers fit into their cells
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1300px; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-size: 13px; } th, td { padding: .35rem .6rem; border-bottom: 1px solid #ddd; }
th { text-align: left; } td { text-align: right; white-space: nowrap; } td:first-child, td:last-child { text-align: left; }
tr.best td { font-weight: 600; } .scroll { overflow-x: auto; } figure { margin: 1.5rem 0; }
"""


@dataclass(frozen=True, slots=True)
class Width:
    """One coupled group of layers in one candidate."""

    group: str
    before: int
    after: int


@dataclass(frozen=True, slots=True, eq=False)
class Confusions:
    """Of the test split: [true, answered] numbers of samples, by the source and by a candidate."""

    title: str
    source: NDArray[np.int64]
    candidate: NDArray[np.int64]


def html_report(comparison: Comparison, widths: Mapping[str, Sequence[Width]], confusions: Confusions | None = None) -> str:
    """Summary, metric against latency with its Pareto front, the widths of every layer in source and candidates, and,
    where classes are told apart, which of them the best one confuses more or less than the source."""
    figures = [pareto_figure(comparison), *([widths_figure(widths)] if widths else [])]
    if confusions is not None:
        figures.append(confusion_figure(confusions))
    drawn = "\n".join(f"<figure>{figure.to_html(include_plotlyjs=False, full_html=False)}</figure>" for figure in figures)
    title = escape(f"{comparison.source}, compressed")
    note = calibration_note(comparison)
    told = "".join(f"<li>{escape(note)}</li>" for note in notes_on_rows(comparison))
    failed = "".join(f"<li>{escape(f.title)}: {escape(f.reason)}</li>" for f in comparison.failures)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>
<script>{get_plotlyjs()}</script></head><body>
<h1>{title}</h1>
<p>{escape(first_sentence(comparison))}</p>
<div class="scroll">{summary_table(comparison)}</div>
<p>A factor is the source's number divided by the candidate's. {escape(note)}</p>
{f"<h2>Notes</h2><ul>{told}</ul>" if told else ""}
{f"<h2>Failed</h2><ul>{failed}</ul>" if failed else ""}
{drawn}
</body></html>
"""


def first_sentence(comparison: Comparison) -> str:
    best = next((row for row in comparison.rows if row.title == comparison.challenger), None)
    if best is None:
        return nothing_passed(comparison)
    value = f"test {metric_name(best.metric)} {best.test.value:.3f}"
    return f"Best: {best.title}, version {best.version}, {best.speedup:.2f}x faster, {value}."


def summary_table(comparison: Comparison) -> str:
    """The same columns as on the terminal."""
    lines = [{heading: cell(row) for heading, cell in COLUMNS.items()} for row in comparison.rows]
    text = pd.DataFrame(lines).to_html(index=False, border=0, escape=True)
    if comparison.challenger is None:
        return text
    cell = f"<td>{escape(comparison.challenger)}</td>"
    before, found, after = text.partition(cell)
    head, _, tail = before.rpartition("<tr>")
    return f'{head}<tr class="best">{tail}{found}{after}'


def pareto_front(rows: Sequence[Row]) -> list[Row]:
    """Those to which no other is both at least as fast and at least as accurate; the fastest first."""
    front: list[Row] = []
    for row in sorted(rows, key=lambda row: (row.latency_p50_ms, -_worth(row))):
        if not front or _worth(row) > _worth(front[-1]):
            front.append(row)
    return front


def _worth(row: Row) -> float:
    return row.test.value if row.higher_is_better else -row.test.value


def pareto_figure(comparison: Comparison) -> go.Figure:
    """Accuracy on the test split against the median latency; a bar reaches to the 90th percentile."""
    figure = go.Figure()
    front = pareto_front(comparison.rows)
    figure.add_scatter(
        x=[row.latency_p50_ms for row in front],
        y=[row.test.value for row in front],
        mode="lines",
        line={"dash": "dot", "color": "#999999", "shape": "hv"},
        name="Pareto front",
        hoverinfo="skip",
    )
    for row in comparison.rows:
        is_source = row is comparison.rows[0]
        color = SOURCE if is_source else BEST if row.title == comparison.challenger else CANDIDATE
        symbol = "square" if is_source else "circle" if row.passed else "circle-open"
        figure.add_scatter(
            x=[row.latency_p50_ms],
            y=[row.test.value],
            error_x={"array": [max(0.0, row.latency_p90_ms - row.latency_p50_ms)], "arrayminus": [0], "thickness": 1},
            mode="markers+text",
            marker={"size": 12, "color": color, "symbol": symbol},
            text=[row.title],
            textposition="top center",
            name=row.title,
            hovertemplate=f"{row.title}<br>%{{x:.3f}} ms<br>%{{y:.4f}}<br>{row.speedup:.2f}x faster"
            + ("" if row.passed else f"<br>did not pass: {escape(row.verdict)}")
            + "<extra></extra>",
        )
    figure.update_layout(
        title=f"{metric_name(comparison.rows[0].metric).capitalize()} against latency (left is better)",
        xaxis={"title": "latency, ms per batch: median, bar to p90", "rangemode": "tozero"},
        yaxis={"title": f"test {metric_name(comparison.rows[0].metric)}"},
        height=FIGURE_HEIGHT,
        template="plotly_white",
        showlegend=False,
    )
    return figure


def widths_figure(widths: Mapping[str, Sequence[Width]]) -> go.Figure:
    """Channels of each group in the source and in every candidate."""
    before = {width.group: width.before for cuts in widths.values() for width in cuts}
    figure = go.Figure(go.Bar(x=list(before), y=list(before.values()), name="source", marker_color="#cccccc"))
    for title, cuts in widths.items():
        after = before | {width.group: width.after for width in cuts}  # a group that a plan does not name stays whole
        figure.add_bar(x=list(after), y=list(after.values()), name=title)
    figure.update_layout(
        title="Channels of every group of coupled layers",
        xaxis={"title": "group, by its first layer"},
        yaxis={"title": "channels"},
        barmode="group",
        height=FIGURE_HEIGHT,
        template="plotly_white",
    )
    return figure


def confusion_figure(confusions: Confusions) -> go.Figure:
    """Candidate minus source. On the diagonal more is better, beside it fewer."""
    change = confusions.candidate - confusions.source
    limit = max(1, int(np.abs(change).max()))
    figure = go.Figure(
        go.Heatmap(
            z=change, colorscale="RdBu", zmin=-limit, zmax=limit, texttemplate="%{z:+d}" if len(change) <= 20 else None
        )
    )
    figure.update_layout(
        title=f"{confusions.title} minus source: samples of each class by answer",
        xaxis={"title": "answer", "dtick": 1},
        yaxis={"title": "class", "dtick": 1, "autorange": "reversed"},
        height=FIGURE_HEIGHT,
        template="plotly_white",
    )
    return figure
