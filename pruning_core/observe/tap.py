"""Look into a live run of the model at chosen calls, numbered as in its trace."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from pruning_core.assignments import Assignments
from pruning_core.coupling.rules import has_rule
from pruning_core.errors import ModelError
from pruning_core.inputs import ExampleInputs
from pruning_core.memos import forget, forgotten
from pruning_core.observe.reading import blaming_data
from pruning_core.trace import Op, Trace, Value, call_model, is_call, is_skipped, quiet_kernels
from pruning_core.twin import named_tensors

Look = Callable[[Op, tuple[Any, ...], Callable[[], Any]], Any]  # (call, arguments, run it) -> its result
Kernel = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]  # (operator, arguments, keyword arguments) -> its result


def call_here(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return func(*args, **kwargs)


class Tap(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts calls as the tracer does and hands the wanted ones to `look`."""

    def __init__(self, trace: Trace, wanted: Collection[int], look: Look, kernel: Kernel = call_here) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace, self.wanted, self.look, self.kernel = trace, frozenset(wanted), look, kernel
        self.at = 0
        self.missing = {index for index in self.wanted if index < len(trace.ops)}
        self.named: dict[int, int] = {}  # id of each of the model's tensors -> its value

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = str(func.overloadpacket)
        if not has_rule(name) and func._can_decompose():
            with self:
                taken_apart = func.decompose(*args, **kwargs)
            if taken_apart is not NotImplemented:
                return taken_apart
        if is_skipped(name):
            return self.kernel(func, args, kwargs) if name == "aten.contiguous" else func(*args, **kwargs)
        index = self.at
        if index in self.wanted:
            op = self.trace.ops[index]
            if op.func is func and self._reads_the_same(op, args):
                self.at += 1
                self.missing.remove(index)
                result = self.look(op, args, lambda: self.kernel(func, args, kwargs))
                forget(self.trace.memos)
                return result
        result = self.kernel(func, args, kwargs)
        if is_call(func, result):
            if index in self.wanted:
                raise other_way(name)
            self.at += 1
        forget(self.trace.memos)
        return result

    def _reads_the_same(self, op: Op, args: Any) -> bool:
        """Whether the model's tensors among the arguments are those of the trace: a router may have left a layer out."""
        return all(
            self.named.get(id(tensor), value.index) == value.index
            for value, tensor in zip(op.args, args, strict=False)
            if isinstance(value, Value)
        )


def other_way(name: str) -> ModelError:
    return ModelError(
        f"the model makes other calls on the calibration data than on the example inputs ({name})",
        "calibration",
        "pass batches that take the way of the example inputs, through the same layers, or switch off what reads "
        "calibration data: criterion 'l2_norm', compensation 'none'",
    )


def run_tapped(model: nn.Module, inputs: ExampleInputs, tap: Tap) -> Any:
    """The model's outputs. It must be in evaluation mode, and a copy of the engine's own. Raises: ModelError.

    A twin runs: what a forward caches on its modules is not there the next time, as in the trace. It has its own copies
    of what the traced forward writes, and shares the rest.
    """
    writes = tap.trace.writes
    fresh = writes.twin(model)
    with quiet_kernels(), torch.inference_mode():
        given = writes.given(inputs, lambda t: tap.kernel(torch.ops.aten.clone.default, (t,), {}))
        tap.named = {id(t): tap.trace.tensors[name].index for name, t in named_tensors(fresh).items()}
        with forgotten(tap.trace.remembered_by), Assignments(), tap, blaming_data():
            outputs = call_model(fresh, given)
        if tap.missing:
            raise other_way(tap.trace.ops[min(tap.missing)].name)
        return outputs
