"""The demo: train a small model on real data, register it as `champion`, hand it to the compress flow."""

import functools
import shutil
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch

from pipelines import lineage, registry
from pipelines.architecture import ModelRef, load_module, save_weights
from pipelines.config import CompressConfig, Distillation, Finetune, load_config
from pipelines.data import images_of, load_data
from pipelines.environment import data_folder, work_folder
from pipelines.errors import SourceError
from pipelines.models import digits_resnet
from pipelines.progress import display
from pipelines.registry import SourceVersion, Store
from pipelines.steps.finetune import Epoch, finetune
from pipelines.steps.prune import primary_of
from pipelines.steps.threads import torch_threads
from pipelines.tasks import task_of

FACTORY, KWARGS = "pipelines.models:digits_resnet", {"width": 32}
TRAINING = Finetune(epochs=12, learning_rate=0.003, batch_size=64, threads=1, distillation=Distillation())
SEED = 0


@dataclass(frozen=True, slots=True)
class Champion:
    source: SourceVersion
    is_new: bool


def demo_config() -> CompressConfig:
    """The recipe, on the demo's own local store whatever MLFLOW_TRACKING_URI says."""
    with resources.as_file(resources.files("pipelines.recipes") / "digits.yaml") as path:
        config = load_config(path)
    tracking = config.tracking.model_copy(update={"uri": local_store_uri()})
    return config.model_copy(update={"tracking": tracking})


def local_store_uri() -> str:
    return f"sqlite:///{data_folder() / 'mlflow.db'}"


def champion(config: CompressConfig) -> Champion:
    """The registered demo model; trained and registered first if there is none."""
    store = registry.create_store(config.tracking.uri)
    try:
        return Champion(registry.resolve(store, config.source.model), is_new=False)
    except SourceError:
        _train_and_register(store, config)
    return Champion(registry.resolve(store, config.source.model), is_new=True)


def _train_and_register(store: Store, config: CompressConfig) -> None:
    name, _, alias = config.source.model.removeprefix("models:/").partition("@")
    folder = work_folder() / "demo"
    data = load_data(config.data)
    artifacts = (data_folder() / "artifacts").as_uri()
    try:
        with registry.open_training(store, name, artifacts) as run_id:
            torch.manual_seed(SEED)
            module = digits_resnet(**KWARGS)
            work = f"train {name}"
            display().start(work, TRAINING.epochs)
            task = task_of(data)
            log = registry.CurveLog(store, run_id, task.primary)
            with torch_threads(TRAINING.threads):
                trained = finetune(
                    module,
                    data,
                    task,
                    TRAINING,
                    folder,
                    on_epoch=log.add,
                    on_batches=functools.partial(display().reach, work),
                )
            display().finish(work)
            model = ModelRef(
                factory=FACTORY,
                kwargs=KWARGS,
                plans=(),
                weights=str(save_weights(module, folder / "trained.safetensors")),
                trust=config.source.trust,
            )
            accuracy = primary_of(load_module(model), data, task)
            curve = trained.curve
            log.finish(curve, {**TRAINING.model_dump(exclude={"distillation", "regularization", "hardware"}), **KWARGS})
            registry.register_first(
                store,
                registry.Export(run_id=run_id, name=name, model=model, images=images_of(data.test, 7).numpy()),
                alias=alias,
                metrics={"accuracy": accuracy.test, lineage.of_validation("accuracy"): accuracy.validation},
                description=_description(curve, accuracy.test, data.name),
                folder=folder / "export",
            )
    finally:
        shutil.rmtree(Path(folder), ignore_errors=True)


def _description(curve: tuple[Epoch, ...], accuracy: float, data: str) -> str:
    return (
        f"Residual CNN for handwritten digits, test accuracy {accuracy:.3f}.\n\n"
        f"Trained for {len(curve)} epochs on the data set `{data}` by `secateur demo`.\n"
    )
