"""Gram matrices of the inputs of every layer from one pass over the calibration data, by channel or by kernel position."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from pruning_core.calibration import Batch
from pruning_core.errors import ModelError
from pruning_core.observe.calls import LayerCall, layer_calls
from pruning_core.observe.gram import MAX_INPUTS, Gram, spread_rows
from pruning_core.observe.pieces import pieces
from pruning_core.observe.tap import Tap, run_tapped
from pruning_core.trace import Op, Trace

ROWS = 65_536  # positions that are looked at per layer at most, spread evenly over the samples
ROWS_PER_INPUT, MIN_ROWS = 16, 32_768  # as many are enough
MAX_UNFOLDED = 1152  # inputs of a convolution with each kernel position counted; wider ones take seconds per group


def input_moments(
    model: nn.Module, trace: Trace, data: Iterable[Batch], samples: int, seed: int = 0, *, unfolded: bool = False
) -> dict[int, Gram]:
    """Call -> Gram matrix [G, I + 1, I + 1] of its input channels at single positions, with a constant last.

    `samples`: how many the data holds; they are read once, one piece at a time.
    `unfolded`: of all that a convolution's kernel reads at once, [G, I T + 1, I T + 1] for T kernel positions, up to
    MAX_UNFOLDED. Layers of more than MAX_INPUTS input channels are left out.
    `model` is a copy of the engine's own, in evaluation mode. Raises: ModelError for activations that are no numbers.
    """
    calls = {call.op.index: call for call in layer_calls(trace) if call.inputs <= MAX_INPUTS}
    grams = {index: Gram(exact=True) for index in calls}
    seen = size = 0

    def look(op: Op, args: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        call = calls[op.index]
        x, out = call.input_of(args), run()
        is_unfolded = unfolded and _unfolds(call)
        read = out if is_unfolded else x
        inputs = call.inputs * (math.prod(call.op.args[1].shape[2:]) if is_unfolded else 1)
        wanted = min(max(ROWS_PER_INPUT * inputs, MIN_ROWS), ROWS)
        count = read.numel() // read.shape[call.channel_axis]
        rows = spread_rows(count, size, seen, math.ceil(wanted / samples), seed)
        if is_unfolded:
            grams[op.index].add(call.input_rows(x, tuple(call.op.args[1].shape), call.groups, rows))
        else:
            grams[op.index].add(channel_rows(call, x, rows))
        return out

    for batch in pieces(data, trace):
        size = len(batch)
        run_tapped(model, batch.inputs, Tap(trace, calls, look))
        seen += size
    for index, gram in grams.items():
        if gram.rows and not bool(gram.xx.isfinite().all()):
            raise ModelError(
                "the calibration data makes activations that are NaN or infinite",
                f"input of {calls[index].weight!r}",
                "look at the calibration samples: they must be preprocessed as the model expects",
            )
    return {index: gram for index, gram in grams.items() if gram.rows}


def _unfolds(call: LayerCall) -> bool:
    """Not depthwise convolutions, among whose single inputs nothing is to be chosen."""
    return call.kind == "conv" and call.inputs > 1 and call.inputs * math.prod(call.op.args[1].shape[2:]) <= MAX_UNFOLDED


def channel_rows(call: LayerCall, x: Tensor, rows: Tensor) -> Tensor:
    """The input's channels at some positions, numbered as they lie: [G, N, I]."""
    last = x.movedim(call.channel_axis, -1)
    found = last[torch.unravel_index(rows, last.shape[:-1])]
    return found.reshape(len(rows), call.groups, -1).transpose(0, 1)
