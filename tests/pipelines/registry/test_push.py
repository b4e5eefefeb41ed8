import shutil
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from mlflow.models import Model
from mlflow.tracking import MlflowClient
from torch import Tensor, nn

from pipelines import lineage, registry
from pipelines.architecture import ModelRef, load_module, save_weights
from pipelines.errors import RegistryError, SourceError
from pipelines.models import small_resnet
from pipelines.registry import Export, Exported, Store
from pipelines.registry.integrity import digests_of
from pipelines.registry.structure import Allowed, Download, structure_of

X = np.random.default_rng(0).random((7, 1, 8, 8), dtype=np.float32)


class Flatterer(nn.Module):
    """Says something else when it is exported than when it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(x.flatten(1))
        return y + 1 if torch.compiler.is_exporting() else y


class BatchCounter(Flatterer):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1)) * (1 + (len(x) == 4))


class Unexportable(Flatterer):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1)) if float(x.sum()) > 0 else x


@pytest.fixture
def store(store_uri: str) -> Store:
    return registry.open_store(store_uri)


def export_of(store: Store, module: nn.Module, factory: str, folder: Path) -> Export:
    experiment = store.client.get_experiment_by_name("digits-resnet").experiment_id
    run_id = store.client.create_run(experiment).info.run_id
    weights = save_weights(module, folder / "w.safetensors")
    model = ModelRef(factory=factory, kwargs={}, plans=(), weights=str(weights), trust=("pipelines", "tests"))
    return Export(run_id=run_id, name="digits-resnet", model=model, images=X)


def good(store: Store, folder: Path) -> Export:
    return export_of(store, small_resnet(), "pipelines.models:small_resnet", folder)


def test_one_run_makes_one_version_however_often_it_is_asked(store: Store, tmp_path: Path) -> None:
    export = good(store, tmp_path)
    exported = registry.export_model(store, export, tmp_path / "e")
    tags = {"ratio": "0.5"}
    numbers = {registry.create_version(store, "digits-resnet", exported, export.run_id, tags, "Plain.") for _ in range(3)}
    assert numbers == {2}
    version = store.client.get_model_version("digits-resnet", "2")
    assert version.tags == tags
    assert version.description == "Plain."
    assert version.source == exported.uri


def test_a_version_that_a_lost_request_makes_late_goes_again(store: Store, tmp_path: Path) -> None:
    export = good(store, tmp_path)
    exported = registry.export_model(store, export, tmp_path / "e")
    first = registry.create_version(store, "digits-resnet", exported, export.run_id, {}, "Plain.")
    for text in ("Plain.", "Plain.", "Somebody's own."):  # two carried out behind our back
        store.client.create_model_version(
            "digits-resnet", exported.uri, export.run_id, description=text, model_id=exported.model_id
        )
    registry.move_alias(store, "digits-resnet", "liked", first + 2)
    registry.remove_doubles(store, "digits-resnet", [export.run_id, "no such run"])
    numbers = {int(v.version) for v in store.client.search_model_versions("name='digits-resnet'")}
    assert numbers == {1, first, first + 2, first + 3}  # what somebody has named or described stays


def test_the_same_weights_of_the_same_work_are_found_again(store: Store, tmp_path: Path) -> None:
    export = good(store, tmp_path)
    tags = {lineage.WORK_KEY: "k", lineage.KIND: "candidate", lineage.WEIGHTS_DIGEST: "abc"}
    experiment = store.client.get_run(export.run_id).info.experiment_id
    for key, value in tags.items():
        store.client.set_tag(export.run_id, key, value)
    store.client.update_run(export.run_id, name="half")
    wanted = [store, "digits-resnet", experiment, "k", "half", "abc"]
    assert registry.find_same(*wanted) is None  # measured, and not registered
    exported = registry.export_model(store, export, tmp_path / "e")
    version = registry.create_version(store, "digits-resnet", exported, export.run_id, {}, "Plain.")
    found = registry.find_same(*wanted)
    assert found is not None
    assert found.version == version
    for at, other in ((3, "other work"), (4, "quarter"), (5, "other weights")):
        assert registry.find_same(*wanted[:at], other, *wanted[at + 1 :]) is None
    store.client.delete_model_version("digits-resnet", str(version))
    assert registry.find_same(*wanted) is None


def test_requirements_are_given_not_guessed(store: Store, tmp_path: Path) -> None:
    registry.export_model(store, good(store, tmp_path), tmp_path / "e")
    lines = (tmp_path / "e" / "mlflow" / "requirements.txt").read_text().splitlines()
    assert sorted(line.partition("==")[0] for line in lines) == ["mlflow", "numpy", "torch"]
    assert not any("+" in line for line in lines)


@pytest.mark.parametrize(
    ("kind", "note"),
    [(Flatterer, "differs from the measured model by 1"), (Unexportable, "torch cannot store the model as pt2")],
)
def test_a_model_that_torch_cannot_export_right_is_kept(
    store: Store, tmp_path: Path, kind: type[nn.Module], note: str
) -> None:
    """As MLflow keeps such models: a pickle for those who have its code, and our weights, which need no unpickling."""
    exported = registry.export_model(
        store, export_of(store, module := kind(), f"{__name__}:{kind.__name__}", tmp_path), tmp_path / "e"
    )
    assert note in exported.note
    assert exported.program is None
    with torch.inference_mode():
        torch.testing.assert_close(mlflow.pytorch.load_model(exported.uri)(torch.from_numpy(X)), module(torch.from_numpy(X)))
    root = Path(mlflow.artifacts.download_artifacts(exported.uri, dst_path=str(tmp_path / "d")))
    model = Model.load(str(root))
    ref = structure_of(Download("it", root, model), Allowed(trust=("tests",)), tmp_path / "read")
    torch.testing.assert_close(load_module(ref)(torch.from_numpy(X)), module(torch.from_numpy(X)))


def test_several_batch_sizes_are_compared(store: Store, tmp_path: Path) -> None:
    """This one exports a graph that is right for four images and wrong for any other number."""
    exported = registry.export_model(
        store, export_of(store, BatchCounter(), f"{__name__}:BatchCounter", tmp_path), tmp_path / "e"
    )
    assert "the exported graph" in exported.note


def test_an_upload_that_breaks_off_leaves_no_model(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export = good(store, tmp_path)

    def break_off(*args: object, **options: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(MlflowClient, "log_model_artifacts", break_off)
    with pytest.raises(RegistryError, match="no space left") as caught:
        registry.export_model(store, export, tmp_path / "e")
    assert caught.value.retryable
    experiment = store.client.get_run(export.run_id).info.experiment_id
    assert not [m for m in store.client.search_logged_models([experiment]) if m.source_run_id == export.run_id]


def test_a_version_of_nothing_is_an_error_of_ours(store: Store) -> None:
    with pytest.raises(RegistryError, match="cannot be registered"):
        registry.create_version(store, "no-such-model", Exported("m-1"), "run", {}, "")


def changed_weights(root: Path) -> None:
    weights = root / "extra_files" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)


def changed_weights_and_their_digest(root: Path) -> None:
    """By somebody who knows how we do it and reaches the files, but not MLflow's database."""
    changed_weights(root)
    model = Model.load(str(root))
    model.metadata = {**(model.metadata or {}), "digests": digests_of(root)}
    model.save(str(root / "MLmodel"))


