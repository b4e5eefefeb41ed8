"""A structural copy of a module in which chosen tensors are replaced; the caller's module is only read."""

from __future__ import annotations

import copy
import re
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn


def modules_by_path(model: nn.Module) -> dict[str, nn.Module]:
    """`dict(model.named_modules())`: every module under its first name. That one takes ten times as long."""
    found: dict[str, nn.Module] = {}
    seen: set[int] = set()

    def visit(module: nn.Module, path: str) -> None:
        if id(module) not in seen:
            seen.add(id(module))
            found[path] = module
            for name, child in module._modules.items():
                if child is not None:
                    visit(child, f"{path}.{name}" if path else name)

    visit(model, "")
    return found


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters, buffers and plain tensor attributes by qualified name, each tensor once (tied ones: the first name)."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for prefix, module in modules_by_path(model).items():
        plain = {k: v for k, v in module.__dict__.items() if type(v) not in _NO_TENSOR and isinstance(v, Tensor)}
        for store in (module._parameters, module._buffers, plain):
            for name, tensor in store.items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    found[f"{prefix}.{name}" if prefix else name] = tensor
    return found


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

    holds_dict: list[nn.Module] = []
    for module in modules_by_path(model).values():
        for store in (module._parameters, module._buffers):
            for tensor in store.values():
                if tensor is not None and id(tensor) not in memo:
                    memo[id(tensor)] = replace(tensor)
        for key, value in module.__dict__.items():
            kind = type(value)
            if kind not in _PLAIN and key not in _STORES and not (kind in _CONTAINERS and _is_plain(value)):
                visit(value, 3)
                if isinstance(value, dict):
                    holds_dict.append(module)
    made = _copy_sharing(model, memo)
    for module in made.modules() if holds_dict else ():
        for value in module.__dict__.values():
            if isinstance(value, dict):
                for key in [key for key, item in value.items() if isinstance(item, Tensor) and _names_device(key)]:
                    del value[key]
    return made


def _is_plain(value: Any) -> bool:
    """Whether a container is empty, or a list or tuple of plain numbers and strings."""
    return not value or (type(value) in (list, tuple) and all(type(item) in _PLAIN for item in value))


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


_PLAIN = frozenset((type(None), bool, int, float, str, type))
_EMPTY = (dict, OrderedDict, set)
_CONTAINERS = frozenset((*_EMPTY, list, tuple))
_NO_TENSOR = _PLAIN | _CONTAINERS
_OWN_WAY = ("__deepcopy__", "__getstate__", "__reduce__", "__reduce_ex__", "__copy__", "__new__")


@lru_cache(maxsize=4096)
def _has_own_way(kind: type) -> bool:
    return any(getattr(kind, name, None) is not getattr(nn.Module, name, None) for name in _OWN_WAY)


def _copy(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """`copy.deepcopy`, without its detour through pickling for modules that have no way of their own to be copied.

    A module has some twenty attributes, nearly all of them empty: this takes a third of the time.
    """
    known: nn.Module | None = memo.get(id(module))
    if known is not None:
        return known
    kind: Any = type(module)
    if _has_own_way(kind):
        return copy.deepcopy(module, memo)
    new: nn.Module = kind.__new__(kind)
    memo[id(module)] = new
    state = new.__dict__
    state.update(module.__dict__)
    for key, value in module.__dict__.items():
        of = type(value)
        if of in _PLAIN:
            continue
        if of in _EMPTY and not value:
            state[key] = of()
        elif of is tuple and _is_plain(value):
            continue
        elif key == "_modules":
            state[key] = {n: None if child is None else _copy(child, memo) for n, child in value.items()}
        elif key in ("_parameters", "_buffers"):
            state[key] = {n: None if t is None else memo[id(t)] for n, t in value.items()}
        else:
            state[key] = copy.deepcopy(value, memo)
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
