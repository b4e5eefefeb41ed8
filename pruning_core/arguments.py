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


def planned(prediction: Prediction, op: Op) -> dict[int, Any]:
    """Position of an argument -> its value after the cut, for the arguments that may change."""
    rewrite = _TABLE.get(op.name.removeprefix("aten."))
    if rewrite is None:
        return {}
    return {k: new for k, new in rewrite(prediction, op).items() if k < len(op.args) and new is not None}


def new_arguments(prediction: Prediction, op: Op) -> dict[int, Any]:
    """The same, for those arguments alone that do change."""
    return {k: new for k, new in planned(prediction, op).items() if new != op.args[k]}


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
    """Amounts that add count the kept ones among the added, at the ends of the output; those that cut, of the input."""
    pad = list(op.args[1])
    before, after = (prediction.analysis.axes[value.index] for value in (op.args[0], op.outputs()[0]))
    for k, amount in enumerate(pad):
        keeps = prediction.keeps[(after if amount > 0 else before)[-1 - k // 2]]
        part = keeps[len(keeps) - abs(amount) :] if k % 2 else keeps[: abs(amount)]
        pad[k] = int(np.sign(amount)) * int(part.sum())
    return {1: tuple(pad)}


def _roll(prediction: Prediction, op: Op) -> dict[int, Any]:
    """A shift becomes the number of kept positions that it carries round the end."""
    many = isinstance(op.args[1], tuple)
    shifts, dims = (op.args[k] if many else (op.args[k],) for k in (1, 2)) if len(op.args) > 2 else ((), ())
    found: list[int] = []
    for shift, dim in zip(shifts, dims, strict=False):
        keeps = prediction.keeps[_axis(prediction, op, dim)]
        carried = abs(shift) % len(keeps)
        part = keeps[len(keeps) - carried :] if shift > 0 else keeps[:carried]
        found.append(shift if keeps.all() else int(np.sign(shift)) * int(part.sum()))
    return {1: tuple(found) if many else found[0]} if found else {}


def _norm_sizes(prediction: Prediction, op: Op) -> dict[int, Any]:
    shape = prediction.shape(op.args[0])
    return {3: shape[0], 4: shape[1], 5: int(np.prod(shape[2:])), **_norm_groups(6)(prediction, op)}


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
    "native_group_norm": _norm_sizes,
    "channel_shuffle": _norm_groups(1),
    "native_channel_shuffle": _norm_groups(1),
    "roll": _roll,
}

# Arguments that the shape of the output shows, so that they need no other proof.
SIZES: dict[str, tuple[int, ...]] = {
    f"aten.{name}": at
    for names, at in (
        ("view reshape _unsafe_view expand view_copy broadcast_to new_zeros new_ones new_empty new_full repeat tile", (1,)),
        ("split split_with_sizes unsafe_split unsafe_split_with_sizes chunk unsafe_chunk repeat_interleave", (1,)),
        ("tensor_split hsplit vsplit dsplit", (1,)),
        ("zeros ones empty full rand randn", (0,)),
        ("empty_strided", (0, 1)),
        ("new_empty_strided", (1, 2)),
        ("unflatten", (2,)),
        ("affine_grid_generator", (1,)),  # the one size of [N, C, H, W] that its output does not have is not used
    )
    for name in names.split()
}
LAYOUT = frozenset({"memory_format", "pin_memory", "layout", "output_size", "non_blocking"})  # these compute nothing

# Arguments that say which positions of an axis are read; proved by `same_places`.
PLACES: dict[str, tuple[int, ...]] = {"aten.slice": (2, 3, 4), "aten.narrow": (2, 3), "aten.select": (2,)}


def same_places(prediction: Prediction, op: Op, args: tuple[Any, ...], others: tuple[Any, ...]) -> bool:
    """Whether the pruned call reads the kept ones of the positions that the original reads, in the same order."""
    keeps = prediction.keeps[_axis(prediction, op, args[1])]
    if args[1:] == others[1:] and keeps.all():
        return True
    places = _picked(op.name, args, len(keeps))
    rank = np.cumsum(keeps) - 1
    return np.array_equal(rank[places[keeps[places]]], _picked(op.name, others, int(keeps.sum())))


def _picked(name: str, args: tuple[Any, ...], width: int) -> Ids:
    if name == "aten.slice":
        return np.arange(width)[slice(*args[2:5])]
    start = args[2] % max(width, 1)
    return np.arange(width)[start : start + (args[3] if name == "aten.narrow" else 1)]


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
