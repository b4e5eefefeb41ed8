"""Recurrent layers in one call: the gates of a hidden unit are tied, so that hidden units are the channels."""

from __future__ import annotations

from typing import Any

import numpy as np

from pruning_core.coupling.rules.linear import contract
from pruning_core.coupling.rules.table import Context, Sym, rule
from pruning_core.coupling.units import Axes, Ids, fixed


def _direction(ctx: Context, x: Ids, weights: list[Sym], gates: int, bias: bool, projected: bool) -> tuple[Ids, Ids]:
    """One layer in one direction: w_ih [g H, I], w_hh [g H, H or P], biases [g H], w_hr [P, H] -> (hidden, output) ids."""
    w_ih, w_hh = weights[0], weights[1]
    contract(ctx, x, w_ih.axes[1])
    hidden = w_ih.axes[0].reshape(gates, -1)[0]
    for tensor in (w_ih, w_hh, *(weights[2:4] if bias else ())):
        for gate in tensor.axes[0].reshape(gates, -1):
            ctx.links.join(hidden, gate)
    out = hidden
    if projected:
        w_hr = weights[-1]
        contract(ctx, hidden, w_hr.axes[1])
        out = w_hr.axes[0]
        ctx.links.emit(out)
    contract(ctx, out, w_hh.axes[1])
    for tensor in (w_ih, w_hh):
        ctx.links.emit(tensor.axes[0])
    return hidden, out


def _recurrent(
    ctx: Context, x: Sym, states: list[Sym], params: tuple[Sym, ...], rest: tuple[Any, ...], gates: int
) -> list[Axes]:
    """x [T, B, I], or [B, T, I]: each step reads what the ones before it left, so no step can go; B passes."""
    bias, layers, _dropout, _train, both, batch_first = rest
    directions = 2 if both else 1
    time = 1 if batch_first else 0
    ctx.links.lock(x.axes[time], f"steps in time of {ctx.links.where()}")
    batch = x.axes[1 - time]
    per = len(params) // (layers * directions)
    projected = per == (5 if bias else 3)
    feed, hiddens, outs = x.axes[-1], [], []
    for layer in range(layers):
        found = []
        for d in range(directions):
            first = (layer * directions + d) * per
            found.append(_direction(ctx, feed, list(params[first : first + per]), gates, bias, projected))
        hiddens += [hidden for hidden, _ in found]
        outs += [out for _, out in found]
        feed = np.concatenate([out for _, out in found]) if both else found[0][1]
    lead = (batch, fixed(x.shape[1])) if batch_first else (fixed(x.shape[0]), batch)
    results: list[Axes] = [(*lead, feed)]
    values = ctx.op.outputs()
    for value, per_layer, state in zip(values[1:], (outs, hiddens), [*states, None, None], strict=False):
        # one tensor holds the states of all layers, so they have one width
        if any(len(ids) != len(per_layer[0]) for ids in per_layer):
            ctx.links.lock_axes(tuple(per_layer), f"states of several layers in one tensor in {ctx.links.where()}")
        else:
            for ids in per_layer[1:]:
                ctx.links.join(per_layer[0], ids)
            if state is not None:
                ctx.links.join(per_layer[0], state.axes[-1])
        if state is not None:
            ctx.links.lock(state.axes[0], f"layers of {ctx.links.where()}")
            ctx.links.join(batch, state.axes[1])
        results.append((fixed(value.shape[0]), batch, per_layer[0]))
    return results


@rule("aten.lstm")
def lstm(ctx: Context, x: Sym, states: Any, params: Any, *rest: Any) -> Any:
    if not isinstance(params, tuple):
        return ctx.lock_all(f"packed sequences in {ctx.links.where()}")
    if isinstance(params[0], Sym) and isinstance(states, tuple) and isinstance(rest[0], bool):
        return _recurrent(ctx, x, list(states), params, rest, 4)
    return ctx.lock_all(f"packed sequences in {ctx.links.where()}")


@rule("aten.gru", "aten.rnn_tanh", "aten.rnn_relu")
def gru(ctx: Context, x: Sym, state: Any, params: Any, *rest: Any) -> Any:
    gates = 3 if ctx.op.name == "aten.gru" else 1
    if isinstance(params, tuple) and isinstance(state, Sym) and isinstance(rest[0], bool):
        return _recurrent(ctx, x, [state], params, rest, gates)
    return ctx.lock_all(f"packed sequences in {ctx.links.where()}")
