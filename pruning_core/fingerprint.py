"""Which model a plan was made for: the calls it makes and the shapes of its tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from pruning_core.errors import PlanError
from pruning_core.trace import Trace


def fingerprint(trace: Trace) -> str:
    """SHA-256 over the calls, their modules and shapes, and the tensors' names and shapes."""
    digest = hashlib.sha256()
    for name, value in trace.tensors.items():
        digest.update(f"{name}{value.shape}\n".encode())
    for op in trace.ops:
        shapes = "" if trace.real else [v.shape for v in op.outputs()]  # of a real run they may depend on values
        digest.update(f"{op.func}@{op.module}{shapes}\n".encode())
    return digest.hexdigest()


def tensor_shapes(trace: Trace) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, value.shape) for name, value in trace.tensors.items())


def check_same_tensors(planned: Sequence[tuple[str, tuple[int, ...]]], found: Sequence[tuple[str, tuple[int, ...]]]) -> None:
    """Raises: PlanError that names the first tensor in which the model differs from the plan's."""
    mine, theirs = dict(planned), dict(found)
    fix = "apply the plan to the model it was made for, or re-plan this one"
    for name, shape in mine.items():
        if name not in theirs:
            raise PlanError("the model lacks a tensor of the plan", name, fix)
        if tuple(theirs[name]) != tuple(shape):
            raise PlanError(f"the plan is for shape {list(shape)}, the model has {list(theirs[name])}", name, fix)
    for name in theirs:
        if name not in mine:
            raise PlanError("the model has a tensor that the plan does not know", name, fix)
