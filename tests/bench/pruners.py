"""The methods of the accuracy benchmark: each turns a model into one with a stated fraction of its MACs.

Only training images are seen: the first 2,048 of them, with labels for Torch-Pruning's Taylor, without for ours.
"""

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from tests.bench.engines import output_layers
from tests.bench.oracle import count_macs
from tests.bench.training import Images

CALIBRATION = 2048
CLOSE = 0.99  # of the target: near enough to stop the search
COARSE, SLACK = 0.97, 1.02  # where one ratio for all layers steps over the target, it may stay a little above it
ROUNDS = 11
FLOOR = 4  # of a layer's width, for ours; the default of 8 is half of the narrowest layers and binds from 2.5x on


@dataclass(frozen=True, slots=True, eq=False)
class Pruned:
    model: nn.Module
    factor: float  # MACs of the original over those of the model
    seconds: float  # processor time of one pruning; the search for the ratio is not counted
    ratio: float | None = None


def ours(model: nn.Module, images: Images, factor: float) -> Pruned:
    """As the product does it by default where unlabelled images are at hand, with a floor that layers of 16 can feel."""
    import pruning_core as pc

    spec = pc.PruningSpec(allocator="budget", budget={"macs": f"{factor}x"}, min_channels=FLOOR)
    start = time.process_time()
    calibration = pc.Calibration(images.x[:CALIBRATION].contiguous())
    result = pc.prune(model, _example(images), spec, calibration=calibration)
    seconds = time.process_time() - start
    return Pruned(result.model, count_macs(model, _example(images)) / count_macs(result.model, _example(images)), seconds)


def ours_plain(model: nn.Module, images: Images, factor: float) -> Pruned:
    """Without data: L2 norms and the recommendation, with the same floor."""
    import pruning_core as pc

    def prune(ratio: float) -> nn.Module:
        spec = pc.PruningSpec(ratio=ratio, criterion="l2_norm", allocator="slamp", min_channels=FLOOR, round_to=1)
        return pc.prune(model, _example(images), spec).model

    return _at_factor(prune, model, images, factor)


def torch_pruning(model: nn.Module, images: Images, factor: float, *, criterion: str, everywhere: bool) -> Pruned:
    """One step of Torch-Pruning; `everywhere` ranks the channels of all layers together."""
    import torch_pruning as tp

    importance: Any = {
        "magnitude": lambda: tp.importance.GroupMagnitudeImportance(p=2),
        "taylor": tp.importance.GroupTaylorImportance,
        "bn": tp.importance.BNScaleImportance,
    }[criterion]()
    gradients, shared = _gradients(model, images) if criterion == "taylor" else ({}, 0.0)

    def prune(ratio: float) -> nn.Module:
        pruned = copy.deepcopy(model)
        for name, parameter in pruned.named_parameters():
            parameter.grad = gradients[name].clone() if name in gradients else None
        example = _example(images)
        tp.pruner.BasePruner(
            pruned,
            example,
            importance=importance,
            global_pruning=everywhere,
            pruning_ratio=ratio,
            ignored_layers=output_layers(pruned, example),
        ).step()
        pruned.zero_grad()
        return pruned

    return _at_factor(prune, model, images, factor, shared)


PEERS: Mapping[str, Callable[[nn.Module, Images, float], Pruned]] = {
    f"tp-{criterion}-{'global' if everywhere else 'uniform'}": partial(
        torch_pruning, criterion=criterion, everywhere=everywhere
    )
    for criterion in ("magnitude", "taylor", "bn")
    for everywhere in (False, True)
}
PRUNERS: Mapping[str, Callable[[nn.Module, Images, float], Pruned]] = {"ours-plain": ours_plain, "ours": ours, **PEERS}


def smallest_ratio(macs_at: Callable[[float], int], target: float, rounds: int = ROUNDS) -> float:
    """The smallest ratio, by bisection, at which no more than `target` MACs are left. Raises ValueError when none is."""
    low, high = 0.0, 0.5
    while macs_at(high) > target:
        if high > 0.99:
            raise ValueError(f"{macs_at(high)} MACs are left at ratio {high:.3f}, {target:.0f} were asked for")
        low, high = high, (high + 1) / 2
    for _ in range(rounds):
        middle = (low + high) / 2
        macs = macs_at(middle)
        low, high = (middle, high) if macs > target else (low, middle)
        if CLOSE * target <= macs <= target:
            break
    return high


def _at_factor(
    prune: Callable[[float], nn.Module], model: nn.Module, images: Images, factor: float, shared: float = 0.0
) -> Pruned:
    """Prune by the ratio that leaves the wanted share of the MACs. `shared`: seconds spent once before."""
    example = _example(images)
    full = count_macs(model, example)
    target = full / factor

    def macs_at(ratio: float) -> int:
        return count_macs(prune(ratio), example)

    ratio = smallest_ratio(macs_at, target)
    if macs_at(ratio) < COARSE * target:
        ratio = smallest_ratio(macs_at, SLACK * target)
    start = time.process_time()
    pruned = prune(ratio)
    return Pruned(pruned, full / count_macs(pruned, example), time.process_time() - start + shared, ratio)


@lru_cache(maxsize=1)
def _gradients(model: nn.Module, images: Images) -> tuple[Mapping[str, Tensor], float]:
    """Those of the loss on the calibration images, and the seconds they took; the same for every ratio and ranking."""
    model = copy.deepcopy(model)
    start = time.process_time()
    for x, y in zip(images.x[:CALIBRATION].split(128), images.y[:CALIBRATION].split(128), strict=True):
        F.cross_entropy(model(x), y).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return gradients, time.process_time() - start


def _example(images: Images) -> Tensor:
    return images.x[:2].contiguous()
