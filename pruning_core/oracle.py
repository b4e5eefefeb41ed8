"""Mask equivalence: muting the removed channels in the original must give what the pruned model computes.

The original runs call by call with every removed entry zeroed wherever it appears; statistics over a pruned axis
(normalisations, means, maxima, softmax) are taken over the kept entries, as the pruned model takes them. So the check
is exact for every plan: what is left is float rounding.
"""

from __future__ import annotations

import math
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pruning_core import tree
from pruning_core.coupling.rules import has_rule
from pruning_core.errors import VerifyError
from pruning_core.inputs import ExampleInputs
from pruning_core.memos import forgotten
from pruning_core.prediction import Prediction
from pruning_core.trace import Op, Value, call_model, is_skipped, operator_name, quiet_kernels, real_twin
from pruning_core.twin import like, named_tensors, twin
from pruning_core.writes import is_view, own_copy

TOLERANCE = {torch.float64: 1e-5, torch.float32: 2e-3}  # of the largest output
HALF = 5e-2  # of half precision and bfloat16: what summing in another order changes
_STATISTICS = (
    "aten.layer_norm aten.native_layer_norm aten.rms_norm aten._fused_rms_norm aten.group_norm aten.native_group_norm"
    " aten.mean aten.amax aten.amin aten.logsumexp aten.prod aten.var aten.std aten.var_mean aten.std_mean aten.max aten.min"
    " aten.softmax aten._softmax aten.log_softmax aten._log_softmax aten._safe_softmax aten._weight_norm aten.any aten.all"
    " aten.batch_norm aten.native_batch_norm aten.instance_norm"
    " aten._weight_norm_interface aten.scaled_dot_product_attention aten.median"
)
STATISTICS = frozenset(_STATISTICS.split())


def carrying_ops(prediction: Prediction) -> list[Op]:
    """The calls that a removed entry reaches, from the module's tensors on, in order."""
    trace = prediction.analysis.trace
    carries = {v.index for v in trace.tensors.values() if prediction.shape(v) != v.shape}
    found: list[Op] = []
    for op in trace.ops:
        if any(v.index in carries for v in op.inputs()):
            found.append(op)
            carries |= {v.index for v in op.outputs() if prediction.shape(v) != v.shape}
    return found


