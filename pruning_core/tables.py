"""Plain text columns."""

from __future__ import annotations

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]], widest: int = 60) -> str:
    """Plain text columns; long cells are cut with an ellipsis."""
    cells = [[c if len(c) <= widest else c[: widest - 1] + "…" for c in row] for row in (head, *rows)]
    sizes = [max(len(row[k]) for row in cells) for k in range(len(head))]
    lines = ["  ".join(c.ljust(n) for c, n in zip(row, sizes, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("-" * n for n in sizes), *lines[1:]])
