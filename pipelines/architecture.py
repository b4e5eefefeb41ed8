"""A model as references: the factory of its class, the plans that pruned it, its weights. Nothing is unpickled."""

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import pruning_core as pc
from pipelines.errors import SourceError


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRef:
    """Everything that it takes to have the module again, in any process that sees the files."""

    factory: str  # "package.module:function"
    kwargs: Mapping[str, Any]
    plans: tuple[str, ...]  # paths of plan files, in the order in which they were applied
    weights: str  # path of a safetensors file
    trust: tuple[str, ...]  # import paths from which `factory` may come


def load_module(ref: ModelRef) -> nn.Module:
    """A real, trainable module, in eval mode. Raises SourceError, pc.PruningError."""
    factory = trusted_factory(ref.factory, ref.trust)
    module = factory(**ref.kwargs)
    if not isinstance(module, nn.Module):
        raise SourceError(
            f"the factory gave a {type(module).__name__}",
            ref.factory,
            "name a function that returns a model",
        )
    plans = [pc.PruningPlan.from_json(Path(path).read_text(encoding="utf-8")) for path in ref.plans]
    weights = load_file(ref.weights)
    for plan in plans[:-1]:
        module = pc.apply(module, plan)
    if plans:
        return pc.rebuild(module, plans[-1], weights).eval()
    try:
        module.load_state_dict(weights)
    except RuntimeError as exc:
        raise SourceError(
            f"the stored weights do not fit the model: {exc}",
            ref.factory,
            "name its own factory and kwargs",
        ) from exc
    return module.eval()


def save_weights(module: nn.Module, path: Path) -> Path:
    """Write parameters and buffers as safetensors; tensors that share memory are written out one by one."""
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)
    return path


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """Of names, dtypes, shapes and bytes: the same for a module's `state_dict()` and the file that it was saved to."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{list(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()[:16]


def trusted_factory(path: str, trust: Sequence[str]) -> Callable[..., object]:
    """The function at `package.module:name`, if it is below a trusted import path. Importing runs code."""
    module_name, _, name = path.partition(":")
    if not name.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise SourceError(f"{path!r} is no factory", "the model's architecture", "write it as package.module:function")
    if not is_below(module_name, trust):
        raise SourceError(
            f"the model wants to run {path!r}, which is not trusted",
            f"source.trust = {json.dumps(list(trust))}",
            f"if you know that code, add {module_name!r} to source.trust; importing it runs it",
        )
    try:
        factory = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as exc:
        raise SourceError(
            f"the model's factory {path!r} cannot be imported: {exc}",
            "this environment",
            "install the package it is in, or run secateur in the folder where it lies",
        ) from exc
    # a trusted module may have imported anything: only what was defined below a trusted path counts
    if not callable(factory) or not is_below(getattr(factory, "__module__", None) or "", trust):
        raise SourceError(f"{path!r} is no function of a trusted module", "the model's architecture", "name its factory")
    return factory  # type: ignore[no-any-return]


def is_below(module_name: str, trust: Sequence[str]) -> bool:
    """Is that module a trusted one, or part of a trusted package?"""
    return any(module_name == prefix or module_name.startswith(f"{prefix}.") for prefix in trust)
