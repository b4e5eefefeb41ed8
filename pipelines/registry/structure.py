"""The four ways from a downloaded version to a module that trains, the safest first."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mlflow.models import Model

from pipelines import lineage
from pipelines.architecture import ModelRef, load_module, save_tensors, save_weights, unpickle
from pipelines.errors import SourceError
from pipelines.exported_graph import (
    TOLERANCE,
    ExportedGraph,
    check_batch_sizes,
    difference,
    example_of,
    graph_of,
    is_training_form,
    read_program,
)
from pipelines.imports import PICKLE

REGISTER_AGAIN = (
    "register it with its weights as safetensors in extra_files and metadata={'architecture': "
    "{'factory': 'package.module:function', 'kwargs': {...}, 'plans': []}}, as `secateur demo` does"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What the configuration says about the code of models: the `source` section."""

    trust: tuple[str, ...]
    factory: str | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Download:
    """A version on this disk."""

    uri: str
    root: Path
    model: Model

    @property
    def extra(self) -> Path:
        return self.root / "extra_files"

    @property
    def weights(self) -> Path | None:
        path = self.extra / lineage.WEIGHTS_FILE
        return path if path.is_file() else None

    @property
    def program(self) -> Path | None:
        return self._data("*.pt2")

    @property
    def pickled(self) -> Path | None:
        return self._data("*.pth")

    @property
    def architecture(self) -> Mapping[str, Any]:
        """What we or others wrote about the model; empty where nothing was."""
        return dict(dict(self.model.metadata or {}).get(lineage.ARCHITECTURE_KEY) or {})

    @property
    def plans(self) -> tuple[str, ...]:
        return tuple(str(_inside(self.extra, name)) for name in self.architecture.get("plans", ()))

    def _data(self, pattern: str) -> Path | None:
        flavor = dict(self.model.flavors.get("pytorch") or {})
        folder = (self.root / str(flavor.get("model_data", "data"))).resolve()
        inside = folder.is_relative_to(self.root.resolve()) and bool(flavor)
        return next(iter(sorted(folder.glob(pattern))), None) if inside else None


def structure_of(download: Download, allowed: Allowed, folder: Path) -> ModelRef:
    """How to have the module again; what has to be written goes into `folder`. Raises SourceError."""
    try:
        architecture, plans = download.architecture, download.plans
        if "factory" in architecture and download.weights is not None:
            return _as_stored(architecture, plans, download.weights, allowed)
    except (KeyError, TypeError, ValueError) as exc:
        raise SourceError(
            f"the stored architecture cannot be read: {exc!r}", download.uri, "register the model again with secateur"
        ) from exc
    program = download.program
    if "program" in architecture and program is not None:
        return _as_graph(program, plans, allowed, folder)
    if allowed.factory is not None and (download.weights is not None or program is not None):
        return _as_named(download, allowed, folder)
    if program is not None:
        return _as_graph(program, plans, allowed, folder)
    if download.pickled is not None and PICKLE in allowed.trust:
        return _as_pickle(download.pickled, plans, allowed, folder)
    if download.weights is not None:
        fix = "name its factory in source.factory (and source.kwargs), and its package in source.trust"
        raise SourceError("the version does not say which code builds the model", download.uri, fix)
    raise _refusal(download)


def _as_stored(architecture: Mapping[str, Any], plans: tuple[str, ...], weights: Path, allowed: Allowed) -> ModelRef:
    """Way 1: the version itself names its factory."""
    factory = str(architecture["factory"])
    return ModelRef(
        factory=factory,
        kwargs=dict(architecture["kwargs"]),
        plans=plans if "plans" in architecture else _missing("plans"),
        weights=str(weights),
        trust=allowed.trust,
        origin=f"the source was rebuilt by the factory that is stored with it, `{factory}`",
    )


def _as_named(download: Download, allowed: Allowed, folder: Path) -> ModelRef:
    """Way 2: the configuration names the factory; where there is a graph, it must answer the same."""
    assert allowed.factory is not None
    origin = f"the source was rebuilt by the factory that the configuration names, `{allowed.factory}`"
    program = read_program(download.program) if download.program is not None else None
    weights = download.weights
    if weights is None:
        assert program is not None
        own = {name: program.constants[name] for name in program.graph_signature.non_persistent_buffers}
        weights = save_tensors({**program.state_dict, **own}, folder / lineage.WEIGHTS_FILE)
    ref = ModelRef(factory=allowed.factory, kwargs=allowed.kwargs, weights=str(weights), trust=allowed.trust, origin=origin)
    if program is None:
        return ref
    module, graph, example = load_module(ref), graph_of(program), example_of(program)
    with torch.no_grad():
        error = difference(module(example), graph(example))
    if not error <= TOLERANCE:
        raise SourceError(
            f"the factory's model answers differently from the exported graph, by {error:.2g}",
            f"{allowed.factory} for {download.uri}",
            "name the very class and kwargs that were exported, or leave source.factory out: the graph can be pruned too",
        )
    return dataclasses.replace(ref, origin=f"{origin}, which answers as its exported graph does (to {error:.1g})")


def _as_graph(program: Path, plans: tuple[str, ...], allowed: Allowed, folder: Path) -> ModelRef:
    """Way 3: no source code at all; the plans behind the graph are history."""
    loaded = read_program(program)
    graph = graph_of(loaded)
    check_batch_sizes(graph, example_of(loaded))
    weights = save_weights(graph, folder / lineage.WEIGHTS_FILE)
    return ModelRef(
        program=str(program),
        history=plans,
        weights=str(weights),
        trust=allowed.trust,
        origin=f"the source's exported graph was pruned itself, without source code; {_training_form(loaded, graph)}",
    )


def _as_pickle(pickled: Path, plans: tuple[str, ...], allowed: Allowed, folder: Path) -> ModelRef:
    """Way 4: code runs out of the registry, as the configuration allows."""
    weights = save_weights(unpickle(pickled, allowed.trust), folder / lineage.WEIGHTS_FILE)
    return ModelRef(
        pickled=str(pickled),
        history=plans,
        weights=str(weights),
        trust=allowed.trust,
        origin="the source was opened as a pickle, as `trust: pickle` allows",
    )


def _training_form(program: torch.export.ExportedProgram, graph: ExportedGraph) -> str:
    frozen = graph.frozen_norms
    text = "batch norms and dropouts are put into training form for fine-tuning"
    if frozen:
        text = f"{len(frozen)} batch norms stay in evaluation form while it is fine-tuned"
    return (
        f"{text} (it was exported in training form; here it answers in evaluation form)"
        if is_training_form(program)
        else text
    )


def _inside(folder: Path, name: str) -> Path:
    """A file of the download, never one that a hostile name points to outside of it."""
    path = folder / name
    if Path(name).name != name or not path.is_file():
        raise ValueError(f"no plan file {name!r}")
    return path


def _missing(key: str) -> Any:
    raise KeyError(key)


def _refusal(download: Download) -> SourceError:
    if "pytorch" not in download.model.flavors:
        flavors = ", ".join(download.model.flavors)
        return SourceError(f"this is no PyTorch model (it is: {flavors})", download.uri, "name a PyTorch model")
    if download.pickled is None:
        return SourceError("the version holds no model that can be read", download.uri, REGISTER_AGAIN)
    return SourceError(
        "the version is stored as a pickle, and loading it would run code out of the registry",
        download.uri,
        f"three ways need no pickle: log it in MLflow's format pt2, with an input example; or do so and name its class in "
        f"source.factory; or {REGISTER_AGAIN}. If you know where the pickle comes from, set `trust: pickle`",
    )
