"""A pruned model on disk without pickle: weights as safetensors, the plan as JSON, the class from its own constructor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pruning_core.errors import PlanError
from pruning_core.fingerprint import check_same_tensors
from pruning_core.modes import in_default_modes
from pruning_core.plan import PruningPlan
from pruning_core.surgery import cut_copy
from pruning_core.twin import named_tensors

WEIGHTS, PLAN = "weights.safetensors", "plan.json"


def save(model: nn.Module, plan: PruningPlan, path: str | Path) -> None:
    """Write `path/weights.safetensors` and `path/plan.json`; each file appears whole or not at all."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in named_tensors(model).items()}
    part = folder / f".{WEIGHTS}.part"
    save_file(tensors, part)
    part.replace(folder / WEIGHTS)
    part = folder / f".{PLAN}.part"
    part.write_text(plan.to_json())
    part.replace(folder / PLAN)


@in_default_modes
def load(factory: Callable[[], nn.Module], path: str | Path) -> nn.Module:
    """Rebuild a pruned model from the ORIGINAL model's constructor and a folder that `save` wrote.

    Raises: PlanError when files are missing or damaged, or the constructor makes another model than the plan is for.
    """
    folder = Path(path)
    try:
        plan = PruningPlan.from_json((folder / PLAN).read_text())
        weights = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as exc:
        raise PlanError(f"cannot read the saved model: {exc}", str(folder), "save it again") from exc
    return rebuild(factory(), plan, weights)


@in_default_modes
def rebuild(original: nn.Module, plan: PruningPlan, weights: Mapping[str, Tensor]) -> nn.Module:
    """The pruned module: the original's structure cut as the plan says, filled with `weights` by name.

    Raises: PlanError when the original is not the plan's model, or names or shapes of the weights do not fit.
    """
    shapes = [(name, tuple(t.shape)) for name, t in named_tensors(original).items()]
    check_same_tensors(plan.tensors, shapes)
    model = cut_copy(original, plan.slices, plan.mends)
    own = named_tensors(model)
    fix = "use the weights that were saved with this plan"
    for name in {**own, **weights}:
        if name not in weights or name not in own:
            side = "the saved weights lack" if name in own else "the model lacks"
            raise PlanError(f"{side} a tensor", name, fix)
        if own[name].shape != weights[name].shape:
            raise PlanError(
                f"the plan makes it {list(own[name].shape)}, the weights hold {list(weights[name].shape)}", name, fix
            )
    with torch.no_grad():
        for name, tensor in own.items():
            if tensor.dtype != weights[name].dtype:  # the constructor may make another precision than was saved
                tensor.data = tensor.data.to(weights[name].dtype)
            tensor.copy_(weights[name])
    return model
