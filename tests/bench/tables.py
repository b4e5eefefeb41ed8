"""Coverage records as tables: one row per suite and engine, and a page of what stays locked and why."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

Record = dict[str, Any]
BAR = 0.4  # share of the parameters that should go at ratio 0.5


def render(records: list[Record], *, markdown: bool = False) -> str:
    parts = [aligned(_summary(records), markdown), _failures(records), _locked(records, markdown)]
    return "\n\n".join(part for part in parts if part)


def gone(record: Record) -> float:
    return 1 - record["params_after"] / record["params_before"] if record.get("params_after") else 0.0


def _summary(records: list[Record]) -> list[list[str]]:
    rows = [["suite", "engine", "models", "runs", "runs and right", f">= {BAR:.0%} of params gone", "wrong", "errors",
             "median gone", "median seconds"]]  # fmt: skip
    grouped: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        grouped[record["suite"], record["engine"]].append(record)
    for (suite, engine), group in grouped.items():
        right = [r for r in group if r["status"] == "right"]
        ran = [r for r in group if r.get("params_after")]
        rows.append(
            [suite, engine, str(len(group)), str(len(ran)), str(len(right)), str(sum(gone(r) >= BAR for r in right)),
             str(sum(r["status"] == "wrong" for r in group)), str(sum(r["status"] == "error" for r in group)),
             f"{_median(gone(r) for r in right):.0%}", f"{_median(r['seconds'] for r in right):.2f}"]
        )  # fmt: skip
    return rows


def _median(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else 0.0


def aligned(rows: list[list[str]], markdown: bool) -> str:
    if markdown:
        head, *body = ("| " + " | ".join(row) + " |" for row in rows)
        return "\n".join([head, "|" + " --- |" * len(rows[0]), *body])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _failures(records: list[Record]) -> str:
    lines = []
    for record in records:
        if record["status"] == "right":
            continue
        why = record.get("error", "").split("\n")[0]
        if record["status"] == "wrong" and not why:
            why = f"mask error {record['mask_error']:.1e}, neutral {record['neutral_error']}"
        lines.append(f"{record['engine']} {record['suite']}/{record['model']}: {record['status']}: {why}")
    return "\n".join(lines)


def _locked(records: list[Record], markdown: bool) -> str:
    """Channels that stay, by reason, over all models of our engine."""
    channels: Counter[str] = Counter()
    models: dict[str, set[str]] = defaultdict(set)
    for record in records:
        for _layers, width, reason in record.get("locked", ()):
            kind = _kind(reason)
            channels[kind] += width
            models[kind].add(record["model"])
    if not channels:
        return ""
    rows = [["channels", "models", "reason", "for example"]]
    for kind, width in channels.most_common(45):
        rows.append([str(width), str(len(models[kind])), kind, ", ".join(sorted(models[kind])[:3])])
    return aligned(rows, markdown)


def _kind(reason: str) -> str:
    """The reason without the names and numbers of one model."""
    return re.sub(r"\d+", "N", re.sub(r"'[^']*'|`[^`]*`", "...", reason))[:110]
