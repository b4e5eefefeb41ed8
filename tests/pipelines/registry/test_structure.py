"""The four ways from what lies in a registry to a module that trains, and what is refused. No store is needed for these."""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from mlflow.models import Model
from torch import nn

from pipelines.architecture import load_module
from pipelines.errors import SourceError
from pipelines.exported_graph import ExportedGraph
from pipelines.registry.structure import Allowed, Download, structure_of
from tests.pipelines import exported

X = np.random.default_rng(0).random((4, 1, 8, 8), dtype=np.float32)
THREE_WAYS = ("format pt2", "source.factory", "safetensors")


def make(seed: int = 0) -> nn.Module:
    return exported.small(seed)


def other_class() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


class OtherAnswers(exported.Small):
    """The same parameters, used otherwise."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.square())


def download(folder: Path, **save: Any) -> Download:
    """A model as MLflow stores it, on this disk."""
    mlflow.pytorch.save_model(make(), str(folder), pip_requirements=["torch"], input_example=X, **save)
    return Download("models:/it/1", folder, Model.load(str(folder)))


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Download:
    return download(tmp_path_factory.mktemp("graph") / "m", serialization_format="pt2")


@pytest.fixture(scope="module")
def pickled(tmp_path_factory: pytest.TempPathFactory) -> Download:
    return download(tmp_path_factory.mktemp("pickled") / "m", serialization_format="pickle")


def test_a_graph_and_the_factory_that_the_configuration_names(graph: Download, tmp_path: Path) -> None:
    """Its random weights are replaced by those of the graph."""
    allowed = Allowed(trust=("tests",), factory=f"{__name__}:make", kwargs={"seed": 9})
    ref = structure_of(graph, allowed, tmp_path)
    module, x = load_module(ref), torch.from_numpy(X)
    assert isinstance(module, exported.Small)
    torch.testing.assert_close(module(x), make()(x))
    assert "configuration names" in ref.origin
    assert "answers as its exported graph does" in ref.origin


@pytest.mark.parametrize(
    ("factory", "message"),
    [("other_class", "weights do not fit"), ("OtherAnswers", "answers differently"), ("nothing", "cannot be imported")],
)
def test_a_factory_of_something_else_is_refused(graph: Download, tmp_path: Path, factory: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        structure_of(graph, Allowed(trust=("tests",), factory=f"{__name__}:{factory}"), tmp_path)


def test_a_factory_that_is_not_trusted_is_refused(graph: Download, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not trusted"):
        structure_of(graph, Allowed(trust=("pipelines.models",), factory=f"{__name__}:make"), tmp_path)


def test_a_graph_alone(graph: Download, tmp_path: Path) -> None:
    ref = structure_of(graph, Allowed(trust=()), tmp_path)
    module, x = load_module(ref), torch.from_numpy(X)
    assert isinstance(module, ExportedGraph)
    torch.testing.assert_close(module(x), make()(x))
    assert "without source code" in ref.origin


def test_a_pickle_is_refused_unopened_with_the_other_ways(pickled: Download, tmp_path: Path) -> None:
    before = pickled.pickled.read_bytes() if pickled.pickled else b""
    assert before
    for trust in ((), ("tests", "pipelines.models")):
        with pytest.raises(SourceError, match="run code out of the registry") as caught:
            structure_of(pickled, Allowed(trust=trust), tmp_path)
        assert all(words in caught.value.fix for words in (*THREE_WAYS, "trust: pickle"))


def test_a_pickle_that_is_trusted(pickled: Download, tmp_path: Path) -> None:
    ref = structure_of(pickled, Allowed(trust=("pickle",)), tmp_path)
    module, x = load_module(ref), torch.from_numpy(X)
    assert isinstance(module, exported.Small)
    torch.testing.assert_close(module(x), make()(x))
    assert "opened as a pickle" in ref.origin


def test_a_pickle_whose_class_is_gone(pickled: Download, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(exported, "Small")
    with pytest.raises(SourceError, match="class is not here"):
        structure_of(pickled, Allowed(trust=("pickle",)), tmp_path)


def test_another_flavour_is_named(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {sklearn: {}}\nmodel_uuid: x\n")
    with pytest.raises(SourceError, match=r"no PyTorch model \(it is: sklearn\)"):
        structure_of(Download("models:/it/1", tmp_path, Model.load(str(tmp_path))), Allowed(trust=("pickle",)), tmp_path)


def test_a_folder_outside_of_the_download_is_not_looked_at(pickled: Download, tmp_path: Path) -> None:
    model = Model.load(str(pickled.root))
    model.flavors["pytorch"]["model_data"] = f"../{pickled.root.name}/data"
    inside = Download("it", tmp_path, model)
    assert inside.pickled is None
