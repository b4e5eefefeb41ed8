"""The arguments of a call after the cut: sizes, positions and counts that follow from the predicted axes.

Where Python code computes them they follow by themselves. In an exported graph they are numbers in its nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import fx, nn

from pruning_core.coupling.units import Ids
from pruning_core.nodes import NODE
from pruning_core.plan import AttributeMend
from pruning_core.prediction import Prediction
from pruning_core.trace import Op

Rewrite = Callable[[Prediction, Op], dict[int, Any]]


def new_arguments(prediction: Prediction, op: Op) -> dict[int, Any]:
    """Position of an argument -> its value after the cut, for those arguments that change."""
    rewrite = _TABLE.get(op.name.removeprefix("aten."))
    if rewrite is None:
        return {}
    changed = rewrite(prediction, op)
    return {k: new for k, new in changed.items() if k < len(op.args) and new != op.args[k] and new is not None}


def _out(prediction: Prediction, op: Op) -> tuple[int, ...]:
    return prediction.shape(op.outputs()[0])


def _size_at(position: int) -> Rewrite:
    """The output's shape stands in the arguments; -1 stays."""

    def rewrite(prediction: Prediction, op: Op) -> dict[int, Any]:
        old, new = op.args[position], _out(prediction, op)
        if len(old) != len(new):
            return {}
        return {position: tuple(-1 if a == -1 else b for a, b in zip(old, new, strict=True))}

    return rewrite


def _unflatten(prediction: Prediction, op: Op) -> dict[int, Any]:
    x, sizes = op.args[0], op.args[2]
    dim = op.args[1] % len(x.shape)
    return {2: _out(prediction, op)[dim : dim + len(sizes)]}


def _axis(prediction: Prediction, op: Op, dim: int) -> Ids:
    x = op.args[0][0] if isinstance(op.args[0], tuple) else op.args[0]
    return prediction.analysis.axes[x.index][dim]


def _split(prediction: Prediction, op: Op) -> dict[int, Any]:
    dim = op.args[2] if len(op.args) > 2 else 0
    sizes = tuple(prediction.shape(value)[dim] for value in op.outputs())
    return {1: sizes if isinstance(op.args[1], tuple) else sizes[0]}


def _rank(prediction: Prediction, ids: Ids, position: int | None) -> int | None:
    """How many kept positions lie before this one; positions from the end, or past it, stay so."""
    if position is None or position > len(ids):
        return position
    keeps = prediction.keeps[ids]
    return int(keeps[:position].sum()) if position >= 0 else -int(keeps[position:].sum())


def _slice(prediction: Prediction, op: Op) -> dict[int, Any]:
    ids = _axis(prediction, op, op.args[1] if len(op.args) > 1 else 0)
    step = op.args[4] if len(op.args) > 4 else 1
    if step != 1:
        return {}
    return {k: _rank(prediction, ids, op.args[k]) for k in (2, 3) if k < len(op.args)}


def _select(prediction: Prediction, op: Op) -> dict[int, Any]:
    return {2: _rank(prediction, _axis(prediction, op, op.args[1]), op.args[2])}


def _narrow(prediction: Prediction, op: Op) -> dict[int, Any]:
    dim = op.args[1]
    return {2: _rank(prediction, _axis(prediction, op, dim), op.args[2]), 3: _out(prediction, op)[dim]}


def _normalized(prediction: Prediction, op: Op) -> dict[int, Any]:
    return {1: prediction.shape(op.args[0])[-len(op.args[1]) :]}


def _norm_groups(at: int) -> Rewrite:
    def rewrite(prediction: Prediction, op: Op) -> dict[int, Any]:
        keeps = prediction.keeps[prediction.analysis.axes[op.args[0].index][1]].reshape(op.args[at], -1)
        return {at: int(keeps.any(axis=1).sum())}

    return rewrite


def conv_groups(prediction: Prediction, op: Op) -> tuple[int, int, int]:
    """Input channels, output channels and groups of a convolution after the cut."""
    x, weight = prediction.shape(op.args[0]), prediction.shape(op.args[1])
    axis = len(x) - len(weight) + 1
    channels, out = x[axis], _out(prediction, op)[axis]
    transposed = "transpose" in op.name
    return channels, out, (out if transposed else channels) // max(weight[1], 1)


def _conv(prediction: Prediction, op: Op) -> dict[int, Any]:
    return {6: conv_groups(prediction, op)[2]}


def _pad(prediction: Prediction, op: Op) -> dict[int, Any]:
    pad = list(op.args[1])
    axes = prediction.analysis.axes[op.outputs()[0].index]
    for k in range(len(pad) // 2):
        keeps = prediction.keeps[axes[-1 - k]]
        for side, part in ((0, keeps[: max(pad[2 * k], 0)]), (1, keeps[len(keeps) - max(pad[2 * k + 1], 0) :])):
            if pad[2 * k + side] > 0:
                pad[2 * k + side] = int(np.sum(part))
    return {1: tuple(pad)}


_TABLE: dict[str, Rewrite] = {
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "expand", "view_copy", "broadcast_to"), _size_at(1)),
    **dict.fromkeys(("new_zeros", "new_ones", "new_empty", "new_full"), _size_at(1)),
    **dict.fromkeys(("zeros", "ones", "empty", "full"), _size_at(0)),
    **dict.fromkeys(("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes"), _split),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _conv),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _conv),
    **dict.fromkeys(("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm"), _normalized),
    **dict.fromkeys(("constant_pad_nd", "pad"), _pad),
    "unflatten": _unflatten,
    "slice": _slice,
    "select": _select,
    "narrow": _narrow,
    "group_norm": _norm_groups(1),
    "native_group_norm": _norm_groups(6),
}


def node_mends(model: nn.Module, prediction: Prediction) -> list[AttributeMend]:
    """Arguments of the graph's nodes that the cut changes, all of them at once, from the predicted shapes."""
    if not isinstance(model, fx.GraphModule):
        return []
    nodes = {node.name: node for node in model.graph.nodes}
    found: list[AttributeMend] = []
    for op in prediction.analysis.trace.ops:
        node = nodes.get(op.key)
        if node is None or node.target is not op.func:
            continue
        for position, new in new_arguments(prediction, op).items():
            old = op.args[position]
            found.append(AttributeMend(module="", attribute=f"{NODE}{op.key}.{position}", old=_plain(old), new=_plain(new)))
    return found


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
