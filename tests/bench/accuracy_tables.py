"""Accuracy records as a table and as a plot: means over the seeds, Torch-Pruning's best measured variant for each entry."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.bench.tables import aligned

Record = dict[str, Any]
PEER, BEST = "tp-", "torch-pruning, its best"
STAGES = {"cut": "right after the cut", "steps100": "100 steps", "epoch1": "1 epoch", "epoch5": "5 epochs"}
ROWS = {"ours": "ours", "ours-taught": "ours, distilled", "ours-plain": "ours, plain", BEST: BEST}
TICKS = (1.5, 2, 3, 4, 6, 8)  # of the plot: times fewer MACs
Cells = dict[tuple[str, float, str, str], list[Record]]  # net, factor, row, stage -> one record per seed


def render(records: list[Record], *, markdown: bool = False) -> str:
    cells = by_cell(records)
    lines = [["net", "fewer MACs", "method", *STAGES.values(), "seconds to prune", "seeds"]]
    for net, factor in sorted({(net, factor) for net, factor, _, _ in cells}):
        for row, title in ROWS.items():
            found = [cells.get((net, factor, row, stage), []) for stage in STAGES]
            if any(found):
                seconds = _mean(r["prune_seconds"] for group in found for r in group)
                macs = _mean(r["macs"] for group in found for r in group)
                seeds = sorted({r["seed"] for group in found for r in group})
                accuracies = [_accuracy(group, len(seeds)) for group in found]
                lines.append(
                    [_of(net, records), f"{macs:.2f}x", title, *accuracies, f"{seconds:.1f}", ",".join(map(str, seeds))]
                )
    failed = [
        f"{r['net']} {r['seed']} {r['factor']}x {r['method']} {r['stage']}: {r['error']}" for r in records if "error" in r
    ]
    return "\n".join([aligned(lines, markdown), *failed])


def by_cell(records: list[Record]) -> Cells:
    """Records by entry of the table. Torch-Pruning's is its best variant's, chosen anew for every seed and stage."""
    cells: Cells = defaultdict(list)
    best: dict[tuple[Any, ...], Record] = {}
    for record in sorted((r for r in records if "accuracy" in r), key=lambda r: (r["factor"], r["seed"])):
        net, factor, seed, stage = record["net"], record["factor"], record["seed"], record["stage"]
        if not record["method"].startswith(PEER):
            cells[net, factor, record["method"], stage].append(record)
        elif record["accuracy"] > best.get((net, factor, seed, stage), {"accuracy": -1.0})["accuracy"]:
            best[net, factor, seed, stage] = record
    for (net, factor, _seed, stage), record in best.items():
        cells[net, factor, BEST, stage].append(record)
    return cells


def best_peer(records: list[Record], variants: int) -> str | None:
    """The variant of Torch-Pruning that is best after the most training for which all of them are there, of one cell."""
    for stage in reversed(STAGES):
        here = [r for r in records if r["stage"] == stage and r["method"].startswith(PEER) and "accuracy" in r]
        found = {r["method"]: r["accuracy"] for r in here}
        if len(found) == variants:
            return max(found, key=lambda method: found[method])
    return None


def plot(records: list[Record], path: Path) -> None:
    """A row of panels for each net, one for each stage: accuracy against how many times fewer MACs."""
    from matplotlib.figure import Figure

    cells = by_cell(records)
    nets = list(dict.fromkeys(r["net"] for r in records))
    stages = [stage for stage in STAGES if any(key[3] == stage for key in cells)]
    figure = Figure(figsize=(3.4 * len(stages), 3.2 * len(nets)), layout="constrained")
    panels = figure.subplots(len(nets), len(stages), squeeze=False)
    for i, net in enumerate(nets):
        for j, stage in enumerate(stages):
            axes = panels[i][j]
            if not any((net, stage) == (n, s) for n, _, _, s in cells):
                axes.remove()
                continue
            for row, style in zip(ROWS, ("C0o-", "C1^-", "C2s:", "C3x-"), strict=True):
                points = [
                    (_mean(r["macs"] for r in group), 100 * _mean(r["accuracy"] for r in group))
                    for (n, _, m, s), group in sorted(cells.items(), key=lambda item: item[0][1])
                    if (n, m, s) == (net, row, stage)
                ]
                if points:
                    axes.plot(*zip(*points, strict=True), style, label=ROWS[row])
            source = 100 * _mean({r["seed"]: r["source"] for r in records if r["net"] == net and "source" in r}.values())
            axes.axhline(source, color="grey", linewidth=0.8, label="not pruned")
            axes.set(title=f"{net}, {STAGES[stage]}", xlabel="times fewer MACs", ylabel="" if j else "test accuracy, %")
            axes.set_xscale("log")
            axes.set_xticks(TICKS, list(map(str, TICKS)))
            axes.set_xlim(TICKS[0], TICKS[-1])
            axes.minorticks_off()
            axes.grid(alpha=0.3)
    known = {
        text: line for row in panels for axes in row for line, text in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    panels[0][0].legend(known.values(), known.keys(), fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _of(net: str, records: list[Record]) -> str:
    sources = {r["seed"]: r["source"] for r in records if r["net"] == net and "source" in r}
    return f"{net} ({_mean(sources.values()):.1%})"


def _accuracy(group: list[Record], seeds: int) -> str:
    """With the number of seeds where it is not that of the row, and the variant where there was a choice."""
    if not group:
        return ""
    note = "" if len(group) == seeds else f" ({len(group)} of {seeds} seeds)"
    variants = dict.fromkeys(r["method"].removeprefix(PEER) for r in group if r["method"].startswith(PEER))
    return f"{_mean(r['accuracy'] for r in group):.2%}{note}" + (f" ({', '.join(variants)})" if variants else "")


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
