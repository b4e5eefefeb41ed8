"""What people look at: tables of layers, of a plan, and of what a pruning brought."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from torch import nn

from pruning_core.compensation.report import Repair
from pruning_core.cost import Cost, op_macs
from pruning_core.coupling.groups import ChannelGroup, layer_of
from pruning_core.tables import table
from pruning_core.trace import Trace
from pruning_core.twin import modules_by_path

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class LayerRow:
    """A layer that produces channels. `prunable` counts its output channels that may go."""

    name: str
    type: str
    width: int
    group: str
    prunable: int
    reason: str  # why the rest is left alone
    params: int
    macs: int


@dataclass(frozen=True, slots=True)
class ModelReport:
    """Every layer with its width, the group it is cut with, and what it costs."""

    layers: tuple[LayerRow, ...]
    cost: Cost

    @property
    def params(self) -> int:
        return self.cost.params

    @property
    def macs(self) -> int:
        return self.cost.macs

    def to_pandas(self) -> pd.DataFrame:
        import dataclasses

        import pandas as pd

        columns = [f.name for f in dataclasses.fields(LayerRow)]
        return pd.DataFrame([[getattr(row, c) for c in columns] for row in self.layers], columns=columns)

    def __str__(self) -> str:
        head = ("layer", "type", "width", "prunable", "group or reason", "params", "MACs")
        rows = [
            (r.name, r.type, str(r.width), str(r.prunable), _answer(r), f"{r.params:,}", f"{r.macs:,}") for r in self.layers
        ]
        total = f"{self.params:,} parameters, {self.macs:,} MACs at the example inputs"
        return f"{table(head, rows)}\n{total}"


def _answer(row: LayerRow) -> str:
    if row.prunable == row.width:
        return row.group
    return row.reason if not row.prunable else f"{row.group}; rest: {row.reason}"


@dataclass(frozen=True, slots=True)
class PruneReport:
    """Before and after, and how the check went."""

    before: Cost
    after: Cost
    channels_before: int
    channels_after: int
    mask_error: float | None  # None: only the structure was checked
    seconds: float
    repairs: tuple[Repair, ...] = ()  # what the compensation brought, layer by layer
    notes: tuple[str, ...] = ()  # what was done in another way than asked, and why
    predicted_ms: tuple[float, float] | None = None  # before and after, by the latency table, where one was used

    @property
    def params_before(self) -> int:
        return self.before.params

    @property
    def params_after(self) -> int:
        return self.after.params

    @property
    def macs_before(self) -> int:
        return self.before.macs

    @property
    def macs_after(self) -> int:
        return self.after.macs

    def __str__(self) -> str:
        names = (("params", "params"), ("MACs", "macs"), ("size (bytes)", "size_bytes"))
        rows = [_row(label, getattr(self.before, key), getattr(self.after, key)) for label, key in names]
        rows.insert(0, _row("channels", self.channels_before, self.channels_after))
        rows.append(_row("peak activations (bytes)", self.before.peak_activation_bytes, self.after.peak_activation_bytes))
        checked = "structure" if self.mask_error is None else f"structure and numbers (error {self.mask_error:.1e})"
        mended = ""
        if self.repairs:
            before = sum(r.error_before for r in self.repairs) / len(self.repairs)
            after = sum(r.error_after for r in self.repairs) / len(self.repairs)
            mended = f"\ncompensated {len(self.repairs)} layers: mean error of their answers {before:.1%} -> {after:.1%}"
        told = ""
        if self.predicted_ms is not None:
            told = "\nlatency by the table: {:.3f} ms -> {:.3f} ms".format(*self.predicted_ms)
        lines = f"{table(('', 'before', 'after', 'factor'), rows)}\nverified: {checked}, {self.seconds:.2f} s{mended}{told}"
        return "\n".join([lines, *self.notes])


def _row(label: str, before: int, after: int) -> tuple[str, str, str, str]:
    return label, f"{before:,}", f"{after:,}", f"{before / after:.2f}x" if after else "-"


def layer_rows(model: nn.Module, trace: Trace, groups: Sequence[ChannelGroup]) -> tuple[LayerRow, ...]:
    """One row per layer that produces channels, in order of use."""
    types = {name: type(module).__name__ for name, module in modules_by_path(model).items()}
    params = {name: sum(p.numel() for p in m.parameters(recurse=False)) for name, m in modules_by_path(model).items()}
    macs: dict[str, int] = {}
    uses: dict[str, None] = {}
    names = {value.index: name for name, value in trace.tensors.items()}
    for op in trace.ops:
        own = [layer_of(names[v.index]) for v in op.inputs() if v.index in names]
        for layer in own[:1]:
            macs[layer] = macs.get(layer, 0) + op_macs(op)
        for layer in own:
            uses.setdefault(layer)
    widths: dict[str, int] = {}
    open_: dict[str, list[tuple[str, int]]] = {}
    closed: dict[str, list[str]] = {}
    for group in groups:
        for member in group.members:
            if not member.produces:
                continue
            layer = layer_of(member.tensor)
            widths[layer] = len(member.channel_of)
            inside = int((member.channel_of >= 0).sum())
            if group.reason:
                closed.setdefault(layer, []).append(f"locked: {group.reason}")
            else:
                open_.setdefault(layer, []).append((group.name, inside))
    rows: list[LayerRow] = []
    for layer in uses:
        if layer in widths:
            mine = dict(open_.get(layer, ()))
            rows.append(
                LayerRow(
                    name=layer,
                    type=types.get(layer, "parameter"),
                    width=widths[layer],
                    group=", ".join(mine),
                    prunable=min(sum(mine.values()), widths[layer]),
                    reason="; ".join(dict.fromkeys(closed.get(layer, ()))),
                    params=params.get(layer, 0)
                    or prod(next(v.shape for n, v in trace.tensors.items() if layer_of(n) == layer)),
                    macs=macs.get(layer, 0),
                )
            )
    return tuple(rows)
