"""Parameters that the traced run never reads: layers that only run in training, and layers that did not run at all.

What a run in training mode reads together with them is kept whole, so that they fit afterwards. Of the others nothing
can be known: they are named.
"""

from __future__ import annotations

import numpy as np
from torch import nn

from pruning_core.coupling.analysis import Decisions, analyse
from pruning_core.coupling.groups import layer_of
from pruning_core.coupling.units import Ids
from pruning_core.trace import Trace
from pruning_core.tree import is_prunable_dtype
from pruning_core.twin import modules_by_path

Pins = dict[tuple[str, int], tuple[Ids, str]]  # (tensor, axis) -> positions that stay, and why


def unread(model: nn.Module, trace: Trace) -> frozenset[str]:
    """The parameters that no call of the run reads."""
    read = {value.index for op in trace.ops for value in op.inputs()} | {value.index for value in trace.outputs}
    parameters = {name for name, _ in model.named_parameters()}
    return frozenset(
        name
        for name, value in trace.tensors.items()
        if name in parameters and value.index not in read and is_prunable_dtype(value.dtype) and value.shape
    )


def pins_of(training: Trace, left_out: frozenset[str]) -> Pins:
    """Channels of the other tensors that a run in training mode ties to those parameters."""
    analysis = analyse(training, Decisions())
    pins: Pins = {}
    for reader in sorted(left_out):
        labels = {int(x) for ids in analysis.tensor_axes(reader) for x in analysis.labels[ids[ids != 0]]}
        for name in training.tensors:
            for axis, ids in enumerate(analysis.tensor_axes(name) if name not in left_out else ()):
                tied = np.flatnonzero((ids != 0) & np.isin(analysis.labels[ids], list(labels)))
                if len(tied):
                    known, why = pins.get((name, axis), (tied, f"read by {layer_of(reader)}, which runs only in training"))
                    pins[name, axis] = np.union1d(known, tied), why
    return pins


def names_of(model: nn.Module, left_out: frozenset[str]) -> tuple[str, ...]:
    """Modules of which nothing is read, the outermost alone, and single parameters of the others."""
    whole = [
        path
        for path, module in modules_by_path(model).items()
        if path and (mine := [f"{path}.{name}" for name, _ in module.named_parameters()]) and left_out.issuperset(mine)
    ]
    found = [path for path in whole if not any(path.startswith(f"{other}.") for other in whole)]
    return (*found, *sorted(name for name in left_out if not any(name.startswith(f"{path}.") for path in found)))
