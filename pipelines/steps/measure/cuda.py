"""Times on a GPU, by the GPU's own clock."""

from collections.abc import Callable, Mapping

import torch


def measure_on_gpu(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, tuple[float, ...]]:
    """Milliseconds per call between two CUDA events, one call each per round in turn: name -> [rounds] samples."""
    samples_ms: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start, end = _event(), _event()
            torch.cuda.synchronize()
            start.record()
            run()
            end.record()
            torch.cuda.synchronize()
            samples_ms[name].append(start.elapsed_time(end))
    return {name: tuple(samples) for name, samples in samples_ms.items()}


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
