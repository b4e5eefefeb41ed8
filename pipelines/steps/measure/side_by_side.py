"""Latency of several models side by side: one call each per round in turn, so that drift hits all alike."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Protocol

import numpy as np
import torch
from torch import nn
from torch.utils import benchmark

import pruning_core as pc
from pipelines.architecture import ModelRef, load_module, stored_tensors, weights_digest
from pipelines.data import Data, images_of
from pipelines.errors import CandidateError
from pipelines.records import Condition, Latency, Timing
from pipelines.steps.measure.cuda import measure_on_gpu
from pipelines.steps.measure.energy import energy_mj
from pipelines.steps.measure.engines import ENGINES, Run
from pipelines.steps.measure.machine import describe_machine
from pipelines.steps.measure.memory import peak_memory
from pipelines.steps.measure.rank import ratio
from pipelines.steps.measure.warm_up import warm_up
from pipelines.steps.threads import torch_threads


class MeasureOptions(Protocol):
    """The `measure` section of the configuration is one."""

    @property
    def batch_sizes(self) -> Sequence[int]: ...
    @property
    def thread_counts(self) -> Sequence[int]: ...
    @property
    def engines(self) -> Sequence[str]: ...
    @property
    def device(self) -> str: ...
    @property
    def rounds(self) -> int: ...
    @property
    def warmup(self) -> int: ...


def conditions_of(options: MeasureOptions) -> list[Condition]:
    """All combinations, the primary one first. On a GPU the number of CPU threads is not varied."""
    threads = options.thread_counts if options.device == "cpu" else options.thread_counts[:1]
    return [
        Condition(engine=engine, device=options.device, batch_size=size, threads=count)
        for engine, size, count in product(options.engines, options.batch_sizes, threads)
    ]


def measure(models: Mapping[str, ModelRef], data: Data, options: MeasureOptions) -> dict[str, Latency]:
    """What one forward pass of each model takes, the source's first. Nothing else may run meanwhile.

    A condition that a model cannot be run under is reported for that model and costs the others nothing.
    Raises CandidateError where that is the primary condition.
    """
    machine = describe_machine(options.device)
    modules = {title: load_module(model) for title, model in models.items()}
    digests = {title: weights_digest(stored_tensors(module)) for title, module in modules.items()}
    for module in modules.values():
        module.to(options.device)
    timings: dict[str, list[Timing]] = {title: [] for title in models}
    failures: dict[str, dict[str, str]] = {title: {} for title in models}
    conditions = conditions_of(options)
    energies: dict[str, float | None] = {}
    for condition in conditions:
        batch = images_of(data.test, condition.batch_size).to(options.device)
        with torch_threads(condition.threads), torch.no_grad():
            runs, failed = _runs(modules, batch, condition)
            if condition == conditions[0]:
                _all_must_run(failed, condition)
                energies = {title: energy_mj(run) for title, run in runs.items()} if options.device == "cpu" else {}
            for title, reason in failed.items():
                failures[title][str(condition)] = reason
            if next(iter(models)) in failed:  # there is nothing to compare with
                failures |= {t: {**failures[t], str(condition): "the source cannot be run under it"} for t in runs}
                runs = {}
            for title, timing in _timed(runs, condition, options).items():
                timings[title].append(timing)
    del modules, runs
    return {
        title: Latency(
            timings=tuple(timings[title]),
            machine=machine,
            weights_digest=digests[title],
            peak_memory_bytes=_memory(model, data, conditions[0]),
            energy_mj=energies.get(title),
            failures=failures[title],
        )
        for title, model in models.items()
    }


def _runs(
    modules: Mapping[str, nn.Module], batch: torch.Tensor, condition: Condition
) -> tuple[dict[str, Run], dict[str, str]]:
    runs, failed = {}, {}
    for title, module in modules.items():
        try:
            runs[title] = ENGINES[condition.engine](module, batch, condition.threads)
            runs[title]()
        except Exception as exc:  # compilers and exporters fail with everything there is
            runs.pop(title, None)
            failed[title] = f"{type(exc).__name__}: {(str(exc).strip() or 'no reason given').splitlines()[0]}"
    return runs, failed


def _all_must_run(failed: Mapping[str, str], condition: Condition) -> None:
    for title, reason in failed.items():
        raise CandidateError(
            f"it cannot be run: {reason}", f"{title}, {condition}", "put another engine first in measure.engines"
        )


def _timed(runs: Mapping[str, Run], condition: Condition, options: MeasureOptions) -> dict[str, Timing]:
    """The first of `runs` is what the others are compared with."""
    for run in runs.values():
        warm_up(run, options.warmup)
    if condition.device == "cuda":
        taken = measure_on_gpu(runs, options.rounds)
    else:
        taken = pc.measure_latency(runs, rounds=options.rounds, warmup=0, clock=benchmark.timer)
    samples = {title: np.asarray(times) for title, times in taken.items()}
    is_noisy = {
        title: any(ratio(other, own).is_open for name, other in samples.items() if name != title)
        for title, own in samples.items()
    }
    first = next(iter(samples.values()), np.zeros(0))
    result = {}
    for title, own in samples.items():
        speedup = ratio(first, own)
        p50, p90, p99 = (float(np.percentile(own, share)) for share in (50, 90, 99))
        result[title] = Timing(
            condition=condition,
            p50_ms=p50,
            p90_ms=p90,
            p99_ms=p99,
            speedup=speedup.value,
            speedup_low=speedup.low,
            speedup_high=speedup.high,
            is_noisy=is_noisy[title],
            samples_ms=tuple(taken[title]),
        )
    return result


def _memory(model: ModelRef, data: Data, condition: Condition) -> int | None:
    """Of a fresh copy of the model, run eagerly."""
    batch = images_of(data.test, condition.batch_size).to(condition.device)

    def make() -> Callable[[], object]:
        module = load_module(model).to(condition.device)
        return torch.no_grad()(lambda: module(batch))

    with torch_threads(condition.threads):
        return peak_memory(make, condition.device)
