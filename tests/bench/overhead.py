"""What a flow takes beyond its steps, in a registry that is empty and in one that is crowded, in turn.

    python -m tests.bench.overhead [--rounds 3] [--runs 20000] [--versions 5000] [--check]

Real flows against real servers: an `mlflow server` for each registry, on SQLite, and a Prefect server. The overhead of a
flow is its time by the clock without the time in training, pruning, evaluation, measuring and exporting (the saving and
checking of the graph; storing it counts). Everything else counts: the registry, orchestration, checks of the request,
plans made to try them, reading of data, tables, plots and the dashboard. Flows with one and with four candidates take
turns, so that what a candidate adds is known. The process is warm; what its very first flow took is told beside it.
"""

import argparse
import contextlib
import datetime
import importlib.metadata
import logging
import os
import platform
import shutil
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines import environment

FEW, MANY = 1, 4
PER_CANDIDATE, PER_FLOW, CROWDED = 3.0, 10.0, 2.0  # seconds, seconds, times as long


@dataclass
class Steps:
    """Seconds in the steps of a flow. Its tasks run one after the other, each in a thread."""

    seconds: float = 0
    inside: threading.local = field(default_factory=threading.local)

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            if getattr(self.inside, "yes", False):
                return call(*args, **options)
            self.inside.yes, began = True, time.perf_counter()
            try:
                return call(*args, **options)
            finally:
                self.inside.yes = False
                self.seconds += time.perf_counter() - began

        return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--versions", type=int, default=5_000)
    parser.add_argument("--check", action="store_true", help="exit with status 1 where a bar is missed")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder, _settings(Path(folder)), _servers(Path(folder), options) as servers:
        first, uris, size = servers
        overheads = _measure(uris, options.rounds)
    missed = _report(first, overheads, size, options.rounds)
    sys.exit(missed if options.check else 0)


@contextlib.contextmanager
def _settings(folder: Path) -> Iterator[None]:
    os.environ[environment.HOME_VARIABLE] = str(folder)
    os.environ["PREFECT_HOME"] = str(folder / "prefect")
    environment.prepare()
    logging.disable(logging.WARNING)
    yield


@contextlib.contextmanager
def _servers(folder: Path, options: argparse.Namespace) -> Iterator[tuple[float, dict[str, str], tuple[int, int]]]:
    """The overhead of the first flow, the two registries' addresses, and the size of the crowded one."""
    from pipelines.servers import free_port, mlflow_server, prefect_server
    from tests.bench.crowded_store import crowd

    empty, crowded = folder / "mlflow.db", folder / "crowded" / "mlflow.db"
    with prefect_server() as prefect:
        os.environ["PREFECT_API_URL"] = f"{prefect.ready()}/api"
        _first_version(empty)
        port = free_port()
        with mlflow_server(f"sqlite:///{empty}", port) as server:
            first = _overhead(server.ready(), candidates=3, seed=10_000)  # its runs and versions are what is copied
        crowded.parent.mkdir()
        shutil.copyfile(empty, crowded)
        began = time.perf_counter()
        size = crowd(crowded, options.runs, options.versions)
        print(f"{size[0]} runs and {size[1]} versions written in {time.perf_counter() - began:.0f} s", flush=True)
        with (
            mlflow_server(f"sqlite:///{empty}", free_port()) as one,
            mlflow_server(f"sqlite:///{crowded}", free_port()) as two,
        ):
            yield first, {"empty": one.ready(), "crowded": two.ready()}, size


def _first_version(database: Path) -> None:
    from pipelines.demo import demo_config
    from pipelines.first_version import first_version

    config = demo_config()
    assert config.source.first is not None
    training = config.source.first.training.model_copy(update={"epochs": 2})
    first = config.source.first.model_copy(update={"training": training})
    source = config.source.model_copy(update={"first": first})
    tracking = config.tracking.model_copy(update={"uri": f"sqlite:///{database}"})
    first_version(config.model_copy(update={"source": source, "tracking": tracking}))


