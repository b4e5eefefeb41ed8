"""Nested arguments and outputs: find the tensors in them, or replace them, whatever holds them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn


def tensors(value: object) -> Iterator[Tensor]:
    """Every tensor in nested lists, tuples, mappings and dataclasses, in order. Other objects are opaque."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from tensors(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors(getattr(value, field.name, None))


_DEPTH = 4  # objects inside each other that are looked into
_NO_HOLDERS = (type, nn.Module, FunctionType, MethodType, ModuleType)


def held(value: object) -> Iterator[Tensor]:
    """Every tensor of a model's outputs: as `tensors`, and in the attributes of other objects (a distribution, ...).

    Not of caches of keys and values: what they hold goes back into the model itself.
    """
    seen: set[int] = set()

    def visit(value: object, depth: int) -> Iterator[Tensor]:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping):
            for item in value.values():
                yield from visit(item, depth)
        elif isinstance(value, list | tuple | set | frozenset):
            for item in value:
                yield from visit(item, depth)
        elif depth and id(value) not in seen and not isinstance(value, _NO_HOLDERS) and not _is_cache(type(value)):
            seen.add(id(value))
            for item in _attributes(value):
                yield from visit(item, depth - 1)

    yield from visit(value, _DEPTH)


def _is_cache(kind: type) -> bool:
    return any(base.__name__.endswith("Cache") for base in kind.__mro__)


def _attributes(value: object) -> list[object]:
    slots = [name for base in type(value).__mro__ for name in getattr(base, "__slots__", ()) if isinstance(name, str)]
    found = [getattr(value, name, None) for name in slots if not name.startswith("__")]
    return [*found, *getattr(value, "__dict__", {}).values()]


def numbers(value: object) -> Iterator[int | float | str]:
    """Every number and string that stands beside the tensors, in order."""
    if isinstance(value, int | float | str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from numbers(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from numbers(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type | Tensor):
        for field in dataclasses.fields(value):
            yield from numbers(getattr(value, field.name, None))


def map_tensors(fn: Callable[[Tensor], Any], value: Any) -> Any:
    """The same nest with each tensor replaced; containers other than list, tuple and dict are kept as they are."""
    if isinstance(value, Tensor):
        return fn(value)
    if isinstance(value, dict):
        return {key: map_tensors(fn, item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(fn, item) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(fn, item) for item in value)
    return value


def is_prunable_dtype(dtype: torch.dtype) -> bool:
    """Channels live in floating (or complex) tensors; integers are positions and counts."""
    return dtype.is_floating_point or dtype.is_complex