def another_factory(root: Path) -> None:
    text = (root / "MLmodel").read_text()
    (root / "MLmodel").write_text(text.replace("small_resnet", "something_else"))


def one_file_more(root: Path) -> None:
    (root / "data" / "aaa.pt2").write_bytes(b"read before model.pt2")


def one_file_less(root: Path) -> None:
    (root / "data" / "model.pt2").unlink()


def no_digests(root: Path) -> None:
    model = Model.load(str(root))
    model.metadata = {key: value for key, value in (model.metadata or {}).items() if key != "digests"}
    model.save(str(root / "MLmodel"))


def test_what_was_changed_in_the_artifact_store_is_refused(store: Store, tmp_path: Path) -> None:
    export = good(store, tmp_path)
    exported = registry.export_model(store, export, tmp_path / "e")
    registry.create_version(store, "digits-resnet", exported, export.run_id, {}, "")
    source = registry.resolve(store, "models:/digits-resnet/2")
    fetch = {"trust": ("pipelines.models",)}
    registry.fetch_model(store, source, tmp_path / "good", **fetch)  # type: ignore[arg-type]
    root = Path(store.client.get_logged_model(exported.model_id).artifact_location.removeprefix("file://"))
    for change, words in {
        changed_weights: "extra_files/weights.safetensors",
        changed_weights_and_their_digest: "MLmodel",
        another_factory: "MLmodel",
        one_file_more: "data/aaa.pt2",
        one_file_less: "data/model.pt2",
        no_digests: "MLmodel",
    }.items():
        shutil.copytree(root, tmp_path / "kept")
        change(root)
        with pytest.raises(SourceError, match=f"changed after it was registered: .*{words}"):
            registry.fetch_model(store, source, tmp_path / change.__name__, **fetch)  # type: ignore[arg-type]
        shutil.rmtree(root)
        (tmp_path / "kept").rename(root)
    registry.fetch_model(store, source, tmp_path / "good-again", **fetch)  # type: ignore[arg-type]


def test_a_model_with_a_dot_in_its_name_can_be_stored(store: Store, tmp_path: Path) -> None:
    """A registered model may have one, a logged model may not."""
    exported = registry.export_model(store, replace(good(store, tmp_path), name="prod.digits"), tmp_path / "e")
    assert store.client.get_logged_model(exported.model_id).name == "prod-digits"
