"""A structural copy of a module in which chosen tensors are replaced; the caller's module is only read."""

from __future__ import annotations

import copy
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters, buffers and plain tensor attributes by qualified name, each tensor once (tied ones: the first name)."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for name, tensor in _own_tensors(module):
            if id(tensor) not in seen:
                seen.add(id(tensor))
                found[f"{prefix}.{name}" if prefix else name] = tensor
    return found


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for store in (module._parameters, module._buffers, module.__dict__):
        for name, value in store.items():
            if isinstance(value, Tensor):
                yield name, value


def twin(model: nn.Module, replace: Callable[[Tensor], Tensor]) -> nn.Module:
    """Copy the module tree, with `replace(t)` for every tensor it holds, tied tensors staying tied.

    All references are replaced alike: registered ones, plain attributes, and those in lists, tuples and dicts (such as
    the flat weights of an LSTM). Python state is deep-copied; tensors are not, unless `replace` copies them.
    """
    memo: dict[int, Any] = {}

    def visit(value: object, depth: int) -> None:
        if isinstance(value, Tensor):
            if id(value) not in memo:
                memo[id(value)] = replace(value)
        elif depth and isinstance(value, list | tuple):
            for item in value:
                visit(item, depth - 1)
        elif depth and isinstance(value, dict):
            for item in list(value.values()):
                visit(item, depth - 1)

    for module in model.modules():
        visit(module._parameters, 1)
        visit(module._buffers, 1)
        for key, value in module.__dict__.items():
            kind = type(value)
            if key not in _STORES and kind not in _PLAIN and not (kind in _CONTAINERS and not value):
                visit(value, 3)
    made = _copy_sharing(model, memo)
    for module in made.modules():
        for value in module.__dict__.values():
            if isinstance(value, dict):
                for key in [key for key, item in value.items() if isinstance(item, Tensor) and _names_device(key)]:
                    del value[key]
    return made


def _names_device(key: object) -> bool:
    """Whether a dict's key is a device: tensors stored so are a cache of computed values, out of date after a cut."""
    if isinstance(key, tuple):
        return any(_names_device(part) for part in key)
    return isinstance(key, torch.device) or (isinstance(key, str) and _DEVICE.fullmatch(key) is not None)


_DEVICE = re.compile(r"(cpu|cuda|mps|xpu|hpu|meta)(:\d+)?")


def _copy_sharing(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    try:
        return _copy(model, dict(memo))
    except TypeError:  # an attribute that cannot be copied (an operator, a lock, an open file): the copy shares it
        for module in model.modules():
            for key, value in module.__dict__.items():
                if key not in _STORES and not _can_be_copied(value, memo):
                    memo[id(value)] = value
        return _copy(model, memo)


_ATOMS = (type(None), bool, int, float, str, type)
_PLAIN = frozenset(_ATOMS)
_CONTAINERS = frozenset((dict, OrderedDict, list, tuple, set))
_OWN_WAY = ("__deepcopy__", "__getstate__", "__reduce__", "__reduce_ex__", "__copy__", "__new__")


def _copy(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """`copy.deepcopy`, without its detour through pickling for modules that have no way of their own to be copied.

    A module has some twenty attributes, nearly all of them empty: this takes a third of the time.
    """
    known: nn.Module | None = memo.get(id(module))
    if known is not None:
        return known
    kind = type(module)
    if any(getattr(kind, name, None) is not getattr(nn.Module, name, None) for name in _OWN_WAY):
        return copy.deepcopy(module, memo)
    new = kind.__new__(kind)
    memo[id(module)] = new
    for key, value in module.__dict__.items():
        if isinstance(value, _ATOMS):
            new.__dict__[key] = value
        elif isinstance(value, dict | OrderedDict) and not value:
            new.__dict__[key] = type(value)() if type(value) in (dict, OrderedDict) else copy.deepcopy(value, memo)
        elif key == "_modules":
            new.__dict__[key] = {n: None if child is None else _copy(child, memo) for n, child in value.items()}
        elif key in ("_parameters", "_buffers"):
            new.__dict__[key] = {n: None if t is None else memo[id(t)] for n, t in value.items()}
        else:
            new.__dict__[key] = copy.deepcopy(value, memo)
    return new


_STORES = {"_parameters", "_buffers", "_modules"}


def _can_be_copied(value: object, memo: dict[int, Any]) -> bool:
    try:
        copy.deepcopy(value, dict(memo))
    except TypeError:
        return False
    return True


def like(original: Tensor, data: Tensor) -> Tensor:
    """`data` as the same kind of tensor as `original`: a parameter stays a parameter, with its flags."""
    if isinstance(original, nn.Parameter):
        made: Tensor = nn.Parameter(data, requires_grad=original.requires_grad)
        if type(original) is not nn.Parameter:
            made.__class__ = type(original)
        made.__dict__.update({k: v for k, v in original.__dict__.items() if k not in {"grad"}})
        return made
    return data
