"""How long each call takes on this machine at widths that are not there yet: measured once, interpolated between.

Kernels have cliffs: 33 channels can take as long as 48. So a call is measured at the grid of widths below and above (see
`latency_grid`), never extrapolated, and what was measured is kept and can be stored.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

import torch

from pruning_core.cost import op_macs
from pruning_core.errors import ModelError, SpecError
from pruning_core.latency_grid import Shapes
from pruning_core.trace import Op, Value, quiet_kernels

ROUNDS = 5
WARMUP = 2
BURST = 10  # calls in a row on a GPU, which works on them while the next are launched: what takes longer counts


class LatencyTable:
    """Milliseconds by call signature and shapes. `to_json` and `from_json` keep it between runs on one machine."""

    def __init__(self, known: dict[str, float] | None = None, *, threads: int | None = None, device: str = "cpu") -> None:
        self.known = {key: ms for key, ms in (known or {}).items() if ms > 0}  # once, calls that failed were kept as 0
        self._failed: set[str] = set()
        self.threads, self.device = threads or torch.get_num_threads(), device

    def milliseconds(self, op: Op, points: Iterable[tuple[float, Shapes]]) -> float:
        """The weighted sum of the call's times at shapes of its `timed_values`, each measured once."""
        return sum(weight * self._at(op, shapes) for weight, shapes in points)

    def _at(self, op: Op, shapes: Shapes) -> float:
        found = self._measured(op, shapes)
        if found is not None:
            return found
        values = timed_values(op)
        whole = self._measured(op, tuple(value.shape for value in values))  # these it was traced with
        if whole is None:
            raise ModelError(
                f"{op.name} cannot be run alone, so how long it takes is not known",
                f"module {op.module!r}",
                "give the budget in macs, params or size_mb, or exclude the module",
            )
        at = dict(zip(values, shapes, strict=True))
        return whole * op_macs(op, lambda value: at.get(value, value.shape)) / op_macs(op)

    def _measured(self, op: Op, shapes: Shapes) -> float | None:
        """None for a call that fails, which is never kept as a time."""
        values = timed_values(op)
        plain = [a for a in (*op.args, *op.kwargs.values()) if not isinstance(a, Value)]
        key = json.dumps([op.name, shapes, str(plain), str(values[0].dtype), self.device, self.threads])
        if key not in self.known and key not in self._failed:
            found = _time(op, values, shapes, self.device, self.threads)
            if found is None:
                self._failed.add(key)
            else:
                self.known[key] = found
        return self.known.get(key)

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


def timed_values(op: Op) -> list[Value]:
    """The values whose shapes say what a call does: its inputs, and the first output."""
    return [*dict.fromkeys((*op.inputs(), op.outputs()[0]))]


def _time(op: Op, values: list[Value], shapes: Shapes, device: str, threads: int) -> float | None:
    """Milliseconds; None where the call fails."""
    sizes = dict(zip(values, shapes, strict=True))
    made = {
        v.index: torch.randn(sizes[v], device=device).to(v.dtype)
        if v.dtype.is_floating_point
        else torch.zeros(sizes[v], dtype=v.dtype, device=device)
        for v in op.inputs()
    }

    def real(nest: Any) -> Any:
        if isinstance(nest, Value):
            return made[nest.index]
        return type(nest)(real(item) for item in nest) if isinstance(nest, tuple | list) else nest

    args, kwargs = real(op.args), {k: real(v) for k, v in op.kwargs.items()}
    if op.name.startswith("aten.conv"):
        args = _with_groups(op, args, sizes[op.outputs()[0]])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    times: list[float] = []
    on_gpu = torch.device(device).type == "cuda"
    calls = BURST if on_gpu else 1
    try:
        with quiet_kernels(), torch.inference_mode():
            for number in range(WARMUP + ROUNDS):
                start = time.perf_counter()
                for _ in range(calls):
                    op.func(*args, **kwargs)
                if on_gpu:
                    torch.cuda.synchronize()
                if number >= WARMUP:
                    times.append((time.perf_counter() - start) / calls)
    except RuntimeError:
        return None
    finally:
        torch.set_num_threads(before)
    return sorted(times)[len(times) // 2] * 1e3


def _with_groups(op: Op, args: tuple[Any, ...], out: tuple[int, ...]) -> tuple[Any, ...]:
    """The number of groups that the widths imply."""
    general = op.name.endswith("convolution")
    place = 8 if general else 6
    if len(args) <= place or args[place] == 1:
        return args
    grouped = out if "transpose" in op.name or (general and args[6]) else args[0].shape
    axis = len(args[0].shape) - len(args[1].shape) + 1
    return (*args[:place], max(grouped[axis] // args[1].shape[1], 1), *args[place + 1 :])
