"""A model as references: where its structure comes from, the plans that pruned it, its weights.

The structure is one of three things, and what comes out is a module that trains, whichever it is:
a factory (nothing is unpickled, its code is imported), an exported graph (no code at all), a pickle (only if trusted).
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import pruning_core as pc
from pipelines.errors import SourceError, StorageError
from pipelines.exported_graph import first_line, load_graph
from pipelines.imports import PICKLE, trusted
from pruning_core.twin import named_tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRef:
    """Everything that it takes to have the module again, in any process that sees the files."""

    factory: str | None = None  # "package.module:function"; this one, `program` or `pickled`
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    program: str | None = None  # path of a .pt2 file
    pickled: str | None = None  # path of what torch.save wrote of a whole module
    plans: tuple[str, ...] = ()  # paths of plan files, in the order in which they are applied to the structure
    history: tuple[str, ...] = ()  # those that made the structure what it is, before: kept for the lineage
    weights: str  # path of a safetensors file
    trust: tuple[str, ...] = ()  # import paths from which `factory` may come, and perhaps PICKLE
    origin: str = ""  # how the source was had, in a sentence for its descendants' descriptions

    def __post_init__(self) -> None:
        assert sum(part is not None for part in (self.factory, self.program, self.pickled)) == 1

    @property
    def chain(self) -> tuple[str, ...]:
        """Every plan between the original and this model."""
        return (*self.history, *self.plans)


def load_module(ref: ModelRef) -> nn.Module:
    """A real, trainable module, in eval mode. Raises SourceError, pc.PruningError."""
    module = _structure(ref)
    plans = [pc.PruningPlan.from_json(Path(path).read_text(encoding="utf-8")) for path in ref.plans]
    try:
        weights = load_file(ref.weights)
    except (OSError, SafetensorError) as exc:
        raise SourceError(f"the weights cannot be read: {exc}", ref.weights, "register the model again") from exc
    for plan in plans[:-1]:
        module = pc.apply(module, plan)
    if plans:
        # a tied tensor has several names in a state dict, and one in a plan
        tied = module.state_dict().keys() - named_tensors(module).keys()
        return pc.rebuild(module, plans[-1], {k: v for k, v in weights.items() if k not in tied}).eval()
    _fill(module, weights, ref)
    return module.eval()


def save_weights(module: nn.Module, path: Path) -> Path:
    """Write everything that the module holds, see `stored_tensors`. Raises StorageError, e.g. on a full disk."""
    return save_tensors(stored_tensors(module), path)


def save_tensors(state: Mapping[str, Any], path: Path) -> Path:
    """The tensors among them, as safetensors, all or nothing. Raises StorageError."""
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in state.items() if isinstance(t, Tensor)}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    try:
        save_file(tensors, part)
        part.replace(path)
    except (OSError, SafetensorError) as exc:
        part.unlink(missing_ok=True)
        raise StorageError(
            f"the weights cannot be written: {exc}", str(path), "make room on that disk and run again"
        ) from exc
    return path


def stored_tensors(module: nn.Module) -> dict[str, Tensor]:
    """What a file of weights holds, by name; tensors that share memory one by one.

    That is more than a state dict: tensors which follow from the constructor must be there too once they were cut.
    """
    state = {**named_tensors(module), **module.state_dict()}
    return {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}


def weights_digest(tensors: Mapping[str, Tensor]) -> str:
    """Of names, dtypes, shapes and bytes: the same for `stored_tensors` and the file that they were saved to."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{list(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()[:16]


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def trusted_factory(path: str, trust: Sequence[str]) -> Callable[..., object]:
    """The function at `package.module:name`, below a trusted import path. Importing runs code. Raises SourceError."""
    return trusted(path, trust, "source.trust", SourceError, who="the model")


def unpickle(path: Path, trust: Sequence[str]) -> nn.Module:
    """A module that was saved whole. Opening it runs code out of the file, so it must be trusted. Raises SourceError."""
    if PICKLE not in trust:
        raise SourceError(
            "the model is a pickle, and those are not trusted", path.name, "set `trust: pickle` if you know it"
        )
    try:
        module = torch.load(path, map_location="cpu", weights_only=False)
    except (ImportError, AttributeError) as exc:
        raise SourceError(
            f"the pickled model's class is not here: {exc}",
            path.name,
            "install the package it is in, in the version that the model was saved with",
        ) from exc
    except Exception as exc:  # a pickle may do anything
        raise SourceError(
            f"the pickled model cannot be opened: {first_line(exc)}", path.name, "see that MLflow itself can load it"
        ) from exc
    if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise SourceError(f"the pickle holds a {type(module).__name__}", path.name, "log an ordinary nn.Module")
    return module


def _structure(ref: ModelRef) -> nn.Module:
    """The module before any of the plans; its weights do not matter yet."""
    if ref.program is not None:
        return load_graph(Path(ref.program))
    if ref.pickled is not None:
        return unpickle(Path(ref.pickled), ref.trust)
    assert ref.factory is not None
    factory = trusted_factory(ref.factory, ref.trust)
    try:
        module = factory(**ref.kwargs)
    except TypeError as exc:
        where = f"{ref.factory}, kwargs {json.dumps(dict(ref.kwargs), default=repr)}"
        raise SourceError(f"the factory does not take its arguments: {exc}", where, "correct source.kwargs") from exc
    if not isinstance(module, nn.Module):
        raise SourceError(f"the factory gave a {type(module).__name__}", ref.factory, "name a function that returns a model")
    return module


def _fill(module: nn.Module, weights: Mapping[str, Tensor], ref: ModelRef) -> None:
    persistent, own = module.state_dict().keys(), named_tensors(module)
    constant = {name for name in weights if name in own and name not in persistent}
    try:
        module.load_state_dict({name: tensor for name, tensor in weights.items() if name not in constant})
        with torch.no_grad():
            for name in constant:
                own[name].copy_(weights[name])
    except RuntimeError as exc:
        raise SourceError(
            f"the stored weights do not fit the model: {exc}",
            ref.factory or ref.program or ref.pickled or "",
            "name its own factory and kwargs",
        ) from exc
