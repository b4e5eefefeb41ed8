"""The only code that cuts tensors and sets attributes, always on a copy."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, fx, nn

from pruning_core.nodes import NODE, set_node_arguments
from pruning_core.plan import AttributeMend, Rescale, TensorSlice
from pruning_core.twin import like, modules_by_path, named_tensors, twin


def cut_copy(
    model: nn.Module,
    slices: Iterable[TensorSlice],
    mends: Iterable[AttributeMend] = (),
    rescales: Iterable[Rescale] = (),
    *,
    device: str | None = None,
) -> nn.Module:
    """A copy of the model with the kept positions only. `device="meta"` copies shapes and no values."""
    names = {id(tensor): name for name, tensor in named_tensors(model).items()}
    by_tensor: dict[str, list[TensorSlice]] = {}
    for cut in slices:
        by_tensor.setdefault(cut.tensor, []).append(cut)
    scale: dict[str, list[Rescale]] = {}
    for rescale in rescales:
        scale.setdefault(rescale.tensor, []).append(rescale)

    @lru_cache(maxsize=64)
    def positions(keep: tuple[int, ...], on: torch.device) -> Tensor:
        return torch.tensor(keep, device=on)

    def replace(tensor: Tensor) -> Tensor:
        name = names.get(id(tensor), "")
        data = tensor.detach()
        if device == "meta":
            data = data.to("meta")
        cuts, scales = by_tensor.get(name, []), scale.get(name, [])
        if not cuts and not scales:
            return like(tensor, data if device == "meta" else data.clone())
        if device == "meta":  # shapes alone
            shape = list(data.shape)
            for cut in cuts:
                shape[cut.axis] = len(cut.keep)
            cut_meta = data.new_empty(shape) if data.is_contiguous() else torch.empty_like(data[tuple(map(slice, shape))])
            return like(tensor, cut_meta)
        if scales:
            data = data.clone()
            for item in scales:
                index = torch.tensor(item.positions, device=data.device)
                shape = [1] * data.ndim
                shape[item.axis] = -1
                factor = torch.full((len(index),), item.factor, dtype=data.dtype, device=data.device).view(shape)
                data.index_copy_(item.axis, index, data.index_select(item.axis, index) * factor)
        for cut in cuts:
            data = data.index_select(cut.axis, positions(cut.keep, data.device))
            if cut.numbers:
                data = torch.tensor(cut.numbers, dtype=data.dtype, device=data.device)
        return like(tensor, data.contiguous() if data.is_contiguous() else data)

    copy = twin(model, replace)
    set_attributes(copy, mends)
    return copy


def set_attributes(model: nn.Module, mends: Iterable[AttributeMend]) -> None:
    mends = list(mends)
    in_graph = [mend for mend in mends if mend.attribute.startswith(NODE)]
    if in_graph and isinstance(model, fx.GraphModule):
        set_node_arguments(model, in_graph)
    modules = modules_by_path(model)
    for mend in (mend for mend in mends if mend not in in_graph):
        setattr(modules[mend.module], mend.attribute, _as_kind(mend.new, getattr(modules[mend.module], mend.attribute)))


def _as_kind(new: Any, old: Any) -> Any:
    """JSON knows no tuples: give the value the type of the one that it replaces."""
    if isinstance(old, torch.Size):
        return torch.Size(new)
    if isinstance(old, tuple):
        return tuple(new)
    if isinstance(old, list):
        return list(new)
    return new


def standard_mends(model: nn.Module, pruned: nn.Module) -> list[AttributeMend]:
    """Sizes that PyTorch's own layers keep of their weights' shapes, where the pruned weights have others.

    `groups` of a convolution is not among them: it does not follow from one weight's shape. The caller's model is only
    asked for what it stores: a parametrized weight is computed on access, and may change the model's state.
    """
    found: list[AttributeMend] = []
    after = modules_by_path(pruned)
    for name, module in modules_by_path(model).items():
        kind: Any = type(module)
        for attribute, of in _standard(kind):
            if attribute in module.__dict__:
                held, new = getattr(module, attribute, None), of.size(after[name])
                stored = of.stored_size(module)
                if new is not None and held != new and held is not None and stored in (None, held):
                    found.append(AttributeMend(module=name, attribute=attribute, old=_plain(held), new=_plain(new)))
    return found


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


@lru_cache(maxsize=4096)
def _standard(kind: type) -> tuple[tuple[str, _Size], ...]:
    return tuple((attribute, of) for attribute, of in _STANDARD if issubclass(kind, of.kinds))


class _Size:
    """How an attribute of PyTorch's layers follows from a parameter's shape."""

    def __init__(self, kinds: Sequence[type], parameter: str, read: Any) -> None:
        self.kinds = tuple(kinds)
        self.parameter, self.read = parameter, read

    def stored_size(self, module: nn.Module) -> Any:
        tensor = module._parameters.get(self.parameter, module._buffers.get(self.parameter))
        return self.read(tensor.shape) if isinstance(tensor, Tensor) else None

    def size(self, module: nn.Module) -> Any:
        tensor = getattr(module, self.parameter, None)
        return self.read(tensor.shape) if isinstance(tensor, Tensor) else None


_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_STANDARD = (
    ("out_channels", _Size(_CONVS, "weight", lambda s: s[0])),
    ("in_features", _Size((nn.Linear,), "weight", lambda s: s[1])),
    ("out_features", _Size((nn.Linear,), "weight", lambda s: s[0])),
    ("num_features", _Size(_NORMS, "weight", lambda s: s[0])),
    ("num_features", _Size(_NORMS, "running_mean", lambda s: s[0])),
    ("normalized_shape", _Size((nn.LayerNorm, nn.RMSNorm), "weight", tuple)),
    ("num_channels", _Size((nn.GroupNorm,), "weight", lambda s: s[0])),
    ("embedding_dim", _Size((nn.Embedding, nn.EmbeddingBag), "weight", lambda s: s[1])),
    ("num_parameters", _Size((nn.PReLU,), "weight", lambda s: s[0])),
    ("in1_features", _Size((nn.Bilinear,), "weight", lambda s: s[1])),
    ("in2_features", _Size((nn.Bilinear,), "weight", lambda s: s[2])),
    ("out_features", _Size((nn.Bilinear,), "weight", lambda s: s[0])),
    ("input_size", _Size((nn.RNNBase,), "weight_ih_l0", lambda s: s[1])),
    ("hidden_size", _Size((nn.LSTM,), "weight_ih_l0", lambda s: s[0] // 4)),
    ("hidden_size", _Size((nn.GRU,), "weight_ih_l0", lambda s: s[0] // 3)),
    ("hidden_size", _Size((nn.RNN,), "weight_ih_l0", lambda s: s[0])),
    ("proj_size", _Size((nn.LSTM,), "weight_hr_l0", lambda s: s[0])),
    ("embed_dim", _Size((nn.MultiheadAttention,), "in_proj_weight", lambda s: s[1])),
    ("kdim", _Size((nn.MultiheadAttention,), "in_proj_weight", lambda s: s[1])),
    ("vdim", _Size((nn.MultiheadAttention,), "in_proj_weight", lambda s: s[1])),
)