def _measure(uris: dict[str, str], rounds: int) -> dict[tuple[str, int], list[float]]:
    overheads: dict[tuple[str, int], list[float]] = {(name, number): [] for name in uris for number in (FEW, MANY)}
    for turn in range(rounds + 1):
        for name, number in overheads:
            seconds = _overhead(uris[name], number, seed=turn)
            if turn:  # the first warms the servers up
                overheads[name, number].append(seconds)
            print(f"round {turn}, {name}, {number} candidates: {seconds:.2f} s", flush=True)
    return overheads


def _overhead(uri: str, candidates: int, seed: int) -> float:
    """Of one flow. `seed` and `candidates` tell its work from all that was done before."""
    from pipelines.config import parse_config
    from pipelines.flows import stages
    from pipelines.flows.compress import compress
    from pipelines.registry import push

    config = parse_config(
        {
            "source": {"model": "models:/digits-resnet@champion"},
            "calibration": {"samples": 64, "seed": seed},
            "candidates": [
                {"name": f"candidate-{n}", "ratio": 0.2 + 0.1 * n, "criterion": "l2_norm", "compensation": "none"}
                for n in range(candidates)
            ],
            "finetune": {"epochs": 1, "learning_rate": 0.003, "threads": 1},
            "measure": {"batch_size": 16, "rounds": 3, "warmup": 1},
            "gate": {"max_accuracy_drop": 1},
            "tracking": {"uri": uri},
        },
        "benchmark",
    )
    steps = Steps()
    where: list[tuple[Any, str]] = [
        (stages, "prune"),
        (stages, "finetune"),
        (stages, "assess_all"),
        (stages, "describe_source"),
        (stages, "measure"),
        (push, "_save"),
        (push, "_check_graph"),
    ]
    real = [getattr(module, name) for module, name in where]
    for (module, name), call in zip(where, real, strict=True):
        setattr(module, name, steps.timed(call))
    try:
        began = time.perf_counter()
        done = compress(config)
        took = time.perf_counter() - began
    finally:
        for (module, name), call in zip(where, real, strict=True):
            setattr(module, name, call)
    assert all(row.version for row in done.rows), "every candidate is registered"
    return took - steps.seconds


def _report(first: float, overheads: dict[tuple[str, int], list[float]], size: tuple[int, int], rounds: int) -> int:
    named = ("mlflow", "prefect", "torch")
    versions = ", ".join(f"{name} {importlib.metadata.version(name).partition('+')[0]}" for name in named)
    print(f"\n{datetime.date.today()}, {versions}, Python {platform.python_version()}, {os.cpu_count()} cores,")
    print(f"load {os.getloadavg()[0]:.1f}; medians of {rounds} flows each; the process's first flow: {first:.1f} s\n")
    print(f"| seconds beyond the steps | flow, {FEW} candidate | flow, {MANY} candidates | per candidate | per flow |")
    print("| --- | --- | --- | --- | --- |")
    median = {key: statistics.median(values) for key, values in overheads.items()}
    passed = True
    for name, label in (("empty", "empty registry"), ("crowded", f"{size[1]:,} versions, {size[0]:,} runs")):
        few, many = median[name, FEW], median[name, MANY]
        each = (many - few) / (MANY - FEW)
        print(f"| {label} | {few:.2f} | {many:.2f} | {each:.2f} | {few - each:.2f} |")
        if name == "empty":
            passed &= each < PER_CANDIDATE and few - each < PER_FLOW
    ratios = [median["crowded", number] / median["empty", number] for number in (FEW, MANY)]
    print(f"| crowded / empty | {ratios[0]:.2f} | {ratios[1]:.2f} | | |")
    print(
        f"\nbars: {PER_CANDIDATE:g} s per candidate, {PER_FLOW:g} s per flow, {CROWDED:g} times as long when crowded:",
        end=" ",
    )
    passed &= max(ratios) < CROWDED
    print("met" if passed else "missed")
    return int(not passed)


if __name__ == "__main__":
    main()
