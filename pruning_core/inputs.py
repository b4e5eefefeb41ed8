"""Example inputs: a tensor, a tuple of positional inputs, or a dict of keyword inputs."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pruning_core import tree
from pruning_core.errors import PlanError, SpecError

MAX_STORED_VALUES = 16_384  # integer inputs up to this size travel inside the plan (token ids, masks, lengths)


@dataclass(frozen=True, slots=True, eq=False)
class ExampleInputs:
    """What the model is called with: `model(*args, **kwargs)`."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, inputs: object) -> ExampleInputs:
        """Raises: SpecError when there is nothing to call the model with."""
        if isinstance(inputs, ExampleInputs):
            return inputs
        if isinstance(inputs, Tensor):
            return cls((inputs,), {})
        if isinstance(inputs, tuple | list):
            return cls(tuple(inputs), {})
        if isinstance(inputs, dict) and all(isinstance(key, str) for key in inputs):
            return cls((), dict(inputs))
        if hasattr(inputs, "keys") and hasattr(inputs, "__getitem__"):  # e.g. a tokenizer's BatchEncoding
            return cls((), {str(key): inputs[key] for key in inputs.keys()})  # noqa: SIM118
        raise SpecError(
            f"example_inputs is a {type(inputs).__name__}",
            "example_inputs",
            "pass a tensor, a tuple of positional inputs or a dict of keyword inputs",
        )

    def map(self, fn: Any) -> ExampleInputs:
        return ExampleInputs(tree.map_tensors(fn, self.args), tree.map_tensors(fn, self.kwargs))

    def to_json(self) -> dict[str, Any]:
        """Shapes and dtypes; the values too for small integer inputs, which a model may branch on."""
        return {"args": _encode(self.args), "kwargs": _encode(self.kwargs)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ExampleInputs:
        args, kwargs = _decode(data["args"]), _decode(data["kwargs"])
        return cls(tuple(args), kwargs)


def _encode(value: Any) -> Any:
    if isinstance(value, Tensor):
        record: dict[str, Any] = {"tensor": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
        exact = not value.is_floating_point() and not value.is_complex() and value.device.type != "meta"
        if exact and value.numel() <= MAX_STORED_VALUES:
            record["values"] = base64.b64encode(value.detach().cpu().contiguous().numpy().tobytes()).decode()
        return record
    if isinstance(value, dict):
        return {"dict": {key: _encode(item) for key, item in value.items()}}
    if isinstance(value, list | tuple):
        return {"list" if isinstance(value, list) else "tuple": [_encode(item) for item in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    raise SpecError(
        f"an example input of type {type(value).__name__} cannot be written into a plan",
        "example_inputs",
        "use tensors, numbers, strings, None, and lists, tuples and dicts of them",
    )


def _decode(record: dict[str, Any]) -> Any:
    if "tensor" in record:
        shape, dtype = record["tensor"], getattr(torch, record["dtype"])
        if "values" in record:
            raw = bytearray(base64.b64decode(record["values"]))
            return torch.frombuffer(raw, dtype=dtype).reshape(shape) if raw else torch.empty(shape, dtype=dtype)
        if dtype.is_floating_point or dtype.is_complex:
            return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
        return torch.zeros(shape, dtype=dtype)
    if "dict" in record:
        return {key: _decode(item) for key, item in record["dict"].items()}
    if "list" in record:
        return [_decode(item) for item in record["list"]]
    if "tuple" in record:
        return tuple(_decode(item) for item in record["tuple"])
    if "value" in record:
        return record["value"]
    raise PlanError(f"an example input of an unknown kind: {sorted(record)}", "plan.inputs", "re-plan this model")
