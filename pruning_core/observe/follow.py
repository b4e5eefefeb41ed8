"""From a layer's call along its output: the BatchNorm behind it, and where its feature map is finished."""

from __future__ import annotations

from pruning_core.coupling.rules.elementwise import is_pointwise, pointwise, same
from pruning_core.coupling.rules.table import RULES
from pruning_core.observe.calls import LayerCall, layer_calls
from pruning_core.trace import Op, Trace, Value

BATCH_NORMS = frozenset(
    f"aten.{name}"
    for name in ("batch_norm", "native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit_no_training")
)


class Readers:
    """Which calls of a trace read each value."""

    def __init__(self, trace: Trace) -> None:
        self.outputs = {value.index for value in trace.outputs}
        self.of: dict[int, list[Op]] = {}
        for op in trace.ops:
            for index in dict.fromkeys(value.index for value in op.inputs()):
                self.of.setdefault(index, []).append(op)

    def alone(self, value: Value, after: int) -> Op | None:
        """The one call behind `after` that reads a value. One that writes in place makes it another value."""
        later = [op for op in self.of.get(value.index, ()) if op.index > after]
        if later and any(out.index == value.index for out in later[0].outputs()):
            return later[0]
        return later[0] if len(later) == 1 and value.index not in self.outputs else None


def chain(call: LayerCall, readers: Readers) -> list[Op]:
    """The layer's call and those that follow it one by one, channel by channel: BatchNorm and pointwise activations."""
    found = [call.op]
    while True:
        value = found[-1].outputs()[0]
        step = readers.alone(value, found[-1].index)
        if step is None or not _keeps(step, value):
            return found
        found.append(step)


def _keeps(op: Op, value: Value) -> bool:
    """Whether a call gives each channel's map back as the same channel's map, made from nothing else that was computed."""
    made = op.outputs()
    if not made or made[0].shape != value.shape or not made[0].dtype.is_floating_point:
        return False
    if op.name in BATCH_NORMS or op.name == "aten.prelu":
        return bool(op.args[0] == value)
    rule = RULES.get(op.name) or (pointwise if is_pointwise(op.func) else None)
    return rule in (pointwise, same) and len(op.inputs()) == 1


def gammas(trace: Trace) -> dict[tuple[str, int], list[str]]:
    """(weight, output axis) of a layer -> the BatchNorm weights behind its calls, where there are any."""
    names = {value.index: name for name, value in trace.tensors.items()}
    readers = Readers(trace)
    found: dict[tuple[str, int], list[str]] = {}
    for call in layer_calls(trace):
        norm = next((op for op in chain(call, readers) if op.name in BATCH_NORMS), None)
        of_channels = norm is not None and len(call.output.shape) + call.channel_axis == 1
        if norm is not None and of_channels and isinstance(norm.args[1], Value) and norm.args[1].index in names:
            found.setdefault((call.weight, call.out_axis), []).append(names[norm.args[1].index])
    return found
