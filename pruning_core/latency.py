"""Wall time of several callables, one call each per round in turn, so that drift of the machine hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


def _nothing() -> None:
    return None


def measure_latency(
    runs: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 50,
    warmup: int = 10,
    sync: Callable[[], None] = _nothing,
    clock: Callable[[], float] = time.perf_counter,
    on_round: Callable[[], None] = _nothing,
) -> dict[str, tuple[float, ...]]:
    """Milliseconds per call: name -> [rounds] samples. `sync` is `torch.cuda.synchronize` on a GPU."""
    for run in runs.values():
        for _ in range(warmup):
            run()
    samples_ms: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            sync()
            start = clock()
            run()
            sync()
            samples_ms[name].append((clock() - start) * 1e3)
        on_round()
    return {name: tuple(samples) for name, samples in samples_ms.items()}
