"""Seconds and memory of analysis, plan and cut, side by side with the peers in one process, in the order A B A B.

    python -m tests.bench.engine_speed [--models resnet50,swin_t] [--rounds 2] [--timeout 120]

Ours is `prune` with all its checks; Torch-Pruning's is its graph and one step, torch-kirigami's its graph, candidates,
plan and cut. One thread. The model is built anew for every run and its construction is not counted.
"""

import argparse
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.bench import zoo_ops  # noqa: F401  (before torchvision)
from tests.bench.engines import ENGINES
from tests.bench.llama import Llama
from tests.models import normal, seeded

Make = Callable[[], nn.Module]
MIB = 2**20
ZOO = ("resnet50", "densenet201", "vit_b_16", "efficientnet_b0", "mobilenet_v3_large", "swin_t", "convnext_tiny",
       "regnet_y_8gf")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join((*ZOO, "llama_1b", "depth")))
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--timeout", type=int, default=120, help="seconds per run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    models, engines = options.models.split(","), options.engines.split(",")
    print(f"torch {torch.__version__}, one thread, ratio 0.5, best of {options.rounds} rounds\n")
    rows = [_compare(name, engines, options) for name in models if name in ZOO]
    _print(["model", *(f"{e}, s" for e in engines), "ours: inspect, s", "ours: plan, s", "ours: MiB above the model"], rows)
    if "llama_1b" in models:
        print("\nanalysis alone, on the meta device")
        _print(["model", *(f"{e}, s" for e in engines), "MiB above the model"], [_analysis(engines, options)])
    if "depth" in models:
        print("\ngrowth with depth, ours")
        _print(["net", *(f"x{k}, s" for k in (1, 2, 4, 8)), "x8 / x1"], [_growth("resnet"), _growth("transformer")])


def _compare(name: str, engines: list[str], options: argparse.Namespace) -> list[str]:
    from torchvision import models

    import pruning_core as pc

    make, inputs = seeded(lambda: models.get_model(name, weights=None)), normal((1, 3, 224, 224))()
    seconds: dict[str, list[float]] = {engine: [] for engine in engines}
    failed: dict[str, str] = {}
    for _ in range(options.rounds):
        for engine in engines:
            if engine not in failed:
                try:
                    with _alarm(options.timeout):
                        cut = ENGINES[engine](make(), inputs)
                    seconds[engine].append(cut.seconds)
                    with torch.no_grad():
                        cut.model(inputs)
                except Exception as exc:
                    failed[engine] = _outcome(exc, seconds[engine], options.timeout)
    cells = [failed.get(e) or f"{min(seconds[e]):.2f}" for e in engines]
    model = make()
    inspect = _timed(lambda: pc.inspect(model, inputs))
    spec = pc.PruningSpec(ratio=0.5)
    plan = _timed(lambda: pc.plan(model, inputs, spec))
    row = [name, *cells, f"{inspect:.2f}", f"{plan:.2f}", f"{_peak(lambda: pc.plan(model, inputs, spec)):.0f}"]
    print("  ".join(row), file=sys.stderr, flush=True)
    return row


def _outcome(exc: Exception, seconds: list[float], timeout: int) -> str:
    if isinstance(exc, TimeoutError):
        return f"over {timeout}"
    if seconds:
        return f"{min(seconds):.2f}, its result fails to run"
    return f"fails: {type(exc).__name__}"


def _analysis(engines: list[str], options: argparse.Namespace) -> list[str]:
    """A 1.2-billion-parameter LLaMA whose weights do not exist."""
    import pruning_core as pc

    def make() -> nn.Module:
        with torch.device("meta"):
            return Llama().eval()

    inputs = torch.zeros(1, 64, dtype=torch.long, device="meta")
    analyses: dict[str, Callable[[nn.Module], object]] = {
        "ours": lambda model: pc.inspect(model, inputs),
        "torch-pruning": lambda model: _torch_pruning_graph(model, inputs),
        "torch-kirigami": lambda model: _kirigami_graph(model, inputs),
    }
    cells = []
    for engine in engines:
        model = make()
        try:
            with _alarm(options.timeout):
                cells.append(f"{_timed(lambda e=engine, m=model: analyses[e](m)):.2f}")
        except Exception as exc:
            cells.append(_outcome(exc, [], options.timeout))
    model = make()
    return ["llama_1b", *cells, f"{_peak(lambda: pc.inspect(model, inputs)):.0f}"]


def _torch_pruning_graph(model: nn.Module, inputs: Any) -> object:
    import torch_pruning as tp

    return tp.DependencyGraph().build_dependency(model, inputs)


def _kirigami_graph(model: nn.Module, inputs: Any) -> object:
    from torch_kirigami import DependencyGraph

    return DependencyGraph.build(model, args=(inputs,))


def _growth(kind: str) -> list[str]:
    from torchvision.models import VisionTransformer
    from torchvision.models.resnet import Bottleneck, ResNet

    import pruning_core as pc

    makes: dict[str, Callable[[int], nn.Module]] = {
        "resnet": lambda k: ResNet(Bottleneck, [2 * k] * 4),
        "transformer": lambda k: VisionTransformer(64, 16, num_layers=4 * k, num_heads=3, hidden_dim=192, mlp_dim=768),
    }
    inputs, seconds = normal((1, 3, 64, 64))(), []
    for k in (1, 2, 4, 8):
        model = makes[kind](k).eval()
        spec = pc.PruningSpec(ratio=0.5)
        seconds.append(min(_timed(lambda m=model, s=spec: pc.prune(m, inputs, s)) for _ in range(2)))
    return [kind, *(f"{s:.2f}" for s in seconds), f"{seconds[-1] / seconds[0]:.1f}"]


def _timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _peak(run: Callable[[], object]) -> float:
    """MiB of resident memory at the highest point of `run`, above what was resident before it. Linux only."""
    if not Path("/proc/self/clear_refs").exists():
        return float("nan")
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    run()
    return max(0.0, resident("VmHWM") - before)


def resident(field: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024 / MIB


@contextmanager
def _alarm(seconds: int) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise TimeoutError(f"over {seconds} s")

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def _print(head: list[str], rows: list[list[str]]) -> None:
    for row in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
