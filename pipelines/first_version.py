"""A recipe's first version: trained here and registered, where the registry has no model of that name."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from pipelines import lineage, registry
from pipelines.architecture import ModelRef, load_module, save_weights, trusted_factory
from pipelines.config import CompressConfig, FirstVersion
from pipelines.data import images_of, load_data
from pipelines.environment import data_folder, work_folder
from pipelines.errors import SourceError
from pipelines.flows.work import work_place
from pipelines.progress import display
from pipelines.registry import SourceVersion, Store
from pipelines.steps.finetune import check_hardware, finetune
from pipelines.steps.fits import check_fits
from pipelines.steps.prune import primary_of
from pipelines.steps.threads import torch_threads
from pipelines.tasks import task_of

SECTIONS = {"distillation", "regularization", "hardware"}  # of a training, which say nothing of this one


@dataclass(frozen=True, slots=True)
class FirstSource:
    source: SourceVersion
    is_new: bool


def first_version(config: CompressConfig) -> FirstSource | None:
    """The source of a recipe that says how to make one; trained and registered if the registry has none of that name.

    A training that was killed goes on where it was. Raises SecateurError.
    """
    first = config.source.first
    if first is None:
        return None
    store = registry.create_store(config.tracking.uri)
    name, _, alias = config.source.model.removeprefix("models:/").partition("@")
    if is_new := not registry.has_model(store, name):
        _train_and_register(store, config, first, name, alias)
    return FirstSource(registry.resolve(store, config.source.model), is_new)


def _train_and_register(store: Store, config: CompressConfig, first: FirstVersion, name: str, alias: str) -> None:
    data = load_data(config.data)
    task = task_of(data, config.task, config.source.trust)
    options = first.training.model_copy(
        update={"distillation": first.training.distillation.model_copy(update={"weight": 0.0, "features": 0.0})}
    )
    torch.manual_seed(first.seed)
    try:
        module = trusted_factory(first.factory, config.source.trust)(**first.kwargs)
    except TypeError as exc:
        raise SourceError(f"the factory does not take its arguments: {exc}", first.factory, "correct source.first") from exc
    if not isinstance(module, nn.Module):
        raise SourceError(
            f"the factory gave a {type(module).__name__}", first.factory, "name a function that returns a model"
        )
    check_fits(module, data, task)
    check_hardware(options.hardware)
    artifacts = (data_folder() / "artifacts").as_uri() if store.is_local else None
    with (
        work_place(work_folder(), f"first-{registry.logged_name(name)}") as folder,
        registry.open_training(store, name, artifacts) as run_id,
    ):
        work = f"train {name}"
        display().start(work, options.epochs)
        log = registry.CurveLog(store, run_id, task.primary)
        with torch_threads(options.threads):
            trained = finetune(
                module,
                data,
                task,
                options,
                folder,
                on_epoch=log.add,
                on_batches=functools.partial(display().reach, work),
            )
        display().finish(work)
        model = ModelRef(
            factory=first.factory,
            kwargs=first.kwargs,
            plans=(),
            weights=str(save_weights(module, folder / "trained.safetensors")),
            trust=config.source.trust,
        )
        reached = primary_of(load_module(model), data, task)
        log.finish(trained.curve, {**options.model_dump(exclude=SECTIONS), **first.kwargs})
        registry.register_first(
            store,
            registry.Export(run_id=run_id, name=name, model=model, images=images_of(data.test, 7).numpy()),
            alias=alias,
            metrics={task.primary: reached.test, lineage.of_validation(task.primary): reached.validation},
            description=_description(first.kwargs, len(trained.curve), f"{task.primary} {reached.test:.3f}", data.name),
            folder=folder / "export",
        )


def _description(kwargs: Mapping[str, object], epochs: int, reached: str, data: str) -> str:
    made = ", ".join(f"{key} {value}" for key, value in kwargs.items())
    return f"First version, test {reached}.\n\nTrained for {epochs} epochs on the data set `{data}` ({made}).\n"
