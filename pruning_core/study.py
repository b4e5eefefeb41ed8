"""The caller's model, traced once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from pruning_core.checks import check_devices, check_model
from pruning_core.coupling.rules import has_rule
from pruning_core.coupling.rules.index import known_pick
from pruning_core.coupling.units import Ids
from pruning_core.errors import ModelError
from pruning_core.inputs import ExampleInputs
from pruning_core.reorder import Reorder, reordered
from pruning_core.trace import Trace, meta_twin, real_twin, record
from pruning_core.twin import like, named_tensors, twin
from pruning_core.unread import names_of, pins_of, unread


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """The caller's model, traced once."""

    model: nn.Module
    inputs: ExampleInputs
    tensors: dict[str, Tensor]
    trace: Trace
    not_run: tuple[str, ...] = ()  # layers that no call reads, in training neither

    def reordered(self, reorders: Sequence[Reorder]) -> Subject:
        """The same function with entries in other places: what a plan with reorders cuts."""
        if not reorders:
            return self
        model = reordered(self.model, reorders)
        return replace(self, model=model, tensors=named_tensors(model))

    def retrace(self, pruned: nn.Module, *, double: bool = False) -> Trace:
        """Run a pruned throw-away copy the same way, or in double precision."""
        inputs = self.inputs
        if double:
            pruned, inputs = twin(pruned, lambda t: like(t, _in_double(t.detach()))), inputs.map(_in_double)
        trace = self.trace
        return record(pruned, inputs, named_tensors(pruned), keep_whole=has_rule, real=trace.real, known=trace)


def _in_double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def study(model: nn.Module, inputs: ExampleInputs) -> Subject:
    """Trace the model: on the meta device, or for real where its forward needs values.

    Raises: ModelError when the model cannot be run on the example inputs.
    """
    check_model(model)
    tensors = named_tensors(model)
    check_devices(tensors, inputs)
    trace = _on_meta(model, inputs)
    if trace.remembered_by:
        trace = _on_meta(model, inputs, trace)
    if trace.error is not None:
        if any(t.device.type == "meta" for t in tensors.values()):
            raise _cannot_run(trace)
        trace = _on_real_values(model, inputs)
        if trace.remembered_by:
            trace = _on_real_values(model, inputs, trace)
        if trace.error is not None:
            raise _cannot_run(trace)
    if not trace.outputs:
        raise ModelError(
            "the model returns no tensor", type(model).__name__, "return a tensor, or tuples, lists, dicts of them"
        )
    trace.positions = channel_numbers(trace, tensors)
    return Subject(model, inputs, tensors, trace, _pin(model, inputs, trace))


def _pin(model: nn.Module, inputs: ExampleInputs, trace: Trace) -> tuple[str, ...]:
    """Keep whole what layers read that run only in training; the names of those that did not run even then."""
    left_out = unread(model, trace)
    if not left_out:
        return ()
    copy = real_twin(model) if trace.real else meta_twin(model)
    with torch.random.fork_rng(devices=[]):  # a real run draws for its dropout
        named = named_tensors(copy)
        training = record(copy, inputs, named, keep_whole=has_rule, real=trace.real, training=True, known=trace)
    if training.error is None:
        trace.pins = pins_of(training, left_out - unread(model, training))
        left_out &= unread(model, training)
    return names_of(model, left_out)


def _on_meta(model: nn.Module, inputs: ExampleInputs, known: Trace | None = None) -> Trace:
    copy = meta_twin(model)
    return record(copy, inputs, named_tensors(copy), keep_whole=has_rule, real=False, known=known)


def _on_real_values(model: nn.Module, inputs: ExampleInputs, known: Trace | None = None) -> Trace:
    """The weights are only copied where the forward writes some."""
    copy = real_twin(model)
    named = named_tensors(copy)
    shared = {name for name, t in named.items() if isinstance(t, nn.Parameter)}
    trace = record(copy, inputs, named, keep_whole=has_rule, real=True, spared=shared, known=known)
    if shared.isdisjoint(trace.writes.tensors):
        return trace
    copy = real_twin(model, copy=True)
    return record(copy, inputs, named_tensors(copy), keep_whole=has_rule, real=True, known=known)


def channel_numbers(trace: Trace, tensors: dict[str, Tensor]) -> dict[int, Ids]:
    """The numbers in the integer buffers that one call alone reads, to pick channels of a computed value."""
    names = {value.index: name for name, value in trace.tensors.items()}
    uses = Counter(value.index for op in trace.ops for value in op.inputs())
    uses.update(value.index for value in trace.outputs)
    found: dict[int, Ids] = {}
    for op in trace.ops:
        pick = known_pick(op)
        if pick is None or op.args[0].index in names or uses[pick[1].index] != 1:
            continue
        dim, value = pick
        tensor = tensors.get(names.get(value.index, ""))
        if tensor is not None and tensor.device.type != "meta":
            width = op.args[0].shape[dim]
            found[value.index] = tensor.detach().cpu().numpy().astype(np.int64) % max(width, 1)
    return found


def _cannot_run(trace: Trace) -> ModelError:
    error = trace.error
    text = f"{type(error).__name__}: {error}".splitlines()[0] if error else ""
    return ModelError(
        f"the model's forward fails on the example inputs: {text}",
        f"module {trace.module!r}" if trace.module else "the model's forward",
        "pass inputs that the model accepts, on the model's device",
    )
