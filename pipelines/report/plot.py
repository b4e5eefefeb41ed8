"""Accuracy against latency, one point per model."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipelines.report.picture import save_picture
from pipelines.report.words import metric_name
from pipelines.steps.compare import Comparison


def accuracy_latency_plot(comparison: Comparison, path: Path) -> None:
    """Write a PNG. Filled: passed; hollow: did not; dash: before fine-tuning.

    Across: from the median latency to its 90th percentile; up and down: the confidence interval of the metric.
    """
    figure = Figure(figsize=(7.2, 4.5), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    by_latency = sorted(row.latency_p50_ms for row in comparison.rows)
    for row in comparison.rows:
        is_source = row is comparison.rows[0]
        color = "#555555" if is_source else "#1f77b4"
        spread = [[0.0], [max(0.0, row.latency_p90_ms - row.latency_p50_ms)]]
        value, low, high = row.test.value, row.test.low, row.test.high
        interval = None if low is None or high is None else [[max(0.0, value - low)], [max(0.0, high - value)]]
        axes.errorbar(
            row.latency_p50_ms, value, xerr=spread, yerr=interval, fmt="none", ecolor=color, elinewidth=1, alpha=0.5
        )
        axes.scatter(
            row.latency_p50_ms,
            value,
            s=60,
            marker="s" if is_source else "o",
            facecolor=color if row.passed else "white",
            edgecolor=color,
            zorder=3,
        )
        if not is_source:  # where it came from: before fine-tuning
            axes.scatter(row.latency_p50_ms, row.after_pruning, s=30, marker="_", color=color, zorder=2)
            ends = [row.after_pruning, value]
            axes.plot([row.latency_p50_ms] * 2, ends, color=color, linewidth=0.8, linestyle=":", zorder=1)
        label = row.title if is_source else f"{row.title}\n{row.speedup:.2f}x faster"
        label += " (noisy)" if row.is_noisy else ""
        label += "" if is_source or row.passed else "\ndid not pass"
        is_above = by_latency.index(row.latency_p50_ms) % 2 == 0  # neighbours often differ little
        axes.annotate(
            label,
            (row.latency_p50_ms, value),
            xytext=(8, 7 if is_above else -7),  # beside the bars
            textcoords="offset points",
            ha="left",
            va="bottom" if is_above else "top",
            fontsize=8,
        )
    axes.margins(y=0.3)
    axes.set_xlim(0, 1.3 * by_latency[-1])  # the last label has its place, too
    baseline = comparison.rows[0]
    axes.set_xlabel("latency, ms per batch: median, bar to p90 (left is better)")
    better = "up" if baseline.higher_is_better else "down"
    axes.set_ylabel(f"test {metric_name(baseline.metric)}, bar: confidence interval ({better} is better)")
    axes.set_title(f"{comparison.source} and its compressed candidates", fontsize=10)
    axes.grid(alpha=0.25)
    save_picture(figure, path)