class _Muted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs the original with removed entries held at zero, in lockstep with the calls that carry them."""

    def __init__(self, prediction: Prediction) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.prediction = prediction
        self.ops = carrying_ops(prediction)
        self.at = 0
        self.carries: dict[int, weakref.ref[Tensor]] = {}

    def start(self, tensor: Tensor, value: Value) -> None:
        """A tensor of the module: mute it, and follow it where it carries removed entries."""
        self.mute(tensor, value)
        self._follow(tensor, value)

    def _follow(self, tensor: Tensor, value: Value) -> None:
        if self.prediction.shape(value) != value.shape:
            self.carries[id(tensor)] = weakref.ref(tensor)

    def _carried(self, tensor: Tensor) -> bool:
        known = self.carries.get(id(tensor))
        return known is not None and known() is tensor

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = operator_name(func)
        if not has_rule(name) and func._can_decompose():
            with self:
                taken_apart = func.decompose(*args, **kwargs)
            if taken_apart is not NotImplemented:
                return taken_apart
        if not any(self._carried(t) for t in tree.tensors((args, kwargs))):
            return func(*args, **kwargs)
        if is_skipped(name):
            result = func(*args, **kwargs)
            if isinstance(result, Tensor):
                self.carries[id(result)] = weakref.ref(result)
            return result
        op = self.ops[self.at] if self.at < len(self.ops) else None
        if op is None or op.func is not func:
            raise VerifyError(
                "the original took another way with its removed channels muted",
                f"call {self.at}: {name}",
                "its control flow depends on values; exclude the layers it depends on",
            )
        self.at += 1
        statistic = name in STATISTICS
        result = self._on_kept(func, op, args, kwargs) if statistic else func(*args, **kwargs)
        for tensor, value in zip(tree.tensors(result), op.outputs(), strict=True):
            if not statistic and not is_view(func):
                self.mute(tensor, value)
            self._follow(tensor, value)
        return result

    def mute(self, tensor: Tensor, value: Value) -> None:
        """Zero the removed entries in place."""
        for axis, ids in enumerate(self.prediction.analysis.axes.get(value.index, ())):
            gone = (~self.prediction.keeps[ids]).nonzero()[0]
            if len(gone) and tensor.shape[axis] == len(ids):
                tensor.index_fill_(axis, torch.from_numpy(gone), 0)

    def _kept(self, tensor: Tensor, value: Value) -> Tensor:
        for axis, ids in enumerate(self.prediction.analysis.axes.get(value.index, ())):
            if not self.prediction.keeps[ids].all():
                tensor = tensor.index_select(axis, torch.from_numpy(self.prediction.keeps[ids].nonzero()[0]))
        return tensor

    def _spread(self, small: Tensor, value: Value) -> Tensor:
        for axis, ids in enumerate(self.prediction.analysis.axes.get(value.index, ())):
            keeps = self.prediction.keeps[ids]
            if not keeps.all():
                shape = list(small.shape)
                shape[axis] = len(ids)
                index = torch.from_numpy(keeps.nonzero()[0])
                small = torch.zeros(shape, dtype=small.dtype).index_copy_(axis, index, small)
        return small

    def _on_kept(self, func: Any, op: Any, args: Any, kwargs: Any) -> Any:
        """Run the call on the kept entries only, and put its results back in place."""

        def cut(arg: Any, symbol: Any) -> Any:
            if isinstance(arg, Tensor):
                return self._kept(arg, symbol)
            if isinstance(arg, list | tuple):
                return type(arg)(cut(a, s) for a, s in zip(arg, symbol, strict=True))
            return arg

        small = [cut(a, s) for a, s in zip(args, op.args, strict=True)]
        keywords = {k: cut(v, op.kwargs[k]) for k, v in kwargs.items()}
        name = op.name.removeprefix("aten.")
        if name in {"layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm"}:
            small[1] = list(small[0].shape[-len(args[1]) :])
        elif name == "group_norm":
            small[1] = self._norm_groups(op, args[1])
        elif name == "native_group_norm":
            small[4], small[6] = small[0].shape[1], self._norm_groups(op, args[6])
        elif name == "scaled_dot_product_attention" and keywords.get("scale") is None:
            keywords["scale"] = 1 / math.sqrt(args[0].shape[-1])
        result = func(*small, **keywords)
        values = iter(op.outputs())
        if isinstance(result, Tensor):
            return self._spread(result, next(values))
        return type(result)(self._spread(r, next(values)) if isinstance(r, Tensor) else r for r in result)

    def _norm_groups(self, op: Any, groups: int) -> int:
        """Groups left after the cut: all of them, or those that were kept whole."""
        ids = self.prediction.analysis.axes[op.args[0].index][1]
        keeps = self.prediction.keeps[ids].reshape(groups, -1)
        return int(keeps.any(axis=1).sum())


def mask_error(model: nn.Module, pruned: nn.Module, prediction: Prediction, inputs: ExampleInputs) -> float:
    """Largest difference between the muted original and the pruned model, as a share of the largest output.

    Runs in float64 where the model can, else in float32. Raises: VerifyError when the two do not agree.
    """
    try:
        dtype, error = torch.float64, _error_in(torch.float64, model, pruned, prediction, inputs)
    except (RuntimeError, TypeError):  # a model that insists on single precision somewhere
        dtype, error = torch.float32, _error_in(torch.float32, model, pruned, prediction, inputs)
    if error <= TOLERANCE[dtype]:
        return error
    raise VerifyError(
        f"the pruned model differs from the muted original by {error:.3g} of the largest output",
        "numeric check on the example inputs",
        "this is a fault of the engine: report the model, and exclude layers until it passes",
    )


def same_function(model: nn.Module, other: nn.Module, inputs: ExampleInputs) -> bool:
    """Whether two modules answer alike, each in its own precision. False where the model does not run on the inputs."""
    try:
        want = list(tree.held(_own_answer(model, inputs)))
    except Exception:  # whatever its code raises on these inputs (some were made up): there is nothing to compare with
        return False
    got = list(tree.held(_own_answer(other, inputs)))
    return len(want) == len(got) and all(map(_alike, want, got))


def _own_answer(module: nn.Module, inputs: ExampleInputs) -> Any:
    with quiet_kernels(), torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(0)  # the same draws for both
        return call_model(real_twin(module, copy=True).eval(), own_copy(inputs))


def _alike(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or not (a.is_floating_point() or a.is_complex()):
        return torch.equal(a, b)
    a, b = a.nan_to_num(), b.nan_to_num()
    tolerance = TOLERANCE.get(a.abs().dtype, HALF)
    return not a.numel() or bool((a - b).abs().max() <= tolerance * a.abs().max().clamp_min(1e-12))


def _error_in(
    dtype: torch.dtype,
    model: nn.Module,
    pruned: nn.Module,
    prediction: Prediction,
    inputs: ExampleInputs,
) -> float:
    def cast(t: Tensor) -> Tensor:
        data = t.detach().cpu()
        if data.is_floating_point():
            data = data.to(dtype)
        elif data.is_complex():
            data = data.to(torch.complex128 if dtype is torch.float64 else torch.complex64)
        return like(t, data.clone())

    original, small = twin(model, cast).eval(), twin(pruned, cast).eval()

    def answer_of(module: nn.Module) -> Any:
        given = inputs.map(lambda t: t.detach().to("cpu", dtype if t.is_floating_point() else t.dtype, copy=True))
        return module(*given.args, **given.kwargs)

    muted = _Muted(prediction)
    trace = prediction.analysis.trace
    named = named_tensors(original)
    with forgotten(trace.remembered_by), quiet_kernels(), torch.inference_mode():
        for name, tensor in named.items():
            muted.start(tensor, trace.tensors[name])
        with muted:
            want = answer_of(original)
        got = answer_of(small)
    worst = 0.0
    for a, b in zip(tree.held(want), tree.held(got), strict=True):
        if a.shape != b.shape:
            return math.inf
        if a.numel() and (a.is_floating_point() or a.is_complex()):
            scale = max(float(a.abs().max()), 1e-12)
            worst = max(worst, float((a - b).abs().nan_to_num(0).max()) / scale)
            if bool((a.isnan() != b.isnan()).any()):
                return math.inf
        elif a.numel() and not torch.equal(a, b):
            return math.inf
    return worst
