"""The caller's model, traced once."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from pruning_core.checks import check_devices, check_model
from pruning_core.coupling.rules import has_rule
from pruning_core.errors import ModelError
from pruning_core.inputs import ExampleInputs
from pruning_core.trace import Trace, meta_twin, real_twin, record
from pruning_core.twin import named_tensors


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """The caller's model, traced once."""

    model: nn.Module
    inputs: ExampleInputs
    tensors: dict[str, Tensor]
    trace: Trace

    def retrace(self, pruned: nn.Module) -> Trace:
        """Run a pruned throw-away copy the same way."""
        return record(pruned, self.inputs, named_tensors(pruned), keep_whole=has_rule, real=self.trace.real)


def study(model: nn.Module, inputs: ExampleInputs) -> Subject:
    """Trace the model: on the meta device, or for real where its forward needs values.

    Raises: ModelError when the model cannot be run on the example inputs.
    """
    check_model(model)
    tensors = named_tensors(model)
    check_devices(tensors, inputs)
    copy = meta_twin(model)
    trace = record(copy, inputs, named_tensors(copy), keep_whole=has_rule, real=False)
    if trace.error is not None:
        if any(t.device.type == "meta" for t in tensors.values()):
            raise _cannot_run(trace)
        copy = real_twin(model)
        trace = record(copy, inputs, named_tensors(copy), keep_whole=has_rule, real=True)
        if trace.error is not None:
            raise _cannot_run(trace)
    if not trace.outputs:
        raise ModelError(
            "the model returns no tensor", type(model).__name__, "return a tensor, or tuples, lists, dicts of them"
        )
    return Subject(model, inputs, tensors, trace)


def _cannot_run(trace: Trace) -> ModelError:
    error = trace.error
    text = f"{type(error).__name__}: {error}".splitlines()[0] if error else ""
    return ModelError(
        f"the model's forward fails on the example inputs: {text}",
        f"module {trace.module!r}" if trace.module else "the model's forward",
        "pass inputs that the model accepts, on the model's device",
    )
