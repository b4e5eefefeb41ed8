"""One adapter per engine: prune half of every layer, with default options and no hints; say which indices stayed."""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tests.bench.oracle import Keep, call, leaves, named_tensors

RATIO = 0.5


@dataclass(frozen=True, slots=True)
class Cut:
    model: nn.Module
    keep: Keep
    seconds: float
    facts: dict[str, Any] = field(default_factory=dict)


def ours(model: nn.Module, inputs: Any) -> Cut:
    import pruning_core as pc

    before = _checksum(model)
    start = time.process_time()
    result = pc.prune(model, inputs, pc.PruningSpec(ratio=RATIO))
    seconds = time.process_time() - start
    plan, keep = result.plan, {}
    for cut in plan.slices:
        keep.setdefault(cut.tensor, {})[cut.axis] = cut.keep
    facts = {
        "untouched": before == _checksum(model),
        "channels_before": result.report.channels_before,
        "channels_after": result.report.channels_after,
        "engine_mask_error": result.report.mask_error,
        "locked": [[list(lock.layers) or [lock.group], lock.width, lock.reason] for lock in plan.locked],
        "mended": [f"{m.module}.{m.attribute}: {m.old} -> {m.new}" for m in plan.mends],
        "approximate": [list(pair) for pair in plan.approximate],
        "rescaled": len(plan.rescales),
    }
    return Cut(result.model, keep, seconds, facts)


def torch_pruning(model: nn.Module, inputs: Any) -> Cut:
    import torch_pruning as tp

    original, protect = _copy_tensors(model), output_layers(model, inputs)
    start = time.process_time()
    pruner = tp.pruner.BasePruner(
        model,
        inputs,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=RATIO,
        ignored_layers=protect,
        output_transform=lambda out: list(leaves(out)),
    )
    pruner.step()
    seconds = time.process_time() - start
    return Cut(model, locate(original, named_tensors(model)), seconds)


def torch_kirigami(model: nn.Module, inputs: Any) -> Cut:
    from torch_kirigami import DependencyGraph
    from torch_kirigami.pruning import ChannelRatio, Greedy, GroupMagnitude, Pruner

    original = _copy_tensors(model)
    args = () if isinstance(inputs, dict) else inputs if isinstance(inputs, tuple) else (inputs,)
    start = time.process_time()
    graph = DependencyGraph.build(model, args=args, kwargs=inputs if isinstance(inputs, dict) else {})
    pruner = Pruner(model, graph=graph)
    pruned, _ = pruner.prune(pruner.discover_candidates(), budget=ChannelRatio(RATIO), strategy=Greedy(GroupMagnitude(p=2)))
    seconds = time.process_time() - start
    return Cut(pruned, locate(original, named_tensors(pruned)), seconds)


ENGINES: dict[str, Callable[[nn.Module, Any], Cut]] = {
    "ours": ours,
    "torch-pruning": torch_pruning,
    "torch-kirigami": torch_kirigami,
}


def output_layers(model: nn.Module, inputs: Any) -> list[nn.Module]:
    """The last layers before each output: what any user of Torch-Pruning would name in `ignored_layers`."""
    made: dict[Any, nn.Module] = {}

    def note(module: nn.Module, _args: Any, out: Any) -> None:
        if isinstance(out, Tensor) and out.grad_fn is not None:
            made[out.grad_fn] = module

    layers = (nn.Linear, nn.modules.conv._ConvNd)
    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, layers)]
    with torch.enable_grad():
        queue = [out.grad_fn for out in leaves(call(model, inputs))]
    for hook in hooks:
        hook.remove()
    found, seen = [], set()
    while queue:
        step = queue.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        if step in made:
            found.append(made[step])
        else:
            queue += [before for before, _ in step.next_functions]
    return list(dict.fromkeys(found))


def locate(original: dict[str, Tensor], pruned: dict[str, Tensor]) -> Keep:
    """Which indices of each axis stayed, found by looking up the values: random weights name their own position."""
    keep: dict[str, dict[int, tuple[int, ...]]] = {}
    for name, after in pruned.items():
        before = original.get(name)
        if before is None or before.shape == after.shape or before.ndim != after.ndim:
            continue
        if before.ndim == 1:
            keep[name] = {0: _in_order(before, after)}
            continue
        values, order = before.flatten().sort()
        at = torch.searchsorted(values, after.detach().flatten()).clamp(max=len(values) - 1)
        places = torch.stack(torch.unravel_index(order[at], before.shape)).view(before.ndim, *after.shape)
        keep[name] = {
            axis: tuple(places[axis].movedim(axis, 0).reshape(after.shape[axis], -1).mode(1).values.tolist())
            for axis in range(before.ndim)
            if before.shape[axis] != after.shape[axis]
        }
    return keep


def _in_order(before: Tensor, after: Tensor) -> tuple[int, ...]:
    """Positions of the kept entries of a vector, ascending: of equal values, the first that comes after the last one."""
    found: list[int] = []
    wanted = after.detach().tolist()
    for position, value in enumerate(before.tolist()):
        if len(found) < len(wanted) and value == wanted[len(found)]:
            found.append(position)
    return tuple(found)


def _copy_tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in named_tensors(model).items()}


def _checksum(model: nn.Module) -> tuple[Any, ...]:
    def of(tensor: Tensor) -> tuple[Any, ...]:
        data = tensor.detach()
        total = float(data.sum(dtype=torch.float64)) if not data.is_complex() else float(data.abs().sum())
        return (tuple(data.shape), data.dtype, data.data_ptr(), repr(total))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
        training = tuple(m.training for m in model.modules())
        return (*((name, of(tensor)) for name, tensor in named_tensors(model).items()), hooks, training)
