"""Plan, cut and mend, through the engine."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import pruning_core as pc
from pipelines.architecture import ModelRef, load_module, save_weights
from pipelines.data import Data, images_of
from pipelines.records import CompressedModel, Primary, Scores, Size
from pipelines.steps.evaluate import evaluate
from pipelines.steps.finetune import Stopped
from pipelines.tasks import Task, task_of

REPAIRS = "compensation.json"
PLAN = "plan.json"


def example_batch(data: Data, images: int = 2) -> torch.Tensor:
    """Real images of the training split: what the model is traced and checked with. Too few of them are repeated."""
    return images_of(data.train, images)


def describe_source(model: ModelRef, data: Data, scores: Scores) -> CompressedModel:
    """The source as it is: the baseline of the comparison."""
    module = load_module(model)
    primary = Primary(scores.validation.value, scores.test.value)
    return CompressedModel(
        title="source",
        method="none",
        ratio=0.0,
        asked="",
        channels=1,
        channels_before=1,
        size=size_of(module, data, Path(model.weights)),
        model=model,
        after_cut=primary,
        after_pruning=primary,
        scores=scores,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One candidate, as this step needs it. `images`: in the batch that the engine sees; macs and latency are its."""

    title: str
    asked: str
    ratio: float | None
    spec: pc.PruningSpec
    images: int = 2


def prune(
    request: Request,
    source: ModelRef,
    data: Data,
    folder: Path,
    calibration: pc.Calibration | None = None,
    latencies: pc.LatencyTable | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    task: Task | None = None,
) -> CompressedModel:
    """Cut a copy of the source, check it against muted channels, mend it; plan and weights go into `folder`.

    Nothing is written, and Stopped is raised, once `should_stop()` is true: the flow's folder is gone then.
    """
    module, batch, spec = load_module(source), example_batch(data, request.images), request.spec
    task = task or task_of(data)
    between: list[Primary] = []
    result = pc.prune(
        module,
        batch,
        spec,
        calibration,
        check="numeric",
        latencies=latencies,
        on_compensated=lambda compensated: between.append(primary_of(compensated, data, task)),
    )
    after_pruning = primary_of(result.model, data, task)
    is_mended = result.report.repairs or result.plan.spec.recalibrate_bn
    after_cut = primary_of(pc.apply(module, result.plan, batch), data, task) if is_mended else after_pruning
    if should_stop():
        raise Stopped
    folder.mkdir(exist_ok=True)
    plan_path = folder / PLAN
    plan_path.write_text(result.plan.to_json(), encoding="utf-8")
    (folder / REPAIRS).write_text(json.dumps([_finite(asdict(r)) for r in result.report.repairs], indent=1))
    weights = save_weights(result.model, folder / "pruned.safetensors")
    predicted = result.report.predicted_ms
    return CompressedModel(
        title=request.title,
        method=method_of(result.plan.spec),
        ratio=request.ratio,
        asked=request.asked,
        channels=result.plan.prunable_after,
        channels_before=result.plan.prunable_before,
        size=size_of(result.model, data, weights),
        model=replace(source, plans=(*source.plans, str(plan_path)), weights=str(weights)),
        after_cut=after_cut,
        after_pruning=after_pruning,
        predicted_ms=predicted[1] if predicted else None,
        predicted_speedup=predicted[0] / predicted[1] if predicted else None,
        after_compensation=between[0] if between else None,
        notes=result.report.notes,
    )


def method_of(spec: pc.PruningSpec) -> str:
    """`l2_norm/slamp`, or `index`."""
    return "index" if spec.index else f"{spec.criterion}/{spec.allocator}"


def _finite(numbers: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no infinity: null is a layer that was left as it was."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in numbers.items()}


def size_of(module: nn.Module, data: Data, weights: Path) -> Size:
    """Parameters, MACs and activations of one image, bytes of the weights file."""
    cost = pc.cost(module, example_batch(data, images=1))
    return Size(
        params=cost.params,
        macs=cost.macs,
        size_bytes=weights.stat().st_size,
        activation_bytes=cost.peak_activation_bytes,
    )


def primary_of(module: nn.Module, data: Data, task: Task) -> Primary:
    return Primary(*(evaluate(module, split, task)[task.primary] for split in (data.validation, data.test)))
