"""Plan and cut, through the engine."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

import pruning_core as pc
from pipelines.architecture import ModelRef, load_module, save_weights
from pipelines.data import Data
from pipelines.records import Accuracy, CompressedModel, Size
from pipelines.steps.evaluate import evaluate


def example_batch(data: Data, images: int = 2) -> torch.Tensor:
    """Real images of the training split: what the model is traced and checked with."""
    return torch.from_numpy(data.train.x[:images])


def describe_source(model: ModelRef, data: Data) -> CompressedModel:
    """The source as it is: the baseline of the comparison."""
    module = load_module(model)
    accuracy = accuracy_of(module, data)
    return CompressedModel(
        title="source",
        method="none",
        ratio=0.0,
        channels=1,
        channels_before=1,
        size=size_of(module, data, Path(model.weights)),
        model=model,
        after_pruning=accuracy,
        accuracy=accuracy,
    )


def prune(title: str, spec: pc.PruningSpec, source: ModelRef, data: Data, folder: Path) -> CompressedModel:
    """Cut a copy of the source, check it against muted channels, and write plan and weights into `folder`."""
    result = pc.prune(load_module(source), example_batch(data), spec, check="numeric")
    folder.mkdir(parents=True, exist_ok=True)
    plan_path = folder / "plan.json"
    plan_path.write_text(result.plan.to_json(), encoding="utf-8")
    weights = save_weights(result.model, folder / "pruned.safetensors")
    accuracy = accuracy_of(result.model, data)
    return CompressedModel(
        title=title,
        method=f"{spec.criterion}/{spec.allocator}",
        ratio=spec.ratio,
        channels=sum(len(cut.keep) for cut in result.plan.cuts),
        channels_before=sum(cut.width for cut in result.plan.cuts),
        size=size_of(result.model, data, weights),
        model=replace(source, plans=(*source.plans, str(plan_path)), weights=str(weights)),
        after_pruning=accuracy,
        accuracy=accuracy,
    )


def size_of(module: nn.Module, data: Data, weights: Path) -> Size:
    """Parameters, MACs of one image, bytes of the weights file."""
    cost = pc.cost(module, example_batch(data, images=1))
    return Size(params=cost.params, macs=cost.macs, size_bytes=weights.stat().st_size)


def accuracy_of(module: nn.Module, data: Data) -> Accuracy:
    return Accuracy(evaluate(module, data.validation, data.classes), evaluate(module, data.test, data.classes))
