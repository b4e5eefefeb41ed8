"""Mask equivalence, measured from outside the engine: is the pruned model the function it should be?

The removed entries of every parameter and buffer of a fresh original are set to zero; its outputs must equal those of
the pruned model. Where a statistic runs over a pruned axis (LayerNorm, softmax, mean ...) it sees zeros in one model
and nothing in the other, so the two differ honestly. Those calls are found by their sizes, not by what the engine says
of them, and replaced in both models by maps that act on each element alone; everything else must still agree.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten
Keep = Mapping[str, Mapping[int, tuple[int, ...]]]  # tensor name -> axis -> kept indices of the original


@dataclass(frozen=True, slots=True)
class Verdict:
    """Errors are relative to the largest output."""

    error: float  # masked original against pruned model, as they are
    neutral_error: float | None  # the same with the statistics over pruned axes made neutral; None when there is none
    effect: float  # masked original against original: near 0 would mean that the mask showed nothing
    dtype: str

    @property
    def right(self) -> bool:
        return self.exact or (self.neutral_error is not None and self.neutral_error < self.tolerance)

    @property
    def exact(self) -> bool:
        return self.error < self.tolerance

    @property
    def tolerance(self) -> float:
        return 1e-6 if self.dtype == "float64" else 1e-2


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))


def mask(model: nn.Module, keep: Keep) -> None:
    """Zero, in place, what the cut removes. A weight-normalised filter goes through its scale: 0 / 0 is no mask."""
    tensors = named_tensors(model)
    with torch.no_grad():
        for name, axes in keep.items():
            tensor = tensors.get(name)  # None: a tensor that the model had cached
            if tensor is None or not (tensor.is_floating_point() or tensor.is_complex()):
                continue
            scale = tensors.get(_scale_name(name))
            for axis, kept in axes.items():
                if scale is not None and scale.ndim == tensor.ndim and scale.shape[axis] > 1:
                    continue
                gone = torch.ones(tensor.shape[axis], dtype=torch.bool)
                gone[list(kept)] = False
                tensor.index_fill_(axis, gone.nonzero().flatten(), 0)


def _scale_name(name: str) -> str:
    for direction, magnitude in (("original1", "original0"), ("weight_v", "weight_g")):
        if name.endswith(direction):
            return name.removesuffix(direction) + magnitude
    return ""


def call(model: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def leaves(value: Any) -> Iterator[Tensor]:
    """The floating-point tensors of an output, in order, whatever holds them."""
    if isinstance(value, Tensor):
        if value.is_floating_point() or value.is_complex():
            yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from leaves(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from leaves(part)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from leaves(getattr(value, field.name))


def cast(inputs: Any, dtype: torch.dtype) -> Any:
    if isinstance(inputs, Tensor):
        return inputs.to(dtype) if inputs.is_floating_point() else inputs.clone()
    if isinstance(inputs, dict):
        return {key: cast(part, dtype) for key, part in inputs.items()}
    if isinstance(inputs, list | tuple):
        return type(inputs)(cast(part, dtype) for part in inputs)
    return inputs


def compare(build: Callable[[], nn.Module], pruned: nn.Module, keep: Keep, inputs: Any, large: int) -> Verdict:
    """Judge `pruned`, in double precision where the models allow it and have no more than `large` parameters."""
    if sum(p.numel() for p in pruned.parameters()) <= large:
        try:
            return _compare(lambda: build().double(), pruned.double(), keep, cast(inputs, torch.float64), "float64")
        except (RuntimeError, TypeError, ValueError):
            pass  # a dtype written into the model
    return _compare(lambda: build().float(), pruned.float(), keep, cast(inputs, torch.float32), "float32")


def _compare(build: Callable[[], nn.Module], pruned: nn.Module, keep: Keep, inputs: Any, dtype: str) -> Verdict:
    original, _ = _run(build(), inputs)
    masked = build()  # a new one: a model may have cached at its first forward what it computed from the weights
    mask(masked, keep)
    expected, before = _run(masked, inputs)
    got, after = _run(pruned, inputs)
    error, effect = _difference(expected, got), _difference(original, expected)
    if [call.name for call in before] != [call.name for call in after]:
        return Verdict(error, None, effect, dtype)
    neutral = frozenset(i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a.size != b.size)
    if not neutral or error < 1e-9:
        return Verdict(error, None, effect, dtype)
    expected, got = _run(masked, inputs, neutral)[0], _run(pruned, inputs, neutral)[0]
    return Verdict(error, _difference(expected, got), effect, dtype)


def _difference(expected: list[Tensor], got: list[Tensor]) -> float:
    if [t.shape for t in expected] != [t.shape for t in got]:
        return math.inf
    worst = 0.0
    for a, b in zip(expected, got, strict=True):
        if a.numel() == 0:
            continue
        if not torch.equal(a.isnan(), b.isnan()):
            return math.inf
        gap, size = (a - b).abs(), a.abs()
        finite = size.isfinite() & gap.isfinite()
        if bool(finite.any()):
            worst = max(worst, float(gap[finite].max() / (size[finite].max() + 1e-12)))
    return worst


@dataclass(frozen=True, slots=True)
class Reduction:
    name: str
    size: int


def _run(model: nn.Module, inputs: Any, neutral: frozenset[int] = frozenset()) -> tuple[list[Tensor], list[Reduction]]:
    torch.manual_seed(0)
    torch.backends.mha.set_fastpath_enabled(False)
    with torch.no_grad(), _Statistics(neutral) as mode:
        return list(leaves(call(model, inputs))), mode.calls


class _Statistics(TorchDispatchMode):
    """Notes every statistic and over how many elements it runs; answers those in `neutral` element by element."""

    def __init__(self, neutral: frozenset[int]) -> None:
        super().__init__()
        self.neutral = neutral
        self.calls: list[Reduction] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        rule = _RULES.get(func)
        if rule is not None:
            size, substitute = rule
            self.calls.append(Reduction(str(func), size(*args, **kwargs)))
            if len(self.calls) - 1 in self.neutral:
                return substitute(out, *args, **kwargs)
        return out


def count_macs(model: nn.Module, inputs: Any) -> int:
    """Multiply-accumulates of convolutions, matrix products and attention in one forward."""
    torch.manual_seed(0)
    torch.backends.mha.set_fastpath_enabled(False)
    with torch.no_grad(), _Macs() as counter:
        call(model, cast(inputs, torch.float32))
    return counter.macs


class _Macs(TorchDispatchMode):
    macs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.macs += count(*args, **(kwargs or {}), out_val=out) // 2
        return out


def _reduced(x: Tensor, dim: Any = None, *_: Any, **__: Any) -> int:
    dims = range(x.ndim) if dim is None or dim == [] else [dim] if isinstance(dim, int) else dim
    return math.prod(x.shape[d] for d in dims)


def _shape(x: Tensor, shape: list[int], *_: Any, **__: Any) -> int:
    return math.prod(shape)


def _filled(value: float) -> Callable[..., Any]:
    def substitute(out: Any, *_: Any, **__: Any) -> Any:
        if isinstance(out, Tensor):
            return torch.full_like(out, value) if out.is_floating_point() else torch.zeros_like(out)
        return type(out)(substitute(part) for part in out)

    return substitute


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x.clone() if bias is None else x + bias


def _layer_norm(out: Any, x: Tensor, _shape: Any, weight: Tensor | None, bias: Tensor | None, *_: Any) -> Any:
    return (_affine(x, weight, bias), *out[1:])


def _rms_norm(out: Any, x: Tensor, _shape: Any, weight: Tensor | None, *_: Any) -> Any:
    return (_affine(x, weight, None), *out[1:])


def _group_norm(out: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, *_: Any) -> Any:
    tail = [1] * (x.ndim - 2)
    weight = None if weight is None else weight.view(-1, *tail)
    return (_affine(x, weight, None if bias is None else bias.view(-1, *tail)), *out[1:])


def _per_channel(x: Tensor, _weight: Any, _bias: Any, _mean: Any, _var: Any, training: bool, *_: Any) -> int:
    return x.numel() // x.shape[1] if training else 0


def _batch_norm(
    out: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, _mean: Any, _var: Any, training: bool, *_: Any
) -> Any:
    return _group_norm(out, x, weight, bias) if training else out


def _identity(_out: Any, x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x.masked_fill(x.isinf(), 0.0)  # what a mask has taken out


_zero, _one = _filled(0.0), _filled(1.0)
_RULES: dict[Any, tuple[Callable[..., int], Callable[..., Any]]] = {
    aten.mean.dim: (_reduced, _zero),
    aten.mean.default: (_reduced, _zero),
    aten.var.correction: (_reduced, _one),
    aten.var_mean.correction: (_reduced, _one),
    aten.std.correction: (_reduced, _one),
    aten.std_mean.correction: (_reduced, _one),
    aten.amax.default: (_reduced, _zero),
    aten.amin.default: (_reduced, _zero),
    aten.max.dim: (_reduced, _zero),
    aten.min.dim: (_reduced, _zero),
    aten.argmax.default: (_reduced, _zero),
    aten.logsumexp.default: (_reduced, _zero),
    aten._softmax.default: (_reduced, _identity),
    aten._log_softmax.default: (_reduced, _identity),
    aten._safe_softmax.default: (_reduced, _identity),
    aten.native_layer_norm.default: (_shape, _layer_norm),
    aten._fused_rms_norm.default: (_shape, _rms_norm),
    aten.native_batch_norm.default: (_per_channel, _batch_norm),
    aten.native_group_norm.default: (lambda x, *_: x[0].numel(), _group_norm),
}
