"""How long each call takes on this machine at widths that are not there yet: measured once, interpolated between.

Kernels have cliffs: 33 channels can take as long as 48. So a call is measured at the grid of widths below and above
(multiples of `GRID` channels, finer below 32), never extrapolated, and what was measured is kept and can be stored.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pruning_core.cost import op_macs
from pruning_core.errors import SpecError
from pruning_core.trace import Op, Value, quiet_kernels

GRID = 16
ROUNDS = 5
WARMUP = 2


class LatencyTable:
    """Milliseconds by call signature and shapes. `to_json` and `from_json` keep it between runs on one machine."""

    def __init__(self, known: dict[str, float] | None = None, *, threads: int | None = None, device: str = "cpu") -> None:
        self.known = dict(known or {})
        self.threads, self.device = threads or torch.get_num_threads(), device

    def milliseconds(self, op: Op, shape: Callable[[Value], tuple[int, ...]]) -> float:
        """Interpolated over the axes whose size differs from the traced one; calls without work are free."""
        values = [*dict.fromkeys(op.inputs())]
        old = [v.shape for v in values]
        new = [shape(v) for v in values]
        if not op_macs(op):
            return 0.0
        sizes = sorted({(a, b) for x, y in zip(old, new, strict=True) for a, b in zip(x, y, strict=True) if a != b})
        corners = [_grid(after, before) for before, after in sizes]
        total = 0.0
        for choice in itertools.product(*([(low, 1 - share), (high, share)] for low, high, share in corners)):
            weight = 1.0
            at: dict[tuple[int, int], int] = {}
            for pair, (size, part) in zip(sizes, choice, strict=True):
                weight *= part
                at[pair] = size
            if weight > 0:
                shapes = [tuple(at.get((a, b), b) for a, b in zip(x, y, strict=True)) for x, y in zip(old, new, strict=True)]
                total += weight * self._measured(op, values, shapes)
        return total

    def _measured(self, op: Op, values: list[Value], shapes: list[tuple[int, ...]]) -> float:
        plain = [a for a in (*op.args, *op.kwargs.values()) if not isinstance(a, Value)]
        key = json.dumps([op.name, shapes, str(plain), str(values[0].dtype), self.device, self.threads])
        if key not in self.known:
            self.known[key] = _time(op, values, shapes, self.device, self.threads)
        return self.known[key]

    def to_json(self) -> str:
        return json.dumps({"threads": self.threads, "device": self.device, "milliseconds": self.known}, indent=0)

    @classmethod
    def from_json(cls, text: str) -> LatencyTable:
        """Raises: SpecError when the text is no table."""
        try:
            data = json.loads(text)
            return cls(data["milliseconds"], threads=data["threads"], device=data["device"])
        except (ValueError, KeyError, TypeError) as exc:
            raise SpecError(
                f"this is no latency table: {exc}", "latency table", "delete the file; it is measured anew"
            ) from exc


def _grid(size: int, full: int) -> tuple[int, int, float]:
    """(measured width below, above, share of the one above)."""
    step = GRID if size > 2 * GRID else 4
    low, high = size // step * step, -(-size // step) * step
    low, high = max(low, 1), min(max(high, 1), full)
    return low, high, (size - low) / (high - low) if high > low else 1.0


def _time(op: Op, values: list[Value], shapes: list[tuple[int, ...]], device: str, threads: int) -> float:
    made = {
        v.index: torch.randn(s, device=device).to(v.dtype)
        if v.dtype.is_floating_point
        else torch.zeros(s, dtype=v.dtype, device=device)
        for v, s in zip(values, shapes, strict=True)
    }

    def real(nest: Any) -> Any:
        if isinstance(nest, Value):
            return made[nest.index]
        return type(nest)(real(item) for item in nest) if isinstance(nest, tuple | list) else nest

    args, kwargs = real(op.args), {k: real(v) for k, v in op.kwargs.items()}
    if op.name.startswith("aten.conv"):
        args = _with_groups(op, args)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    times: list[float] = []
    try:
        with quiet_kernels(), torch.inference_mode():
            for number in range(WARMUP + ROUNDS):
                start = time.perf_counter()
                result = op.func(*args, **kwargs)
                if isinstance(result, Tensor) and result.is_cuda:
                    torch.cuda.synchronize()
                if number >= WARMUP:
                    times.append(time.perf_counter() - start)
    except RuntimeError:  # widths that do not fit together at this corner of the grid
        return 0.0
    finally:
        torch.set_num_threads(before)
    return sorted(times)[len(times) // 2] * 1e3


def _with_groups(op: Op, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The number of groups that the widths imply."""
    if "transpose" in op.name or len(args) < 7 or args[6] == 1:
        return args
    axis = args[0].ndim - args[1].ndim + 1
    return (*args[:6], max(args[0].shape[axis] // args[1].shape[1], 1), *args[7:])
