"""Prune every model of some suites with calibration data: does it take it, and is the model nearer to the original then?

    python -m tests.bench.calibrated --suite awkward,transformers,exported

The data is noise of the example inputs' kind, the weights are random: figures say that the repair works, not how well it
does on a trained model. An error is the mean square of what changed in the outputs, on other data, over their variance.
"""

import argparse
import warnings
from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

import pruning_core as pc
from pruning_core import tree
from pruning_core.inputs import ExampleInputs
from pruning_core.trace import call_model
from tests.bench.suites import SUITES, Subject

BATCHES, HELD_OUT = 24, 6
LARGEST = 60_000_000  # parameters
REPAIRS = ("none", "least_squares", "sequential")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="awkward,transformers,exported")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    print("| suite | models | take data | error as cut (median) | least squares | sequential | worse than as cut |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for suite in options.suite.split(","):
        print(_row(suite, SUITES[suite]()), flush=True)


def _row(suite: str, subjects: Mapping[str, Subject]) -> str:
    errors: dict[str, dict[str, float]] = {}
    tried = 0
    for name, subject in subjects.items():
        model = subject.build()
        if sum(p.numel() for p in model.parameters()) > LARGEST:
            continue
        tried += 1
        try:
            errors[name] = _errors(model, subject.inputs())
        except pc.PruningError as refused:
            print(f"<!-- {suite} {name}: {str(refused).splitlines()[0]} -->")
    worse = [name for name, e in errors.items() if e["sequential"] > 1.02 * e["none"] + 1e-9]
    figures = [f"{median(e[kind] for e in errors.values()):.3f}" for kind in REPAIRS]
    return f"| {suite} | {tried} | {len(errors)} | {' | '.join(figures)} | {', '.join(worse) or '0'} |"


def _errors(model: nn.Module, inputs: Any) -> dict[str, float]:
    torch.manual_seed(0)
    data = [_like(inputs) for _ in range(BATCHES)]
    other = [_like(inputs) for _ in range(HELD_OUT)]
    want = _answers(model, other)
    found = {}
    for kind in REPAIRS:
        spec = pc.PruningSpec(ratio=0.3, criterion="l2_norm", allocator="uniform", compensation=kind, recalibrate_bn=False)
        got = _answers(pc.prune(model, inputs, spec, data).model, other)
        found[kind] = float((got - want).square().mean() / (want - want.mean()).square().mean().clamp_min(1e-12))
    return found


def _like(value: Any) -> Any:
    """Other inputs of the same kind: noise for numbers, the same integers in another order."""
    if isinstance(value, dict):
        return {key: _like(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_like(item) for item in value)
    if not isinstance(value, Tensor):
        return value
    return (
        torch.randn_like(value)
        if value.is_floating_point()
        else value.flatten()[torch.randperm(value.numel())].view_as(value)
    )


def _answers(model: nn.Module, data: list[Any]) -> Tensor:
    def parts() -> Iterator[Tensor]:
        for batch in data:
            answer = call_model(model, ExampleInputs.of(batch))
            yield from (t.flatten().double() for t in tree.held(answer) if t.is_floating_point())

    with torch.no_grad():
        return torch.cat(list(parts()))


if __name__ == "__main__":
    main()
